"""Which tensors of one model hold the same values: what only moves, converts or quantises them, told by value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_inspect.analysis.fingerprints import Fingerprint, likeness
from onnx_inspect.graph.points import INPUT, Point

MOVING = frozenset("Identity Reshape Flatten Squeeze Unsqueeze Transpose Dropout Cast CastLike".split())
QUANTISING = frozenset("QuantizeLinear DequantizeLinear DynamicQuantizeLinear".split())
SAME = 0.9999  # likeness of values that were only moved or cast, to half precision at worst
ROUNDED = 0.52  # of a step: rounding changes values by half of one, and a little more in half precision
CLIPPED = 0.02  # share of a tensor's elements that quantisation may cut off before the two are told apart

# Operators that do the same work under other names.
KINDS = {
    **dict.fromkeys(("QLinearConv", "ConvInteger", "FusedConv", "NhwcConv", "NhwcFusedConv"), "Conv"),
    **dict.fromkeys(("Gemm", "QGemm", "FusedGemm", "FusedMatMul", "QLinearMatMul", "MatMulInteger"), "MatMul"),
    **dict.fromkeys(("MatMulNBits", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"), "MatMul"),
    **dict.fromkeys(("QLinearAdd", "Sum", "BiasAdd"), "Add"),
    **dict.fromkeys(("GlobalAveragePool", "QLinearGlobalAveragePool"), "ReduceMean"),
    **dict.fromkeys(("QLinearMul", "Div"), "Mul"),
    **dict.fromkeys(("BiasGelu", "FastGelu"), "Gelu"),
    "QLinearConcat": "Concat",
    "QLinearSigmoid": "Sigmoid",
    "QLinearSoftmax": "Softmax",
    "QLinearAveragePool": "AveragePool",
    "QLinearLeakyRelu": "LeakyRelu",
    "Clip": "Relu",
    "SkipLayerNormalization": "LayerNormalization",
}


@dataclass(frozen=True)
class Tied:
    """Tensors of one model that hold the same values, and what is read to make the first of them.

    Attributes
    ----------
    members : tuple of int
        Numbers of the points, makers first.
    kind : str
        What makes the first, under the name of the plain operator: ``Conv`` for a QLinearConv.
    sources : tuple of int
        Numbers of the classes that its node reads, in the node's order.
    """

    members: tuple[int, ...]
    kind: str
    sources: tuple[int, ...]


def classes(points: Sequence[Point], prints: Mapping[str, Fingerprint]) -> tuple[Tied, ...]:
    """Put the points that have a fingerprint into classes of tied tensors, in the order of their first members.

    Identity, Reshape, Transpose, Cast and their like join what they read where the values agree; QuantizeLinear and
    DequantizeLinear where no more than 2 % of the values are cut off: a quantiser that swallowed a Relu stays apart.
    """
    numbers = {p.name: number for number, p in enumerate(points) if p.name in prints}
    leader: dict[int, int] = {}
    for number, p in enumerate(points):
        if p.name in numbers:
            parent = numbers.get(p.sources[0]) if p.sources else None
            tied = parent is not None and _tied(points[parent], p, prints)
            leader[number] = leader[parent] if tied and parent is not None else number
    members: dict[int, list[int]] = {}
    for number, first in leader.items():
        members.setdefault(first, []).append(number)
    place = {first: index for index, first in enumerate(members)}
    return tuple(
        Tied(
            tuple(held),
            kind(points[first].op_type),
            tuple(dict.fromkeys(place[leader[numbers[s]]] for s in _reached(points, first, numbers))),
        )
        for first, held in members.items()
    )


def kind(op_type: str) -> str:
    """Name of the plain operator that does the same work."""
    return KINDS.get(op_type, op_type)


def _reached(points: Sequence[Point], number: int, known: Mapping[str, int]) -> list[str]:
    """Points with a fingerprint that one is made of, seen through those without one."""
    by_name = {p.name: p for p in points}
    found, waiting, seen = [], list(points[number].sources), set()
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        if name in known:
            found.append(name)
        elif name in by_name:
            waiting[:0] = by_name[name].sources
    return found


def _tied(parent: Point, child: Point, prints: Mapping[str, Fingerprint]) -> bool:
    before, after = prints[parent.name], prints[child.name]
    if child.op_type == INPUT or child.slot or before.size != after.size:
        return False
    if child.op_type in MOVING:
        return bool(likeness([before], [after]).values[0, 0] >= SAME)
    if child.op_type == "DynamicQuantizeLinear":
        return True  # its steps reach from the smallest value to the largest
    return child.op_type in QUANTISING and _quantised(before, after)


def _quantised(before: Fingerprint, after: Fingerprint) -> bool:
    """Whether one holds the other's values in steps: but for rounding they are the same, and few are cut off."""
    fine, coarse = (before, after) if after.stepped or not before.stepped else (after, before)
    x, q = fine.values, coarse.values
    if coarse.steps is not None:
        scale, zero = coarse.steps
        return bool((np.abs(x - (q - zero) * scale) > ROUNDED * scale).mean() <= CLIPPED)
    inside = (q > q.min()) & (q < q.max())
    if inside.sum() < 2 or np.ptp(q[inside]) == 0:
        return bool(np.ptp(x) == 0 or likeness([before], [after]).values[0, 0] >= SAME)
    slope, start = np.polyfit(q[inside], x[inside], 1)
    step = abs(slope) * float(np.diff(np.unique(q)).min())
    return bool((np.abs(x - (slope * q + start)) > 3 * ROUNDED * step).mean() <= CLIPPED)
