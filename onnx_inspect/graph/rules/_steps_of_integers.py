"""How the steps of quantised numbers are read and written, so that gradients pass straight through the rounding."""

from __future__ import annotations

from onnx_inspect.graph.rules._step import Step

# Smallest and largest step of a type; behind them nothing changes.
BOUNDS = {
    **{f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (2, 4, 8, 16)},
    **{f"uint{bits}": (0, 2**bits - 1) for bits in (2, 4, 8, 16)},
    **{"float8_e4m3fn": (-448, 448), "float8_e5m2": (-57344, 57344)},
}
NOTE = "gradients pass straight through the rounding of quantised numbers, and stop where those are saturated"


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


def written(step: Step, name: str, scale: str, output: int = 0) -> str:
    """Real numbers as the steps that the node made of them: not rounded, and flat where the node's are saturated.

    Steps at the very ends of their range count as saturated: a ReLU that a quantiser took over cuts there.
    """
    step.writer.notes.add(NOTE)
    steps = step.op("Div", name, scale)
    bounds = BOUNDS.get(step.writer.spec(step.outputs[output]).dtype)
    if bounds is None:
        return steps
    made = step.y(output)
    low, high = (step.number(b) for b in bounds)
    inside = step.op("Mul", step.flag("Greater", made, low), step.flag("Less", made, high))
    return step.op("Mul", steps, inside)
