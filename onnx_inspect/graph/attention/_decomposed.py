"""What a fused attention computes, written out in elementary operators."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onnx_inspect.graph.attention._recipe import Sketch
from onnx_inspect.graph.factors import Axis, Base, Factor, size

LOWEST = -1e30  # what is added to a masked score; the exponential of it is 0


@dataclass(frozen=True)
class Heads:
    """Sizes of an attention: samples, heads, groups of heads that share keys, queries, keys, channels of a head."""

    samples: int
    heads: int
    shared: int  # heads of the keys and values
    queries: int
    keys: int
    width: int

    @property
    def group(self) -> int:
        """How many heads read the same keys."""
        return self.heads // self.shared


def by_head(sketch: Sketch, tensor: str, shape: tuple[int, ...], heads: int) -> str:
    """(N, T, heads * d) or (N, heads, T, d) as float32 (N, heads, T, d)."""
    tensor = sketch.float32(tensor)
    if len(shape) == 4:
        return tensor
    return sketch.transpose(sketch.reshape(tensor, (-1, shape[1], heads, shape[2] // heads)), (0, 2, 1, 3))


def scores(sketch: Sketch, query: str, key: str, sizes: Heads, scale: float, softcap: float = 0.0) -> str:
    """Scaled products of (N, heads, q, d) and (N, shared heads, k, d): (N, heads, q, k)."""
    query = sketch.reshape(query, (-1, sizes.shared, sizes.group, sizes.queries, sizes.width))
    key = sketch.reshape(key, (-1, sizes.shared, 1, sizes.keys, sizes.width))
    root = sketch.constant(math.sqrt(abs(scale)))
    product = sketch.add("MatMul", sketch.add("Mul", query, root), sketch.swapped(sketch.add("Mul", key, root), 5))
    product = sketch.reshape(product, (-1, sizes.heads, sizes.queries, sizes.keys))
    if softcap:
        cap = sketch.constant(softcap)
        product = sketch.add("Mul", sketch.add("Tanh", sketch.add("Div", product, cap)), cap)
    return product


def causal(sketch: Sketch, product: str, sizes: Heads, past: int, window: int = 0) -> str:
    """Mask what comes after each query, and what lies more than `window` before it."""
    after = np.arange(sizes.keys)[None] - np.arange(sizes.queries)[:, None] - past
    masked = (after > 0) | ((after <= -window) if window > 0 else False)
    return sketch.add("Add", product, sketch.constant(np.where(masked, LOWEST, 0.0)))


def masked_where_zero(sketch: Sketch, product: str, mask: str) -> str:
    """Mask scores where an integer or boolean mask that broadcasts to them is 0."""
    off = sketch.add("Sub", sketch.constant(1.0), sketch.add("Cast", sketch.add("Cast", mask, to=9), to=1))
    return sketch.add("Add", product, sketch.add("Mul", off, sketch.constant(LOWEST)))


def probabilities(sketch: Sketch, product: str) -> str:
    """Softmax over the keys; a row of which everything is masked becomes 0."""
    soft = sketch.add("Softmax", product, axis=3)
    best = sketch.reduce("ReduceMax", product, [3], keep=True)
    seen = sketch.add("Cast", sketch.add("Greater", best, sketch.constant(LOWEST / 2)), to=1)
    return sketch.add("Mul", soft, seen)


def grouped(sketch: Sketch, tensors: tuple[str, str, str], sizes: Heads, width: int) -> tuple[str, str, str]:
    """Probabilities (N, heads, q, k), values (N, shared heads, k, d) and context (N, heads, q, d), heads in groups."""
    soft, values, context = tensors
    if sizes.group == 1:
        return tensors
    lead = (-1, sizes.shared, sizes.group)
    return (
        sketch.reshape(soft, (*lead, sizes.queries, sizes.keys)),
        sketch.reshape(values, (-1, sizes.shared, 1, sizes.keys, width)),
        sketch.reshape(context, (*lead, sizes.queries, width)),
    )


def remembered(new: Axis, count: int, name: str) -> Axis:
    """Axis of keys of which the first are remembered from before."""
    return new if size(new) == count else (Factor(Base("position", count, name, 2, parents=new), count),)


def optional(names: list[str], position: int) -> str:
    """Name of an optional input; "" where it is left out."""
    return names[position] if position < len(names) else ""
