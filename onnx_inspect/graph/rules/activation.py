"""How activation functions are differentiated."""

from __future__ import annotations

from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step


@rule("Relu")
def relu(step: Step) -> Gradients:
    """1 where the output is positive, else 0, at 0 too; the output serves, so that a fused Conv + Relu stays fused."""
    return {0: step.op("Mul", step.g, step.op("Sign", step.y()))}


@rule("Sigmoid")
def sigmoid(step: Step) -> Gradients:
    """``y (1 - y)``."""
    y = step.y()
    return {0: step.op("Mul", step.g, step.op("Mul", y, step.op("Sub", step.number(1), y)))}


@rule("Tanh")
def tanh(step: Step) -> Gradients:
    """``1 - y^2``."""
    y = step.y()
    return {0: step.op("Mul", step.g, step.op("Sub", step.number(1), step.op("Mul", y, y)))}
