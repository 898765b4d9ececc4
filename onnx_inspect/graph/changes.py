"""What changed in the operator sets before 18: attributes that became inputs, defaults, meanings, withdrawn ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnx_inspect.errors import ModelError
from onnx_inspect.graph.constants import attribute
from onnx_inspect.graph.model import Model

OPSET = 18  # the first with reductions over axes given at run time; from 16 on ScatterElements adds

Change = Callable[["OldNode"], list[onnx.NodeProto] | None]  # nodes to put in its place; None where it stays


@dataclass
class OldNode:
    """A node to be changed in place, and the graph that its new constants go to."""

    node: onnx.NodeProto
    version: int
    graph: onnx.GraphProto
    model: Model
    attributes: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.attributes = {a.name: attribute(self.node, a.name, None) for a in self.node.attribute}

    def take(self, name: str, default: Any = None) -> Any:
        """Remove an attribute and return its value."""
        kept = [a for a in self.node.attribute if a.name != name]
        del self.node.attribute[:]
        self.node.attribute.extend(kept)
        return self.attributes.pop(name, default)

    def set(self, name: str, value: Any) -> None:
        """Set an attribute."""
        self.take(name)
        self.node.attribute.append(onnx.helper.make_attribute(name, value))

    def constant(self, what: str, values: NDArray[Any] | Iterable[int]) -> str:
        """Store a constant and return its name."""
        array = values if isinstance(values, np.ndarray) else np.array(list(values), np.int64)
        name = f"{self.node.name}__{what}"
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def feed(self, position: int, name: str) -> None:
        """Set an input; those before it that are missing are left out."""
        while len(self.node.input) <= position:
            self.node.input.append("")
        self.node.input[position] = name

    def scalar(self, value: float) -> NDArray[Any]:
        """Number of the type of the first input."""
        return np.array(value, self.model.tensor(self.node.input[0]).dtype or "float32")

    def rank(self, position: int) -> int:
        """Number of axes of an input."""
        name = self.node.input[position]
        if name in self.model.constants:
            return len(self.model.constants[name].dims)
        shape = self.model.tensor(name).shape
        if shape is None:
            raise self.fail(f"nothing tells how many axes {name!r} has")
        return len(shape)

    def fail(self, reason: str) -> ModelError:
        """Make the error that says why the node can't be written anew."""
        return ModelError(
            f"{self.model.source}: node {self.node.name!r} ({self.node.op_type}, opset {self.version}) can't be written"
            f" in opset {OPSET}: {reason}; export the model again with --opset {OPSET}"
        )


def _to_input(name: str, position: int) -> Change:
    """A list of integers that became an input."""

    def change(view: OldNode) -> None:
        values = view.take(name)
        if values is not None:
            view.feed(position, view.constant(name, values))

    return change


def _drop(*names: str) -> Change:
    """Attributes that mean nothing at inference."""

    def change(view: OldNode) -> None:
        for name in names:
            view.take(name)

    return change


def _broadcast(view: OldNode) -> None:
    """Before opset 7 the second input was lined up with an axis of the first, the last ones by default."""
    axis, wanted = view.take("axis"), view.take("broadcast", 0)
    if not wanted or axis is None:
        return
    axis = axis + view.rank(0) if axis < 0 else axis
    after = view.rank(0) - axis - view.rank(1)
    if after > 0:
        _append_axes(view, after)


def _prelu(view: OldNode) -> None:
    """Before opset 7 a slope per channel was a list."""
    if view.rank(1) == 1 and view.rank(0) > 2:
        _append_axes(view, view.rank(0) - 2)


def _append_axes(view: OldNode, count: int) -> None:
    """Give the second input further axes of length 1."""
    name = view.node.input[1]
    if name not in view.model.constants:
        raise view.fail(f"{name!r} is broadcast along an axis and no constant")
    rank = view.rank(1)
    made = f"{view.node.name}__{name}"
    tensor = onnx.TensorProto()
    tensor.CopyFrom(view.model.constants[name])
    tensor.name = made
    tensor.dims[:] = [*tensor.dims, *[1] * count]
    assert len(tensor.dims) == rank + count
    view.graph.initializer.append(tensor)
    view.feed(1, made)


def _reshape(view: OldNode) -> None:
    if (shape := view.take("shape")) is not None:
        view.feed(1, view.constant("shape", shape))


def _slice(view: OldNode) -> None:
    starts, ends, axes = view.take("starts"), view.take("ends"), view.take("axes")
    view.feed(1, view.constant("starts", starts))
    view.feed(2, view.constant("ends", ends))
    if axes is not None:
        view.feed(3, view.constant("axes", axes))


def _split(view: OldNode) -> None:
    if view.version < 2 and len(view.node.input) > 1:
        return
    if (sizes := view.take("split")) is not None:
        view.feed(1, view.constant("split", sizes))


def _split_evenly(view: OldNode) -> None:
    if len(view.node.input) < 2 or not view.node.input[1]:
        view.set("num_outputs", len(view.node.output))


def _clip(view: OldNode) -> None:
    for position, name in enumerate(("min", "max"), 1):
        if (bound := view.take(name)) is not None:
            view.feed(position, view.constant(name, view.scalar(bound)))


def _pad(view: OldNode) -> None:
    pads = view.take("pads", view.take("paddings"))
    value = view.take("value", 0.0)
    view.feed(1, view.constant("pads", pads))
    if value:
        view.feed(2, view.constant("value", view.scalar(value)))


def _dropout(view: OldNode) -> None:
    view.take("is_test")
    ratio = view.take("ratio", 0.5)
    if any(view.node.output[1:]):
        view.feed(1, view.constant("ratio", np.array(ratio, np.float32)))
        return
    view.node.op_type = "Identity"
    del view.node.output[1:]


def _batch_normalization(view: OldNode) -> None:
    if view.take("spatial", 1) == 0:
        raise view.fail("it has a mean for each position (spatial=0)")
    view.take("is_test")
    if any(name in view.model.consumers for name in view.node.output[1:]):
        raise view.fail("its running statistics are read")
    del view.node.output[1:]


def _concat(view: OldNode) -> None:
    if "axis" not in view.attributes:
        view.set("axis", 1)


def _cast(view: OldNode) -> None:
    if isinstance(to := view.attributes.get("to"), str):
        view.set("to", onnx.TensorProto.DataType.Value(to.upper()))


def _topk(view: OldNode) -> None:
    view.feed(1, view.constant("k", [view.take("k")]))


def _power(view: OldNode) -> None:
    view.set("p", int(view.take("p", 2.0)))


def _scatter(view: OldNode) -> None:
    view.node.op_type = "ScatterElements"


def _upsample(view: OldNode) -> None:
    """It grew by whole steps from the left edge, as Resize does when asked."""
    scales = view.take("scales")
    if view.version < 7:
        raise view.fail("Upsample took other attributes then")
    name = view.node.input[1] if scales is None else view.constant("scales", np.array(scales, np.float32))
    view.node.op_type = "Resize"
    _as_resize(view, name)


def _resize(view: OldNode) -> None:
    _as_resize(view, view.node.input[1])


def _as_resize(view: OldNode, scales: str) -> None:
    view.feed(1, "")
    view.feed(2, scales)
    view.set("coordinate_transformation_mode", "asymmetric")
    if view.attributes.get("mode") == "bilinear":
        view.set("mode", "linear")
    view.set("nearest_mode", "floor")


def _resize_rounding(view: OldNode) -> None:
    """A mode of opset 11 that was dropped is another one with its half cell in the rounding."""
    if view.attributes.get("coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        if view.attributes.get("nearest_mode", "round_prefer_floor") != "floor":
            raise view.fail("tf_half_pixel_for_nn goes with nearest_mode=floor")
        view.set("coordinate_transformation_mode", "half_pixel")
        view.set("nearest_mode", "round_prefer_ceil")


def _softmax(view: OldNode) -> list[onnx.NodeProto] | None:
    """Before opset 13 all axes from the given one on were one: reshaped to two axes, and back."""
    axis, shape = view.take("axis", 1), view.model.tensor(view.node.input[0]).shape
    if shape is not None:
        axis = axis + len(shape) if axis < 0 else axis
        if all(d == 1 for d in shape[axis + 1 :]):
            view.set("axis", axis)
            return None
    view.set("axis", -1)
    name, source, made = view.node.name, view.node.input[0], view.node.output[0]
    flat, done = f"{name}__flat", f"{name}__done"
    view.node.input[0], view.node.output[0] = flat, done
    return [
        onnx.helper.make_node("Shape", [source], [f"{name}__shape"], name=f"{name}__shape"),
        onnx.helper.make_node("Flatten", [source], [flat], name=flat, axis=axis),
        view.node,
        onnx.helper.make_node("Reshape", [done, f"{name}__shape"], [made], name=f"{name}__back"),
    ]


def _image_scaler(view: OldNode) -> list[onnx.NodeProto]:
    """An operator of opset 1 that was withdrawn: ``scale x + bias``, a bias for each channel."""
    bias = np.array(view.take("bias", []), np.float32).reshape(-1, 1, 1)
    return _rescaled(view, view.take("scale", 1.0), bias)


def _affine(view: OldNode) -> list[onnx.NodeProto]:
    """Withdrawn too: ``alpha x + beta``."""
    return _rescaled(view, view.take("alpha", 1.0), np.array(view.take("beta", 0.0)))


def _scale(view: OldNode) -> list[onnx.NodeProto]:
    """Withdrawn too: ``scale x``."""
    return _rescaled(view, view.take("scale", 1.0), np.array(0.0))


def _rescaled(view: OldNode, factor: float, shift: NDArray[Any]) -> list[onnx.NodeProto]:
    name, dtype = view.node.name, view.scalar(0).dtype
    factors, shifts = view.constant("factor", view.scalar(factor)), view.constant("shift", shift.astype(dtype))
    return [
        onnx.helper.make_node("Mul", [view.node.input[0], factors], [f"{name}__product"], name=f"{name}__product"),
        onnx.helper.make_node("Add", [f"{name}__product", shifts], [view.node.output[0]], name=name),
    ]


def _scaled_tanh(view: OldNode) -> list[onnx.NodeProto]:
    """Withdrawn too: ``alpha tanh(beta x)``."""
    return _between(view, "Tanh", view.take("alpha", 1.0), view.take("beta", 1.0))


def _parametric_softplus(view: OldNode) -> list[onnx.NodeProto]:
    """Withdrawn too: ``alpha softplus(beta x)``."""
    return _between(view, "Softplus", view.take("alpha", 1.0), view.take("beta", 1.0))


def _between(view: OldNode, kind: str, alpha: float, beta: float) -> list[onnx.NodeProto]:
    name = view.node.name
    before, after = view.constant("beta", view.scalar(beta)), view.constant("alpha", view.scalar(alpha))
    return [
        onnx.helper.make_node("Mul", [view.node.input[0], before], [f"{name}__scaled"], name=f"{name}__scaled"),
        onnx.helper.make_node(kind, [f"{name}__scaled"], [f"{name}__inner"], name=f"{name}__inner"),
        onnx.helper.make_node("Mul", [f"{name}__inner", after], [view.node.output[0]], name=name),
    ]


def _crop(view: OldNode) -> list[onnx.NodeProto]:
    """Withdrawn too: rows and columns cut off (left, top, right, bottom), or a window of a size from there on."""
    left, top, right, bottom = view.take("border", [0, 0, 0, 0])
    size = view.take("scale")
    ends = [top + size[0], left + size[1]] if size else [-bottom or 2**31, -right or 2**31]
    parts = [view.constant("starts", [top, left]), view.constant("ends", ends), view.constant("axes", [2, 3])]
    return [onnx.helper.make_node("Slice", [view.node.input[0], *parts], [view.node.output[0]], name=view.node.name)]


def _mean_variance_normalization(view: OldNode) -> None:
    if not view.take("normalize_variance", 1):
        raise view.fail("it leaves the variance as it is")
    view.set("axes", [1, 2, 3] if view.take("across_channels", 0) else [0, 2, 3])


def _roi_align(view: OldNode) -> None:
    view.set("coordinate_transformation_mode", "output_half_pixel")


def _scan(view: OldNode) -> None:
    raise view.fail("Scan went through samples then")


def _tile(view: OldNode) -> None:
    raise view.fail("Tile repeated one axis then")


ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less")
REDUCED = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

# By operator: (first opset with the new form, what to do before it), oldest first.
CHANGES: dict[str, tuple[tuple[int, Change], ...]] = {
    **{name: ((7, _broadcast),) for name in ELEMENTWISE},
    **{f"Reduce{name}": ((18, _to_input("axes", 1)),) for name in REDUCED},
    **{name: ((13, _softmax),) for name in ("Softmax", "LogSoftmax", "Hardmax")},
    **{name: ((7, _drop("output_sequence")),) for name in ("LSTM", "GRU", "RNN")},
    "Affine": ((10, _affine),),
    "BatchNormalization": ((14, _batch_normalization),),
    "Cast": ((6, _cast),),
    "Clip": ((11, _clip),),
    "Concat": ((4, _concat),),
    "Crop": ((10, _crop),),
    "Dropout": ((12, _dropout),),
    "Gemm": ((7, _drop("broadcast")),),
    "GlobalLpPool": ((2, _power),),
    "ImageScaler": ((10, _image_scaler),),
    "LpPool": ((2, _power),),
    "MeanVarianceNormalization": ((9, _mean_variance_normalization),),
    "PRelu": ((7, _prelu),),
    "Pad": ((11, _pad),),
    "ParametricSoftplus": ((10, _parametric_softplus),),
    "ReduceSum": ((13, _to_input("axes", 1)),),
    "Reshape": ((5, _reshape),),
    "Resize": ((11, _resize), (13, _resize_rounding)),
    "RoiAlign": ((16, _roi_align),),
    "Scale": ((10, _scale),),
    "ScaledTanh": ((10, _scaled_tanh),),
    "Scan": ((9, _scan),),
    "Scatter": ((11, _scatter),),
    "Slice": ((10, _slice),),
    "Split": ((13, _split), (18, _split_evenly)),
    "Squeeze": ((13, _to_input("axes", 1)),),
    "Tile": ((6, _tile),),
    "TopK": ((10, _topk),),
    "Unsqueeze": ((13, _to_input("axes", 1)),),
    "Upsample": ((10, _upsample),),
}
