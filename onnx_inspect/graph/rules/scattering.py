"""How operators that write numbers into a tensor are differentiated: what was written over gets nothing."""

from __future__ import annotations

from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step


@rule("ScatterElements")
def scatter_elements(step: Step) -> Gradients:
    """The data get the gradient but for what was written over, the updates that of their places."""
    return _written(step, "ScatterElements", "GatherElements", {"axis": step.attribute("axis", 0)})


@rule("ScatterND")
def scatter_nd(step: Step) -> Gradients:
    """The same for slices."""
    return _written(step, "ScatterND", "GatherND", {})


def _written(step: Step, scatter: str, gather: str, settings: dict[str, int]) -> Gradients:
    reduction = step.attribute("reduction", "none")
    if reduction not in ("none", "add"):
        raise step.fail(f"there is no rule for reduction={reduction}")
    found = {}
    if step.wants(0):
        zeros = step.op("Expand", step.number(0), step.shape_of(step.inputs[2]))
        kept = step.g if reduction == "add" else step.op(scatter, step.g, step.inputs[1], zeros, **settings)
        found[0] = kept
    if step.wants(2):
        found[2] = step.op(gather, step.g, step.inputs[1], **settings)
    return found


@rule("Trilu")
def triangle(step: Step) -> Gradients:
    """The same triangle of the gradient."""
    return {0: step.op("Trilu", step.g, *step.inputs[1:], upper=step.attribute("upper", 1))}


@rule("ReverseSequence")
def reverse_sequence(step: Step) -> Gradients:
    """Turned around again."""
    axes = {"batch_axis": step.attribute("batch_axis", 1), "time_axis": step.attribute("time_axis", 0)}
    return {0: step.op("ReverseSequence", step.g, step.inputs[1], **axes)}
