"""What the weights of quantised operators stand for: steps of integers turned into real numbers by their scales."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_inspect.graph.constants import Constant, Scope, attribute, dequantise

Array = NDArray[Any]

# Quantised inputs: position -> (position of the scale or None, of the zero point, axis of per-channel scales).
WEIGHTS: dict[str, dict[int, tuple[int | None, int, int]]] = {
    "QLinearConv": {3: (4, 5, 0)},
    "QLinearMatMul": {0: (1, 2, -2), 3: (4, 5, -1)},
    "QLinearAdd": {0: (1, 2, 0), 3: (4, 5, 0)},
    "QLinearMul": {0: (1, 2, 0), 3: (4, 5, 0)},
    "QGemm": {3: (4, 5, -1)},
    "QAttention": {1: (4, 7, -1)},
    "ConvInteger": {1: (None, 3, 0)},
    "MatMulInteger": {0: (None, 2, -2), 1: (None, 3, -1)},
    "DynamicQuantizeMatMul": {1: (2, 3, -1)},
    "MatMulIntegerToFloat": {1: (3, 5, -1)},
    "MatMulNBits": {1: (2, 3, 0)},
    "Gather": {0: (None, 9, -1)},
}
# Quantised biases, in steps of (scale of the input) * (scale of the weight): the positions of both.
BIASES = {("QLinearConv", 8): (1, 4), ("QGemm", 6): (1, 4)}
STEPS = "in quantised steps: its scale is no constant"

Loader = tuple[Callable[[], Array], str]  # reads the numbers; what a reader must know of them


def loader(node: onnx.NodeProto, scope: Scope, position: int, values: Constant) -> Loader | None:
    """Give what reads a quantised input as real numbers; None where that input isn't a quantised one."""
    if values.dtype.startswith(("float", "bfloat")) and "float8" not in values.dtype:
        return None
    if (node.op_type, position) in BIASES:
        scales = [scope.constant(node.input[at]) for at in BIASES[node.op_type, position]]
        return _load(values, _product([s for s in scales if s is not None]) if all(scales) else None, None, 0)
    if position not in WEIGHTS.get(node.op_type, {}):
        return None
    at, zero_at, axis = WEIGHTS[node.op_type][position]
    zero = scope.constant(node.input[zero_at]) if zero_at < len(node.input) else None
    if node.op_type == "MatMulNBits":
        scale = scope.constant(node.input[2])
        return None if scale is None else (lambda: _unpack(node, values, scale, zero), "")
    if node.op_type == "QGemm" and attribute(node, "transB", 0):
        axis = 0
    if node.op_type == "Gather":
        return _gathered(node, scope, values)
    found = _later_scale(node, scope) if at is None else scope.constant(node.input[at])
    return _load(values, None if found is None else found.array, zero, axis)


def _product(scales: list[Constant]) -> Callable[[], Array]:
    return lambda: np.prod(
        [np.asarray(s, np.float64) for s in np.broadcast_arrays(*(s.array() for s in scales))], axis=0
    )


def _load(values: Constant, scale: Callable[[], Array] | None, zero: Constant | None, axis: int) -> Loader:
    def load() -> Array:
        point = None if zero is None else zero.array()
        factor = np.float32(1) if scale is None else scale()
        return dequantise(values.array(), np.asarray(factor), point, axis=axis)

    return load, STEPS if scale is None else ""


def _later_scale(node: onnx.NodeProto, scope: Scope) -> Constant | None:
    """Find the weight's scale behind an integer product: result -> Cast -> Mul by (scale of the input * this one)."""
    for cast in scope.readers.get(node.output[0], []):
        for product in scope.readers.get(cast.output[0], []) if cast.op_type == "Cast" else []:
            if product.op_type != "Mul":
                continue
            for other in (n for n in product.input if n != cast.output[0]):
                made = scope.producers.get(other)
                factors = list(made.input) if made is not None and made.op_type == "Mul" else [other]
                for factor in factors:
                    if (found := scope.constant(factor)) is not None:
                        return found
    return None


def _gathered(node: onnx.NodeProto, scope: Scope, values: Constant) -> Loader | None:
    """Read a quantised table whose rows are dequantised once they have been looked up."""
    readers = scope.readers.get(node.output[0], [])
    if not readers or any(reader.op_type != "DequantizeLinear" for reader in readers):
        return None
    scale = scope.constant(readers[0].input[1])
    zero = scope.constant(readers[0].input[2]) if len(readers[0].input) > 2 else None
    return _load(values, None if scale is None else scale.array, zero, -1)


def _unpack(node: onnx.NodeProto, values: Constant, scale: Constant, zero: Constant | None) -> Array:
    """Weights of MatMulNBits, (out, in): blocks along `in`, several numbers to a byte, the lowest bits first."""
    bits, inner, outer = (int(attribute(node, key, 4)) for key in ("bits", "K", "N"))
    block = int(attribute(node, "block_size", 32))
    steps = _split(values.array().reshape(outer, -1), bits).astype(np.float32)  # (out, blocks * block)
    count = steps.shape[1] // block
    points = np.full((1, 1, 1), 2 ** (bits - 1), np.float32)
    if zero is not None:
        stored = zero.array().reshape(outer, -1)
        points = (_split(stored, bits) if stored.dtype == np.uint8 else stored)[:, :count, None].astype(np.float32)
    scaled = (steps.reshape(outer, count, block) - points) * scale.array().reshape(outer, count, 1).astype(np.float32)
    return scaled.reshape(outer, -1)[:, :inner]


def _split(packed: Array, bits: int) -> Array:
    """Take the numbers out of bytes: (rows, bytes) -> (rows, bytes * 8 / bits)."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((packed[..., None] >> shifts) & np.uint8(2**bits - 1)).reshape(packed.shape[0], -1)
