"""How the steps of quantised numbers are read and written, so that gradients pass straight through the rounding."""

from __future__ import annotations

import numpy as np

from onnx_inspect.graph.rules._step import Step

# Smallest and largest step of a type; behind them nothing changes.
BOUNDS = {
    **{f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (2, 4, 8, 16)},
    **{f"uint{bits}": (0, 2**bits - 1) for bits in (2, 4, 8, 16)},
    **{"float8_e4m3fn": (-448, 448), "float8_e5m2": (-57344, 57344)},
}
NOTE = "gradients pass straight through the rounding of quantised numbers, and stop only where a range begins at 0"


def real(step: Step, values: int, scale: int, zero: int, *, axis: int = 0, rank: int | None = None) -> str:
    """An input as real numbers, ``(steps - zero point) scale``; `rank` is its own, for scales that run along an axis.

    The numbers say where the input, its scale and its zero point lie.
    """
    name = step.x(values)
    if step.has(zero):
        name = step.op("Sub", name, along(step, step.x(zero), step.inputs[zero], axis, rank))
    return step.op("Mul", name, along(step, step.x(scale), step.inputs[scale], axis, rank))


def along(step: Step, name: str, source: str, axis: int, rank: int | None) -> str:
    """A scale or zero point, ready to be broadcast: a list runs along one axis of a tensor of `rank` axes."""
    shape = step.shape(source)
    if shape is None:
        raise step.fail(f"nothing tells the shape of its scale {source!r}")
    if len(shape) != 1 or shape[0] == 1:
        return name
    if rank is None:
        raise step.fail("nothing tells how many axes its scales belong to")
    return step.op("Unsqueeze", name, step.ints(range(1, rank - axis % rank))) if axis % rank < rank - 1 else name


def written(step: Step, name: str, scale: int, zero: int) -> str:
    """Real numbers as the steps that the node made of them, not rounded; the numbers say where scale and zero lie."""
    step.writer.notes.add(NOTE)
    return passed(step, step.op("Div", name, step.x(scale)), zero)


def passed(step: Step, steps: str, zero: int) -> str:
    """Steps, or their gradient, but 0 where the node's own are those of 0 and there are none below (or above).

    That is how a ReLU looks that a quantiser took over. The other end of a range is where calibration happened to stop
    counting: the real layer goes on there, and so do the gradients, which would else end at the strongest activations.
    """
    bounds = BOUNDS.get(step.writer.spec(step.outputs[0]).dtype)
    zeros = step.value(zero) if step.has(zero) else np.zeros(1)
    for bound, comparison in zip(bounds or (), ("Greater", "Less"), strict=False):
        if zeros is not None and (zeros == bound).all():
            steps = step.only(steps, comparison, step.y(), step.number(bound))
    return steps
