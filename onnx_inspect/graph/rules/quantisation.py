"""How rounding to quantised steps is differentiated: straight through, but not where the steps are saturated."""

from __future__ import annotations

from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step
from onnx_inspect.graph.rules._steps_of_integers import NOTE, along, passed

MICROSOFT = "com.microsoft"


@rule("QuantizeLinear", integers=True)
def quantize_linear(step: Step) -> Gradients:
    """``1 / scale`` as if nothing were rounded."""
    if not step.wants(0):
        return {}
    step.writer.notes.add(NOTE)
    scale = _scale(step)
    return {0: passed(step, step.op("Div", step.g, scale), 2)}


@rule("DequantizeLinear")
def dequantize_linear(step: Step) -> Gradients:
    """``scale``."""
    return {0: step.op("Mul", step.g, _scale(step))} if step.wants(0) else {}


@rule("QuantizeLinear", domain=MICROSOFT, integers=True)
def microsoft_quantize_linear(step: Step) -> Gradients:
    """onnxruntime's twin for 16 bits and others."""
    return quantize_linear(step)


@rule("DequantizeLinear", domain=MICROSOFT)
def microsoft_dequantize_linear(step: Step) -> Gradients:
    """onnxruntime's twin for 16 bits and others."""
    return dequantize_linear(step)


@rule("DynamicQuantizeLinear", integers=True)
def dynamic_quantize_linear(step: Step) -> Gradients:
    """``1 / scale``; that the scale is the input's own range is left out, as PyTorch does."""
    step.writer.notes.add(NOTE)
    return {0: step.op("Div", step.grads[0], step.y(1))} if step.grads[0] else {}


def _scale(step: Step) -> str:
    return _along(step, 1)


def _along(step: Step, i: int) -> str:
    """Scale or zero point beside the values: one, one per index of an axis, or one per block of them."""
    source = step.inputs[0] if step.shape(step.inputs[0]) is not None else step.outputs[0]
    shape = step.shape(source)
    name, block = step.x(i), step.attribute("block_size", 0)
    if not block:
        return along(step, name, step.inputs[i], step.attribute("axis", 1), None if shape is None else len(shape))
    rank = step.rank(source)
    axis = step.attribute("axis", 1) % rank
    apart = step.op("Unsqueeze", name, step.ints([axis + 1]))
    copies = step.op("Expand", apart, step.ints([1] * (axis + 1) + [block] + [1] * (rank - axis - 1)))
    target = [0] * axis + [-1] + [0] * (rank - axis - 1)
    parts = [step.op("Slice", step.op("Shape", name), step.ints([a]), step.ints([a + 1])) for a in range(rank)]
    parts[axis] = step.ints([target[axis]])
    whole = step.op("Reshape", copies, step.op("Concat", *parts, axis=0))
    length = step.op("Slice", step.shape_of(source), step.ints([axis]), step.ints([axis + 1]))
    return step.op("Slice", whole, step.ints([0]), length, step.ints([axis]))
