"""How resizing and the shuffling of blocks of pixels are differentiated."""

from __future__ import annotations

import math
from typing import Any

from onnx_inspect.graph.rules._rows import part
from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step

SETTINGS = (
    *("antialias", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside", "extrapolation_value"),
    *("mode", "nearest_mode"),
)


@rule("Resize")
def resize(step: Step) -> Gradients:
    """Along each axis resizing is a matrix, what it makes of the unit matrix; the gradient goes through its transpose.

    So whatever the mode, the rounding and the alignment, the gradient is that of what the runtime does. Pixels that are
    repeated a whole number of times are summed in blocks.
    """
    if step.attribute("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise step.fail("it crops to a region of interest")
    if step.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise step.fail("it keeps the aspect ratio")
    source = step.inputs[0]
    rank = step.rank(source)
    axes = [a % rank for a in step.attribute("axes") or range(rank)]
    factors = _whole_factors(step, rank)
    if factors is not None:
        return {0: _blocks(step, factors)}
    by_scales = step.has(2) and step.shape(step.inputs[2]) != (0,)
    asked = step.inputs[2] if by_scales else step.inputs[3]
    values = step.value(2) if by_scales else None
    gradient = step.g
    before, after = step.shape(source) or (), step.shape(step.outputs[0]) or ()
    for i, axis in enumerate(axes):
        kept = axis < len(after) and before[axis] == after[axis] and isinstance(before[axis], int)
        if kept or (values is not None and values[i] == 1):
            continue
        gradient = _along(step, gradient, axis, rank, part(step, asked, i, i + 1), by_scales)
    return {0: gradient}


def _along(step: Step, gradient: str, axis: int, rank: int, asked: str, by_scales: bool) -> str:
    """Go back along one axis: multiply by the transpose of what resizing does to it."""
    length = part(step, step.shape_of(step.inputs[0]), axis, axis + 1)
    unit = step.op("Expand", step.number(0), step.op("Concat", length, length, axis=0))
    unit = step.op("Reshape", step.op("EyeLike", unit), step.op("Concat", step.ints([1, 1]), length, length, axis=0))
    settings: dict[str, Any] = {n: step.attribute(n) for n in SETTINGS if step.attribute(n) is not None}
    if by_scales:
        scales = step.op("Concat", step.writer.constant(_ones()), step.op("Cast", asked, to=1), axis=0)
        matrix = step.op("Resize", unit, "", scales, **settings)
    else:
        sizes = step.op("Concat", step.ints([1, 1]), length, asked, axis=0)
        matrix = step.op("Resize", unit, "", "", sizes, **settings)
    matrix = step.op("Squeeze", matrix, step.ints([0, 1]))  # (length, resized length)
    if axis == rank - 1:
        return step.op("MatMul", gradient, step.op("Transpose", matrix, perm=[1, 0]))
    if axis == rank - 2:
        return step.op("MatMul", matrix, gradient)
    order = [*(a for a in range(rank) if a != axis), axis]
    turned = step.op("MatMul", step.op("Transpose", gradient, perm=order), step.op("Transpose", matrix, perm=[1, 0]))
    return step.op("Transpose", turned, perm=[order.index(a) for a in range(rank)])


def _ones() -> Any:
    import numpy as np

    return np.ones(3, np.float32)


def _whole_factors(step: Step, rank: int) -> list[int] | None:
    """How often each pixel of a picture is repeated, where nothing else is done to it."""
    mode, rounding = step.attribute("mode", "nearest"), step.attribute("nearest_mode", "round_prefer_floor")
    where = step.attribute("coordinate_transformation_mode", "half_pixel")
    plain = (where == "asymmetric" and rounding == "floor") or (
        where in ("half_pixel", "pytorch_half_pixel") and rounding.startswith("round_prefer")
    )
    shapes = [step.shape(name) for name in (step.inputs[0], step.outputs[0])]
    if mode != "nearest" or not plain or rank != 4 or None in shapes:
        return None
    before, after = (shape[2:] for shape in shapes if shape is not None)
    outside = step.value(2)
    if step.attribute("axes") not in (None, [2, 3]) and outside is not None:
        return None
    factors = []
    for one, other in zip(before, after, strict=True):
        if not isinstance(one, int) or not isinstance(other, int) or other % one:
            return None
        factors.append(other // one)
    if outside is not None and outside.size and list(outside[-2:]) != factors:
        return None
    return factors


def _blocks(step: Step, factors: list[int]) -> str:
    """Add up the gradients of each pixel's copies."""
    mean = step.op("AveragePool", step.g, kernel_shape=factors, strides=factors)
    return step.op("Mul", mean, step.number(math.prod(factors)))


@rule("DepthToSpace")
def depth_to_space(step: Step) -> Gradients:
    """Blocks go back to the channels that they came from."""
    size = step.attribute("blocksize")
    if step.attribute("mode", "DCR") == "DCR":
        return {0: step.op("SpaceToDepth", step.g, blocksize=size)}
    shape = step.shape_of(step.inputs[0])
    channels, square = part(step, step.shape_of(step.outputs[0]), 1, 2), step.ints([size])
    sides = [part(step, shape, 2, 3), square, part(step, shape, 3, 4), square]
    apart = step.op("Reshape", step.g, step.op("Concat", step.ints([0]), channels, *sides, axis=0))
    return {0: step.like(step.op("Transpose", apart, perm=[0, 1, 3, 5, 2, 4]), step.inputs[0])}


@rule("SpaceToDepth")
def space_to_depth(step: Step) -> Gradients:
    """Channels go back to the blocks that they came from."""
    size = step.attribute("blocksize")
    return {0: step.op("DepthToSpace", step.g, blocksize=size, mode=step.attribute("mode", "DCR"))}
