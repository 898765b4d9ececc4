"""How Softmax and LogSoftmax are differentiated."""

from __future__ import annotations

from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step


@rule("Softmax")
def softmax(step: Step) -> Gradients:
    """``y (g - sum(g y))`` along the axis; 0 where nothing may be chosen, if the model guards itself against that."""
    y, axis = step.y(), step.attribute("axis", -1)
    if _guarded(step, step.outputs[0]):
        y = step.op("Where", step.op("IsNaN", y), step.number(0), y)
    weighted = step.op("Mul", step.g, y)
    return {0: step.op("Sub", weighted, step.op("Mul", y, step.total(weighted, [axis])))}


def _guarded(step: Step, name: str) -> bool:
    """Whether the model looks after rows in which everything is hidden: their softmax isn't a number."""
    readers = step.writer.model.consumers.get(name, [])
    return any(
        reader.op_type in ("IsNaN", "Where") or (reader.op_type == "Cast" and _guarded(step, reader.output[0]))
        for reader in readers
    )


@rule("LogSoftmax")
def log_softmax(step: Step) -> Gradients:
    """``g - exp(y) sum(g)`` along the axis."""
    whole = step.total(step.g, [step.attribute("axis", -1)])
    return {0: step.op("Sub", step.g, step.op("Mul", step.op("Exp", step.y()), whole))}
