"""How Softmax and LogSoftmax are differentiated."""

from __future__ import annotations

from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step


@rule("Softmax")
def softmax(step: Step) -> Gradients:
    """``y (g - sum(g y))`` along the axis."""
    y, axis = step.y(), step.attribute("axis", -1)
    weighted = step.op("Mul", step.g, y)
    return {0: step.op("Sub", weighted, step.op("Mul", y, step.total(weighted, [axis])))}


@rule("LogSoftmax")
def log_softmax(step: Step) -> Gradients:
    """``g - exp(y) sum(g)`` along the axis."""
    whole = step.total(step.g, [step.attribute("axis", -1)])
    return {0: step.op("Sub", step.g, step.op("Mul", step.op("Exp", step.y()), whole))}
