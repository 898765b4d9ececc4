"""Which numbers each layer has learned: its weights, biases and tables, dequantised and laid out alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_inspect.errors import LayerError, ModelError
from onnx_inspect.graph import quantised
from onnx_inspect.graph.bodies import CONTROL_FLOW
from onnx_inspect.graph.constants import FOLDED, Constant, Scope, attribute
from onnx_inspect.graph.model import Layer, Model

Array = NDArray[Any]
Slots = dict[int, tuple[str, str]]  # input position -> (role, kind)

# What the inputs of each operator are. A constant anywhere else has the role `constant` and the kind `other`.
CONV: Slots = {1: ("weight", "conv"), 2: ("bias", "conv")}
MATRIX: Slots = {0: ("weight", "matrix"), 1: ("weight", "matrix"), 2: ("bias", "matrix")}
CELL: Slots = {i: (role, "recurrent") for i, role in ((1, "weight"), (2, "recurrent"), (3, "bias"), (7, "peephole"))}
NORM: Slots = {1: ("scale", "norm"), 2: ("bias", "norm")}
PROJECTION: Slots = {1: ("weight", "matrix"), 2: ("bias", "matrix")}
SUM: Slots = {0: ("bias", "other"), 1: ("bias", "other")}
SCALING: Slots = {0: ("scale", "other"), 1: ("scale", "other")}
TABLES: Slots = {2: ("weight", "embedding"), 3: ("weight", "embedding"), 4: ("weight", "embedding")}
SLOTS: dict[str, Slots] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "FusedConv", "ConvInteger", "NhwcConv"), CONV),
    "DeformConv": {1: ("weight", "conv"), 3: ("bias", "conv")},
    "QLinearConv": {3: ("weight", "conv"), 8: ("bias", "conv")},
    **dict.fromkeys(("Gemm", "FusedGemm", "MatMul", "FusedMatMul", "MatMulInteger"), MATRIX),
    "QLinearMatMul": {0: ("weight", "matrix"), 3: ("weight", "matrix")},
    "QGemm": {3: ("weight", "matrix"), 6: ("bias", "matrix")},
    "DynamicQuantizeMatMul": {1: ("weight", "matrix"), 4: ("bias", "matrix")},
    "MatMulIntegerToFloat": {1: ("weight", "matrix"), 6: ("bias", "matrix")},
    "MatMulNBits": {1: ("weight", "matrix"), 5: ("bias", "matrix")},
    **dict.fromkeys(("Attention", "QAttention"), PROJECTION),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), CELL),
    "Gather": {0: ("weight", "embedding")},
    "EmbedLayerNormalization": {**TABLES, 5: ("scale", "norm"), 6: ("bias", "norm")},
    **dict.fromkeys(("InstanceNormalization", "LayerNormalization", "GroupNormalization"), NORM),
    **dict.fromkeys(("RMSNormalization", "SimplifiedLayerNormalization"), NORM),
    "SkipLayerNormalization": {2: ("scale", "norm"), 3: ("bias", "norm"), 4: ("bias", "norm")},
    "SkipSimplifiedLayerNormalization": {2: ("scale", "norm"), 3: ("bias", "norm")},
    "BatchNormalization": {**NORM, 3: ("mean", "norm"), 4: ("variance", "norm")},
    "PRelu": {1: ("slope", "other")},
    **dict.fromkeys(("Add", "Sub", "BiasGelu"), SUM),
    **dict.fromkeys(("Mul", "Div"), SCALING),
    "QLinearAdd": {0: ("bias", "other"), 3: ("bias", "other")},
    "QLinearMul": {0: ("scale", "other"), 3: ("scale", "other")},
}
# Operators whose other inputs are scales, sizes and limits: settings, not weights.
SETTINGS = {
    "Resize",
    "Upsample",
    "Pad",
    "Clip",
    "OneHot",
    "Range",
    "TopK",
    "Dropout",
    "NonMaxSuppression",
    "Max",
    "Min",
}
GATES = {
    "LSTM": ("input", "output", "forget", "cell"),
    "GRU": ("update", "reset", "hidden"),
    "RNN": ("hidden",),
}
STATISTICS = ("mean", "variance")  # roles of batch norm's: measured, not trained
LEARNED = ("weight", "recurrent")  # roles whose numbers form units: filters, rows, entries


@dataclass(frozen=True, eq=False)
class LayerWeight:
    """One tensor of numbers that a layer has learned.

    Attributes
    ----------
    layer : Layer
        Who uses it; inside an If, Loop or Scan one of `Model.inner`.
    name : str
        Tensor that the layer reads.
    role : str
        ``weight``, ``recurrent``, ``bias``, ``peephole``, ``scale``, ``slope``, ``mean``, ``variance``, ``constant``.
    kind : str
        ``conv``, ``matrix``, ``embedding``, ``recurrent``, ``norm`` or ``other``.
    shape : tuple of int
        Of `array()`. Convolutions, transposed or not: (out, in / groups, ...). Matrices: (..., out, in), however they
        are stored. Embeddings: (entries, size). Recurrent: (parts, out, in), or (parts, out) for biases.
    dtype : str
        Numpy's name of what is stored.
    quantised : bool
        Whether it is stored in steps of a scale; `array()` gives it dequantised.
    groups : int
        Of a convolution.
    parts : tuple of str
        What the first axis of recurrent weights stands for.
    note : str
        What a reader must know of the numbers; "" if nothing.
    stored : mapping of str to int
        The stored tensors that it is made of, and how many numbers each holds.
    load : callable
        What `array()` reads with.
    """

    layer: Layer
    name: str
    role: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    quantised: bool
    load: Callable[[], Array] = field(repr=False)
    groups: int = 1
    parts: tuple[str, ...] = ()
    note: str = ""
    stored: Mapping[str, int] = field(default_factory=dict)

    def array(self) -> NDArray[np.float32]:
        """Read the numbers, dequantised, in this object's layout; read-only.

        Raises
        ------
        ModelError
            The bytes are missing or broken, or they aren't real numbers.
        """
        values = self.load()
        if values.dtype.kind in "cOSU":
            raise ModelError(f"weight {self.name!r} of layer {self.layer.name!r} is {values.dtype}, not real numbers")
        with np.errstate(over="ignore"):
            single = np.ascontiguousarray(values, np.float32)
        single.setflags(write=False)
        return single


def layer_weights(model: Model) -> tuple[LayerWeight, ...]:
    """All weights of a model by the layers that use them, in topological order; no numbers are read yet.

    A weight is its layer's own where only nodes that move, convert or rescale it lie between: DequantizeLinear,
    Transpose, Reshape, Cast, Slice, Concat and the like. No weights are single numbers of elementwise nodes (the 0.5 of
    a GELU), and integers that aren't quantised (shapes, axes, indices).
    """
    layers = {layer.name: layer for layer in (*model.layers, *model.inner)}
    scope = Scope(model, model.proto.graph)
    return tuple(weight for node in model.proto.graph.node for weight in _of_node(node, scope, layers))


def distinct(weights: Iterable[LayerWeight]) -> tuple[LayerWeight, ...]:
    """Leave out what another layer uses in the same way: tied weights, and those that both branches of an If read."""
    found = {(w.role, w.layer.op_type, tuple(w.stored), w.shape): w for w in reversed(tuple(weights))}
    return tuple(reversed(found.values()))


def of_layers(weights: Iterable[LayerWeight], layers: Sequence[Layer], source: str) -> tuple[LayerWeight, ...]:
    """Pick the weights of some layers; those of an If, Loop or Scan are all that lie inside it.

    Raises
    ------
    LayerError
        None of them has any; the message names layers that do.
    """
    weights = tuple(weights)
    names = {layer.name for layer in layers}
    inside = tuple(f"{layer.name}/" for layer in layers if layer.op_type in CONTROL_FLOW)
    found = tuple(w for w in weights if w.layer.name in names or (w.layer.around and w.layer.name.startswith(inside)))
    if not found:
        missing = ", ".join(f"{layer.name!r} ({layer.op_type})" for layer in layers[:3])
        others = ", ".join(dict.fromkeys(repr(w.layer.name) for w in weights if w.role in LEARNED)) or "none"
        others = others if len(others) < 120 else others[:120].rsplit(",", 1)[0] + ", ..."
        raise LayerError(f"no weights in {missing} of {source}; layers that have some: {others}")
    return found


def parameters(weights: Iterable[LayerWeight]) -> int:
    """How many numbers were learned: each stored tensor once, however many layers share it.

    As PyTorch counts: without batch norm's running mean and variance, without scales and zero points of quantisation.
    """
    counted: dict[str, int] = {}
    for weight in weights:
        if weight.role not in STATISTICS:
            counted.update(weight.stored)
    return sum(counted.values())


def _of_node(node: onnx.NodeProto, scope: Scope, layers: Mapping[str, Layer]) -> Iterator[LayerWeight]:
    if node.op_type in FOLDED and scope.constant(node.output[0]) is not None:
        return  # part of another layer's weight
    name = scope.named(node.name)
    if (layer := layers.get(name)) is not None:
        if node.op_type in ("LinearClassifier", "LinearRegressor"):
            yield from _attributes(node, layer)
        yield from _inputs(node, scope, layer)
    for body in node.attribute:
        if body.HasField("g"):
            inside = scope.body(body.g, f"{name}/{body.name}/")
            for inner in body.g.node:
                yield from _of_node(inner, inside, layers)


def _inputs(node: onnx.NodeProto, scope: Scope, layer: Layer) -> Iterator[LayerWeight]:
    slots = SLOTS.get(node.op_type, {})
    strict = node.op_type in quantised.WEIGHTS or node.op_type.startswith("QLinear") or node.op_type in SETTINGS
    for position, name in enumerate(node.input):
        constant = scope.constant(name)
        if constant is None or not constant.size or (strict and position not in slots):
            continue
        weight = _weight(node, scope, layer, position, constant)
        if weight is not None:
            yield weight


def _weight(node: onnx.NodeProto, scope: Scope, layer: Layer, position: int, constant: Constant) -> LayerWeight | None:
    """Describe one constant input; None where it is no weight."""
    role, kind = SLOTS.get(node.op_type, {}).get(position, ("constant", "other"))
    if kind == "embedding" and len(constant.shape) != 2:
        role, kind = "constant", "other"
    if kind == "other" and role != "slope" and constant.size == 1:
        return None
    steps = quantised.loader(node, scope, position, constant)
    if steps is None and not constant.dtype.startswith(("float", "bfloat")):
        return None
    load, note = steps or (constant.array, "")
    arrange = _arrangement(node, position, role, kind)
    if node.op_type == "MatMulNBits" and role == "weight":
        shape: tuple[int, ...] = (attribute(node, "N", 0), attribute(node, "K", 0))
    else:
        shape = arrange(np.broadcast_to(np.False_, constant.shape)).shape  # no numbers are read
    stored = {key: root.size for key, root in constant.stored.items() if root.size > 1 or constant.size == 1}
    return LayerWeight(
        layer=layer,
        name=constant.name,
        role=role,
        kind=kind,
        shape=shape,
        dtype=constant.quantised or next(iter(constant.stored.values())).dtype,
        quantised=steps is not None or bool(constant.quantised),
        load=lambda: arrange(load()),
        groups=int(attribute(node, "group", 1)) if kind == "conv" else 1,
        parts=_parts(node, role) if kind == "recurrent" else (),
        note=note,
        stored=stored,
    )


def _arrangement(node: onnx.NodeProto, position: int, role: str, kind: str) -> Callable[[Array], Array]:
    """How stored numbers become (out, in, ...)."""
    if kind == "conv" and role == "weight" and node.op_type == "ConvTranspose":
        groups = int(attribute(node, "group", 1))
        return lambda w: _transposed_filters(w, groups)
    if kind == "matrix" and role == "weight" and node.op_type != "MatMulNBits":
        turned = attribute(node, "transB" if position else "transA", 0)
        swap = bool(turned) != bool(position)  # stored (in, out): on the right, or on the left and transposed
        return lambda w: w.swapaxes(-1, -2) if swap and w.ndim > 1 else w
    if kind == "recurrent":
        parts = len(_parts(node, role))
        return lambda w: w.reshape(parts, -1, w.shape[-1]) if role in ("weight", "recurrent") else w.reshape(parts, -1)
    return lambda w: w


def _transposed_filters(weight: Array, groups: int) -> Array:
    """(in, out / groups, ...) -> (out, in / groups, ...), as a Conv stores them."""
    split = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    return split.swapaxes(1, 2).reshape(-1, weight.shape[0] // groups, *weight.shape[2:])


def _parts(node: onnx.NodeProto, role: str) -> tuple[str, ...]:
    """Names of a recurrent weight's parts: its gates per direction, in ONNX's order; biases have two sides."""
    direction = attribute(node, "direction", "forward")
    sides = {"bidirectional": ("forward ", "reverse "), "reverse": ("reverse ",)}.get(direction, ("",))
    gates = [f"{gate} gate" if len(GATES[node.op_type]) > 1 else gate for gate in GATES[node.op_type]]
    if role == "peephole":
        gates = gates[:3]
    if role == "bias":
        gates = [f"{gate}, {side}" for side in ("from the input", "from the state") for gate in gates]
    return tuple(side + gate for side in sides for gate in gates)


def _attributes(node: onnx.NodeProto, layer: Layer) -> Iterator[LayerWeight]:
    """Weights of ai.onnx.ml's linear models, which are kept in attributes."""
    intercepts = np.array(attribute(node, "intercepts", []), np.float32)
    coefficients = np.array(attribute(node, "coefficients", []), np.float32)
    rows = int(attribute(node, "targets", 0)) or intercepts.size or 1
    for name, role, values in (
        ("coefficients", "weight", coefficients.reshape(rows, -1)),
        ("intercepts", "bias", intercepts),
    ):
        if values.size:
            yield LayerWeight(
                layer=layer,
                name=name,
                role=role,
                kind="matrix",
                shape=values.shape,
                dtype="float32",
                quantised=False,
                load=lambda values=values: values,  # type: ignore[misc]
                stored={f"{node.name}.{name}": values.size},
            )
