"""Older operator sets: what a model computes is the same after it was brought to opset 18."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_inspect.errors import ModelError
from onnx_inspect.graph.changes import OPSET
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read
from onnx_inspect.graph.upgrade import upgrade
from tests.conftest import make_model, random_feeds, run_plainly

X = (2, 3, 4, 5)
NONE = np.array([], np.float32)
# Opset, operator, inputs after x, attributes.
CASES: dict[str, tuple[int, str, dict[str, Any], dict[str, Any]]] = {
    "clip": (7, "Clip", {}, {"min": -0.5, "max": 0.5}),
    "clip-one-bound": (10, "Clip", {}, {"max": 0.5}),
    "squeeze": (11, "Squeeze", {}, {"axes": [0]}),
    "unsqueeze": (11, "Unsqueeze", {}, {"axes": [0, 5]}),
    "reduce-sum": (11, "ReduceSum", {}, {"axes": [1, -1], "keepdims": 0}),
    "reduce-sum-all": (11, "ReduceSum", {}, {"keepdims": 0}),
    **{f"reduce-{k}": (13, f"Reduce{k}", {}, {"axes": [2]}) for k in ("Mean", "Max", "Min", "L1", "L2", "LogSumExp")},
    "reduce-prod": (17, "ReduceProd", {}, {"axes": [-1]}),
    "reduce-square": (17, "ReduceSumSquare", {}, {"axes": [0]}),
    "slice": (9, "Slice", {}, {"axes": [1, 2], "starts": [1, 0], "ends": [3, -1]}),
    "slice-no-axes": (7, "Slice", {}, {"starts": [0, 1], "ends": [1, 9]}),
    "pad": (7, "Pad", {}, {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "value": 1.5}),
    "pad-reflect": (10, "Pad", {}, {"pads": [0, 0, 1, 2, 0, 0, 1, 1], "mode": "reflect"}),
    "dropout": (7, "Dropout", {}, {"ratio": 0.3}),
    "dropout-10": (10, "Dropout", {}, {}),
    "upsample": (9, "Upsample", {"scales": np.array([1, 1, 2, 3], np.float32)}, {"mode": "nearest"}),
    "upsample-linear": (9, "Upsample", {"scales": np.array([1, 1, 2, 2], np.float32)}, {"mode": "linear"}),
    "upsample-7": (7, "Upsample", {}, {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 2.0]}),
    "resize-10": (10, "Resize", {"scales": np.array([1, 1, 2, 2], np.float32)}, {"mode": "nearest"}),
    "resize-10-linear": (10, "Resize", {"scales": np.array([1, 1, 1.5, 2], np.float32)}, {"mode": "linear"}),
    "resize-rounding": (
        11,
        "Resize",
        {"roi": NONE, "scales": np.array([1, 1, 2.5, 1.5], np.float32)},
        {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor"},
    ),
    **{f"softmax-{axis}": (11, "Softmax", {}, {"axis": axis}) for axis in (0, 1, 2, 3)},
    "softmax-default": (7, "Softmax", {}, {}),
    "log-softmax": (12, "LogSoftmax", {}, {"axis": 2}),
    "hardmax": (11, "Hardmax", {}, {"axis": 1}),
    "batch-norm": (8, "BatchNormalization", {n: np.full(3, 0.5, np.float32) for n in "sbmv"}, {}),
    "flatten": (8, "Flatten", {}, {"axis": 2}),
    "lp-pool": (9, "LpPool", {}, {"kernel_shape": [2, 2], "p": 2}),
    "image-scaler": (7, "ImageScaler", {}, {"scale": 0.5, "bias": [1.0, 2.0, 3.0]}),
    "affine": (7, "Affine", {}, {"alpha": 2.0, "beta": -1.0}),
    "crop": (7, "Crop", {}, {"border": [1, 0, 2, 1]}),
    "parametric-softplus": (7, "ParametricSoftplus", {}, {"alpha": 0.5, "beta": 2.0}),
    "scaled-tanh": (7, "ScaledTanh", {}, {"alpha": 0.5, "beta": 2.0}),
    "cast": (8, "Cast", {}, {"to": 11}),
    "concat": (7, "Concat", {"z": np.ones((2, 1, 4, 5), np.float32)}, {"axis": 1}),
    "scatter": (9, "Scatter", {"i": np.zeros((1, 1, 1, 1), np.int64), "u": np.ones((1, 1, 1, 1), np.float32)}, {}),
}


def built(case: str) -> tuple[Model, dict[str, Any]]:
    opset, kind, constants, attributes = CASES[case]
    shape = (1, *X[1:]) if case == "squeeze" else X
    node = helper.make_node(kind, ["x", *constants], ["y"], name="node", **attributes)
    model = make_model([node], {"x": (np.float32, shape)}, ["y"], constants, opset=opset, ir_version=6)
    return model, {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32)}


@pytest.mark.parametrize("case", CASES)
def test_an_upgraded_operator_computes_the_same(case: str) -> None:
    model, feeds = built(case)
    newer = upgrade(model)
    assert newer.opsets["ai.onnx"] == OPSET and model.opsets["ai.onnx"] < OPSET
    before, after = run_plainly(model, feeds)["y"], run_plainly(newer, feeds)["y"]
    assert before.dtype == after.dtype
    np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-7)  # softmax may be summed in another order
    typed = onnx.ModelProto.FromString(newer.proto.SerializeToString())
    typed.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", typed_as(after), after.shape))
    onnx.checker.check_model(typed, full_check=True)


def typed_as(value: Any) -> int:
    return int(helper.np_dtype_to_tensor_dtype(value.dtype))


def test_several_outputs_and_inputs_in_front_stay_in_place() -> None:
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], axis=1, split=[1, 3]),
        helper.make_node("TopK", ["b"], ["v", "i"], k=2, axis=1),
        helper.make_node("Split", ["v"], ["c", "d"], axis=1),
    ]
    model = make_model(nodes, {"x": (np.float32, [2, 4])}, ["a", "c", "d", "i"], opset=9)
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)}
    before, after = run_plainly(model, feeds), run_plainly(upgrade(model), feeds)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


@pytest.mark.parametrize("axis", [0, 1, 2, -3])
def test_before_opset_7_operands_were_lined_up_with_an_axis(axis: int) -> None:
    length = X[axis]
    node = helper.make_node("Mul", ["x", "b"], ["y"], broadcast=1, axis=axis)
    factor = np.arange(1, length + 1, dtype=np.float32)
    proto = model_of([node], {"b": factor}, opset=6)
    newer = upgrade(read_proto(proto))
    x = np.ones(X, np.float32)
    view = [1] * 4
    view[axis] = length
    np.testing.assert_array_equal(run_plainly(newer, {"x": x})["y"], x * factor.reshape(view))


def test_before_opset_7_a_slope_belonged_to_a_channel() -> None:
    slope = np.array([0.1, 0.2, 0.3], np.float32)
    newer = upgrade(read_proto(model_of([helper.make_node("PRelu", ["x", "s"], ["y"])], {"s": slope}, opset=6)))
    x = -np.ones(X, np.float32)
    np.testing.assert_array_equal(run_plainly(newer, {"x": x})["y"], x * slope.reshape(3, 1, 1))


def test_before_opset_6_types_were_named_and_shapes_attributes() -> None:
    nodes = [
        helper.make_node("Reshape", ["x"], ["r"], shape=[2, -1]),
        helper.make_node("Relu", ["r"], ["p"], consumed_inputs=[0]),
        helper.make_node("Cast", ["p"], ["y"], to="DOUBLE"),
    ]
    made = run_plainly(upgrade(read_proto(model_of(nodes, {}, opset=4))), {"x": -np.ones(X, np.float32)})["y"]
    assert made.dtype == np.float64 and made.shape == (2, 60)


def model_of(nodes: list[onnx.NodeProto], constants: dict[str, Any], *, opset: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "old",
        [helper.make_tensor_value_info("x", 1, X)],
        [onnx.ValueInfoProto(name="y")],
        [onnx.numpy_helper.from_array(v, n) for n, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)


def read_proto(proto: onnx.ModelProto) -> Model:
    from onnx_inspect.graph.read import parse

    return parse(proto.SerializeToString(), source="old.onnx")


def test_bodies_are_upgraded_too() -> None:
    inner = [helper.make_node("Clip", ["x"], ["o"], name="inner", min=0.0), helper.make_node("Neg", ["x"], ["o2"])]
    branches = [
        helper.make_graph([node], "branch", [], [helper.make_tensor_value_info(node.output[0], 1, X)]) for node in inner
    ]
    node = helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    model = make_model([node], {"x": (np.float32, X), "c": (np.bool_, [])}, ["y"], opset=10)
    x = np.random.default_rng(0).normal(size=X).astype(np.float32)
    made = run_plainly(upgrade(model), {"x": x, "c": np.array(True)})["y"]
    np.testing.assert_array_equal(made, np.maximum(x, 0))


@pytest.mark.parametrize(
    ("kind", "attributes", "reason"),
    [
        ("Scan", {}, "went through samples"),
        ("Tile", {}, "repeated one axis"),
        ("MeanVarianceNormalization", {"normalize_variance": 0}, "leaves the variance"),
        ("BatchNormalization", {"spatial": 0}, "mean for each position"),
    ],
)
def test_what_can_not_be_written_anew_is_named(kind: str, attributes: dict[str, int], reason: str) -> None:
    names = {"Tile": ["x", "x", "x"], "BatchNormalization": [*"xxxxx"]}.get(kind, ["x"])
    node = helper.make_node(kind, names, ["y"], name="old", **attributes)
    if kind == "Scan":
        body = helper.make_graph([], "body", [], [])
        node = helper.make_node(kind, ["x"], ["y"], name="old", body=body, num_scan_inputs=1)
    with pytest.raises(ModelError, match=rf"'old' \({kind}, opset 5\).*{reason}.*--opset 18"):
        upgrade(read_proto(model_of([node], {}, opset=5)))


def test_what_is_new_enough_is_not_copied() -> None:
    model = make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": (np.float32, X)}, ["y"], opset=18)
    assert upgrade(model) is model


def test_names_layers_and_notes_stay(fixtures: Path) -> None:
    model = read(fixtures / "digits_convnet.onnx")
    proto = onnx.ModelProto.FromString(model.proto.SerializeToString())
    for entry in proto.opset_import:
        entry.version = 17
    old = read_proto(proto)
    newer = upgrade(old)
    assert newer.layers == old.layers and newer.metadata == old.metadata
    feeds = random_feeds(old, 2)
    before, after = run_plainly(old, feeds), run_plainly(newer, feeds)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])
