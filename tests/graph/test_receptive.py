"""Receptive fields are what changing the input, row by row and column by column, shows them to be.

The oracle runs the model once for each position of an axis, with all values there raised, and sees which positions of
a layer change: their bounding interval is the field. Weights are made positive, so that nothing that is connected
cancels or dies in a Relu, and the comparison is of integers, exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnx_inspect.graph.bind import bind
from onnx_inspect.graph.fields import Field, plane, reshaped
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import parse, read
from onnx_inspect.graph.receptive import receptive
from onnx_inspect.graph.spatial import Spatial, spatial
from onnx_inspect.graph.surgery import expose
from tests.conftest import make_model

RAISED = 1000.0  # so far above the rest that it wins in every pooling


def measured(model: Model, tensor: str, form: Spatial, shape: Sequence[int], axes: Sequence[int]) -> NDArray[np.int32]:
    """Field of each position of a map by brute force, (cells, axes, 2); (0, 0) where nothing is read."""
    session = onnxruntime.InferenceSession(expose(model, [tensor]).proto.SerializeToString())
    name = model.inputs[0].name
    base = np.random.default_rng(0).uniform(0.5, 1.5, shape).astype(np.float32)

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        (values,) = session.run([tensor], {name: x})
        if form.form == "tokens":
            return np.moveaxis(values[0, form.prefix : form.prefix + form.cells], -1, 0)
        values = np.moveaxis(values[0], -1, 0) if form.form == "channels-last" else values[0]
        return values.reshape(len(values), -1)  # (K, cells)

    plain, found = run(base), []
    for axis in axes:
        moved = []
        for place in range(shape[axis]):
            other = base.copy()
            other[(slice(None),) * axis + (place,)] += RAISED
            moved.append((run(other) != plain).any(axis=0))
        reached = np.stack(moved)  # (places, cells)
        starts = np.where(reached.any(axis=0), reached.argmax(axis=0), 0)
        stops = np.where(reached.any(axis=0), len(reached) - reached[::-1].argmax(axis=0), 0)
        found.append(np.stack([starts, stops], -1))
    return np.stack(found, 1).astype(np.int32)


def expected(model: Model, tensor: str, shape: tuple[int, ...], axes: Sequence[int]) -> NDArray[np.int32]:
    """The same by the graph."""
    shapes = bind(model, {model.inputs[0].name: shape})
    fields = receptive(model, shapes, model.inputs[0].name, plane(shape, axes))
    return fields[tensor].at(spatial(model, shapes)[tensor])


def positive(path: Path) -> Model:
    """A model with the sizes of its weights and none of their signs."""
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = np.abs(numpy_helper.to_array(tensor))
            even = np.full_like(values, values.mean() + 0.01) if values.ndim > 1 else values
            tensor.CopyFrom(numpy_helper.from_array(even, tensor.name))
    return parse(proto.SerializeToString(), source=str(path))


def check(model: Model, shape: tuple[int, ...], axes: Sequence[int], op_types: Sequence[str]) -> None:
    forms = spatial(model, bind(model, {model.inputs[0].name: shape}))
    looked = [la.output.name for la in model.layers if la.op_type in op_types and la.output.name in forms]
    assert looked
    for tensor in looked:
        np.testing.assert_array_equal(
            expected(model, tensor, shape, axes), measured(model, tensor, forms[tensor], shape, axes), tensor
        )


@pytest.mark.parametrize(
    ("name", "shape", "axes"),
    [
        ("digits_convnet", (1, 3, 32, 32), (2, 3)),
        ("shapes_resnet", (1, 3, 64, 64), (2, 3)),
        ("gap", (1, 3, 12, 20), (2, 3)),
        ("skip", (1, 3, 16, 16), (2, 3)),
        ("conv1d", (1, 2, 32), (2,)),
        ("nhwc", (1, 16, 20, 3), (1, 2)),
        ("conv3d", (1, 1, 8, 10, 12), (2, 3, 4)),
    ],
)
def test_fields_of_the_fixtures_are_what_perturbation_shows(
    fixtures: Path, name: str, shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    model = positive(fixtures / f"{name}.onnx")
    known = tuple(d if isinstance(d, int) else s for d, s in zip(model.inputs[0].shape or (), shape, strict=True))
    check(model, (1, *known[1:]), axes, ("Conv", "MaxPool", "Relu", "Add"))


def test_patches_are_the_fields_of_tokens_until_attention_mixes_them(fixtures: Path) -> None:
    model = read(fixtures / "digits_vit.onnx")
    shape = (1, 3, 32, 32)
    shapes = bind(model, {"input": shape})
    forms = spatial(model, shapes)
    fields = receptive(model, shapes, "input", plane(shape, (2, 3)))
    tokens = [la for la in model.layers if (f := forms.get(la.output.name)) is not None and f.form == "tokens"]
    before = fields[next(la.output.name for la in tokens if la.op_type == "LayerNormalization")]
    corners = before.at(Spatial("tokens", (8, 8), 1)).reshape(8, 8, 2, 2)
    np.testing.assert_array_equal(corners[..., 0], np.stack(np.mgrid[:8, :8], -1) * 4)
    np.testing.assert_array_equal(corners[..., 1], np.stack(np.mgrid[:8, :8], -1) * 4 + 4)
    after = fields[tokens[-1].output.name].at(forms[tokens[-1].output.name])
    assert (after == [[[0, 32], [0, 32]]]).all()


def ones(*shape: int) -> NDArray[np.float32]:
    return np.ones(shape, np.float32)


def node(op: str, *constants: str, **attributes: Any) -> Callable[[], onnx.NodeProto]:
    return lambda: helper.make_node(op, ["x", *constants], ["y"], **attributes)


CONSTANTS = {
    "w": ones(4, 4, 3, 3),
    "w4": ones(4, 4, 4, 2),
    "none": np.zeros(0, np.float32),
    "double": np.array([1, 1, 2, 3], np.float32),
    "half": np.array([1, 1, 0.5, 0.75], np.float32),
    "pads": np.array([0, 0, 2, 1, 0, 0, 1, 3], np.int64),
    "starts": np.array([2, 10], np.int64),
    "stops": np.array([9, -100], np.int64),
    "axes": np.array([2, 3], np.int64),
    "steps": np.array([2, -3], np.int64),
    "picked": np.array([7, 0, 0, -1], np.int64),
    "scale": ones(4),
    "shift": np.zeros(4, np.float32),
}
OPERATORS = {
    "strides": node("Conv", "w", strides=[2, 3]),
    "dilation": node("Conv", "w", dilations=[3, 2], pads=[3, 1, 0, 2]),
    "dilation wider than the stride": node("Conv", "w", dilations=[2, 2], strides=[3, 3], pads=[2, 2, 2, 2]),
    "same upper, even kernel": node("Conv", "w4", auto_pad="SAME_UPPER", strides=[2, 2]),
    "same lower, even kernel": node("Conv", "w4", auto_pad="SAME_LOWER", strides=[3, 1]),
    "valid": node("Conv", "w4", auto_pad="VALID"),
    "max pool, rounded up": node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "max pool, dilated": node("MaxPool", kernel_shape=[2, 3], dilations=[2, 2], pads=[1, 0, 0, 1]),
    "average pool": node("AveragePool", kernel_shape=[3, 2], strides=[3, 2], pads=[1, 1, 1, 1]),
    "transposed": node("ConvTranspose", "w", strides=[2, 3], pads=[1, 0, 0, 2], output_padding=[1, 0]),
    "transposed, dilated": node("ConvTranspose", "w4", strides=[2, 2], dilations=[1, 3]),
    "transposed, same": node("ConvTranspose", "w4", strides=[2, 2], auto_pad="SAME_UPPER"),
    "nearest": node("Resize", "none", "double", mode="nearest", coordinate_transformation_mode="asymmetric"),
    "nearest, floored": node("Resize", "none", "half", mode="nearest", nearest_mode="floor"),
    "linear": node("Resize", "none", "double", mode="linear"),
    "linear, corners aligned": node(
        "Resize", "none", "half", mode="linear", coordinate_transformation_mode="align_corners"
    ),
    "linear, smaller": node(
        "Resize", "none", "half", mode="linear", coordinate_transformation_mode="pytorch_half_pixel"
    ),
    "linear, antialias": node("Resize", "none", "half", mode="linear", antialias=1),
    "pad": node("Pad", "pads"),
    "pad, reflect": node("Pad", "pads", mode="reflect"),
    "pad, edge": node("Pad", "pads", mode="edge"),
    "slice, backwards": node("Slice", "starts", "stops", "axes", "steps"),
    "gather": node("Gather", "picked", axis=3),
    "space to depth": node("SpaceToDepth", blocksize=2),
    "depth to space": node("DepthToSpace", blocksize=2),
    "instance normalisation": node("InstanceNormalization", "scale", "shift"),
    "whole": node("GlobalAveragePool"),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_widens_or_moves_the_field_as_it_does_its_values(name: str) -> None:
    shape = (1, 2, 12, 15)
    first = helper.make_node("Conv", ["input", "k"], ["x"], kernel_shape=[3, 2], pads=[1, 0, 1, 0])
    made = OPERATORS[name]()
    used = {n: CONSTANTS[n] for n in made.input[1:]} | {"k": ones(4, 2, 3, 2)}
    model = make_model([first, made], {"input": (np.float32, shape)}, ["y"], used)
    shapes = bind(model, {"input": shape})
    form = Spatial("channels-first", shapes["y"][2:])
    found = receptive(model, shapes, "input", plane(shape, (2, 3)))["y"].at(form)
    np.testing.assert_array_equal(found, measured(model, "y", form, shape, (2, 3)))


def test_branches_of_different_reach_and_stride_unite() -> None:
    shape = (1, 2, 12, 12)
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node(
            "Resize", ["a", "", "twice"], ["up"], mode="nearest", coordinate_transformation_mode="asymmetric"
        ),
        helper.make_node("Conv", ["input", "w"], ["b"], dilations=[3, 1], pads=[3, 1, 3, 1]),
        helper.make_node("Concat", ["up", "b"], ["c"], axis=1),
        helper.make_node("Split", ["c"], ["left", "right"], axis=3, num_outputs=2),
        helper.make_node("Add", ["left", "right"], ["y"]),
    ]
    constants = {"w": ones(2, 2, 3, 3), "twice": np.array([1, 1, 2, 2], np.float32)}
    model = make_model(nodes, {"input": (np.float32, shape)}, ["y"], constants)
    for tensor in ("c", "y"):
        form = Spatial("channels-first", {"c": (12, 12), "y": (12, 6)}[tensor])
        shapes = bind(model, {"input": shape})
        found = receptive(model, shapes, "input", plane(shape, (2, 3)))[tensor].at(form)
        np.testing.assert_array_equal(found, measured(model, tensor, form, shape, (2, 3)), tensor)


def test_a_picture_in_one_row_keeps_its_plane() -> None:
    flat = reshaped(plane((1, 1, 6, 8), (2, 3)), (1, 1, 6, 8), (1, 48))
    nodes = [
        helper.make_node("Reshape", ["input", "shape"], ["x"]),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ]
    constants = {"shape": np.array([-1, 1, 6, 8]), "w": ones(1, 1, 3, 3)}
    model = make_model(nodes, {"input": (np.float32, (1, 48))}, ["y"], constants)
    found = receptive(model, bind(model, {"input": (1, 48)}), "input", flat)["y"].at(Spatial("channels-first", (4, 6)))
    assert found[7].tolist() == [[1, 4], [1, 4]]


def test_an_unknown_operator_may_read_everything() -> None:
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["x"]),
        helper.make_node("Mystery", ["x"], ["z"], domain="com.microsoft"),
        helper.make_node("Relu", ["z"], ["y"]),
    ]
    opsets = [helper.make_opsetid("com.microsoft", 1)]
    ends = {"input": (np.float32, (1, 2, 6, 6))}
    model = make_model(nodes, ends, {"y": (np.float32, (1, 2, 4, 4))}, {"w": ones(2, 2, 3, 3)}, opsets=opsets)
    fields = receptive(model, {"input": (1, 2, 6, 6), "x": (1, 2, 4, 4)}, "input", plane((1, 2, 6, 6), (2, 3)))
    assert fields["y"].at(None).tolist() == [[[0, 6], [0, 6]]]
    assert isinstance(fields["z"], Field)
