"""How operators that choose between numbers are differentiated: what is chosen gets the gradient."""

from __future__ import annotations

from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step
from onnx_inspect.graph.rules.activation import between


@rule("Max", "Min")
def extreme(step: Step) -> Gradients:
    """Inputs that are equally extreme share the gradient."""
    y, count = step.y(), len(step.inputs)
    if count == 1:
        return {0: step.g}
    chosen = [step.flag("Equal", step.x(i), y) for i in range(count)]
    total = step.op("Sum", *chosen)
    share = step.op("Div", step.g, total)
    return {i: step.sum_to(step.op("Mul", share, chosen[i]), i) for i in range(count) if step.wants(i)}


@rule("Where")
def where(step: Step) -> Gradients:
    """Each side gets what the condition takes from it."""
    chosen = step.writer.cast(step.inputs[0], step.dtype)
    found = {}
    if step.wants(1):
        found[1] = step.sum_to(step.op("Mul", step.g, chosen), 1)
    if step.wants(2):
        found[2] = step.sum_to(step.op("Mul", step.g, step.op("Sub", step.number(1), chosen)), 2)
    return found


@rule("Clip")
def clip(step: Step) -> Gradients:
    """1 from the lower to the upper bound, both included, else 0; the bounds get what was cut off.

    Between constant 0 and 6 it is a ReLU6, whose derivative is 0 at its bounds; the output tells where it is.
    """
    bounds = [step.value(i) for i in (1, 2)]
    found = {}
    if step.wants(0) and [b.tolist() for b in bounds if b is not None and not b.ndim] == [0, 6]:
        found[0] = step.op("Mul", step.g, between(step, step.y(), 0, 6))
    elif step.wants(0):
        made = step.g
        for i, comparison in ((1, "GreaterOrEqual"), (2, "LessOrEqual")):
            if step.has(i):
                made = step.only(made, comparison, step.x(0), step.x(i))
        found[0] = made
    if step.wants(1):
        below = step.only(step.g, "Less", step.x(0), step.x(1))
        found[1] = step.sum_to(step.only(below, "LessOrEqual", step.x(1), step.x(2)) if step.has(2) else below, 1)
    if step.wants(2):
        raised = step.op("Max", step.x(0), step.x(1)) if step.has(1) else step.x(0)
        found[2] = step.sum_to(step.only(step.g, "Greater", raised, step.x(2)), 2)
    return found
