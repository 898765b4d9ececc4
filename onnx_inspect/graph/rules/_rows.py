"""How what was picked along an axis by its indices goes back to where it came from."""

from __future__ import annotations

from onnx_inspect.graph.rules._step import Step

END = 2**31


def returned(step: Step, gradient: str, indices: str, axis: int, rank: int, shape: str) -> str:
    """Add a gradient up along one axis at the places that its parts were taken from.

    Parameters
    ----------
    gradient : str
        Its length along `axis` is that of `indices`.
    indices : str
        (count,), int64; negative ones count from the end.
    shape : str
        Tensor that holds the result's shape.
    """
    order = [axis, *(a for a in range(rank) if a != axis)]
    back = [order.index(a) for a in range(rank)]
    zeros = step.op("Expand", step.number(0), shape)
    if axis:
        gradient, zeros = (step.op("Transpose", name, perm=order) for name in (gradient, zeros))
    places = step.op("Unsqueeze", indices, step.ints([1]))
    added = step.op("ScatterND", zeros, places, gradient, reduction="add")
    return step.op("Transpose", added, perm=back) if axis else added


def part(step: Step, shape: str, start: int, stop: int = END) -> str:
    """A part of a tensor that holds a shape."""
    return step.op("Slice", shape, step.ints([start]), step.ints([stop]))


def with_length(step: Step, shape: str, axis: int, length: str) -> str:
    """A shape with another length along one axis."""
    return step.op("Concat", part(step, shape, 0, axis), length, part(step, shape, axis + 1), axis=0)
