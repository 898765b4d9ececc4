"""How layers that calculate in quantised steps are differentiated: as layers of the real numbers these stand for."""

from __future__ import annotations

from typing import Any

from onnx_inspect.graph.rules._rule import expansion
from onnx_inspect.graph.rules._step import Step
from onnx_inspect.graph.rules._steps_of_integers import NOTE, along, real, written
from onnx_inspect.graph.rules.microsoft_attention import projected

MICROSOFT = "com.microsoft"
WINDOW = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")


@expansion("QLinearConv", integers=True)
def qlinear_conv(step: Step) -> list[str]:
    """A convolution; its bias is in steps of (scale of the input) (scale of the weight)."""
    weight = real(step, 3, 4, 5, rank=step.rank(step.inputs[3]))
    values = [real(step, 0, 1, 2), weight]
    if step.has(8):
        values.append(step.op("Mul", step.x(8), step.op("Mul", step.x(1), step.x(4))))
    return [written(step, step.op("Conv", *values, **_settings(step, WINDOW)), 6, 7)]


@expansion("ConvInteger", integers=True)
def conv_integer(step: Step) -> list[str]:
    """A convolution of steps."""
    step.writer.notes.add(NOTE)
    image = step.op("Sub", step.x(0), step.x(2)) if step.has(2) else step.x(0)
    weight = step.x(1)
    if step.has(3):
        weight = step.op("Sub", weight, along(step, step.x(3), step.inputs[3], 0, step.rank(step.inputs[1])))
    return [step.op("Conv", image, weight, **_settings(step, WINDOW))]


@expansion("QLinearMatMul", integers=True)
def qlinear_matmul(step: Step) -> list[str]:
    """A matrix product."""
    sides = [real(step, i, i + 1, i + 2, axis=axis, rank=step.rank(step.inputs[i])) for i, axis in ((0, -2), (3, -1))]
    return [written(step, step.op("MatMul", *sides), 6, 7)]


@expansion("MatMulInteger", integers=True)
def matmul_integer(step: Step) -> list[str]:
    """A matrix product of steps."""
    step.writer.notes.add(NOTE)
    sides = []
    for i, zero, axis in ((0, 2, -2), (1, 3, -1)):
        name = step.x(i)
        if step.has(zero):
            name = step.op("Sub", name, along(step, step.x(zero), step.inputs[zero], axis, step.rank(step.inputs[i])))
        sides.append(name)
    return [step.op("MatMul", *sides)]


@expansion("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(step: Step) -> list[str]:
    """A matrix product of steps, as real numbers."""
    step.writer.notes.add(NOTE)
    sides = [real(step, i, i + 2, i + 4, axis=axis, rank=step.rank(step.inputs[i])) for i, axis in ((0, -2), (1, -1))]
    return [_added(step, step.op("MatMul", *sides), 6)]


@expansion("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(step: Step) -> list[str]:
    """A matrix product whose left side is quantised on the way."""
    step.writer.notes.add(NOTE)
    weight = real(step, 1, 2, 3, axis=-1, rank=step.rank(step.inputs[1]))
    return [_added(step, step.op("MatMul", step.x(0), weight), 4)]


@expansion("QGemm", domain=MICROSOFT, integers=True)
def qgemm(step: Step) -> list[str]:
    """A product of two matrices; the result stays real where no scale is given for it."""
    turned = {name: step.attribute(name, 0) for name in ("transA", "transB")}
    weight = real(step, 3, 4, 5, axis=0 if turned["transB"] else 1, rank=2)
    values = [real(step, 0, 1, 2), weight]
    if step.has(6):
        values.append(step.op("Mul", step.x(6), step.op("Mul", step.x(1), step.x(4))))
    made = step.op("Gemm", *values, alpha=step.attribute("alpha", 1.0), **turned)
    step.writer.notes.add(NOTE)
    return [written(step, made, 7, 8) if step.has(7) else made]


@expansion("QAttention", domain=MICROSOFT)
def qattention(step: Step) -> list[str]:
    """Self-attention whose input and weights are steps."""
    step.writer.notes.add(NOTE)
    source, weight = real(step, 0, 3, 6), real(step, 1, 4, 7, axis=1, rank=2)
    return projected(step, source, weight, mask=5, past=8, bias=99)


@expansion("QLinearAdd", "QLinearMul", domain=MICROSOFT, integers=True)
def qlinear_pair(step: Step) -> list[str]:
    """A sum or a product."""
    kind = step.node.op_type.removeprefix("QLinear")
    return [written(step, step.op(kind, real(step, 0, 1, 2), real(step, 3, 4, 5)), 6, 7)]


@expansion("QLinearLeakyRelu", "QLinearSigmoid", domain=MICROSOFT, integers=True)
def qlinear_activation(step: Step) -> list[str]:
    """A function of one variable."""
    kind = step.node.op_type.removeprefix("QLinear")
    settings = {"alpha": step.attribute("alpha", 0.01)} if kind == "LeakyRelu" else {}
    return [written(step, step.op(kind, real(step, 0, 1, 2), **settings), 3, 4)]


@expansion("QLinearSoftmax", domain=MICROSOFT, integers=True)
def qlinear_softmax(step: Step) -> list[str]:
    """A softmax, in the sense of the operator set that it names."""
    axis = step.attribute("axis", -1)
    if step.attribute("opset", 13) < 13 and step.axis(axis, step.inputs[0]) != step.rank(step.inputs[0]) - 1:
        raise step.fail("its softmax goes over several axes")
    return [written(step, step.op("Softmax", real(step, 0, 1, 2), axis=axis), 3, 4)]


@expansion("QLinearConcat", domain=MICROSOFT, integers=True)
def qlinear_concat(step: Step) -> list[str]:
    """Tensors of several scales joined."""
    parts = [real(step, i, i + 1, i + 2) for i in range(2, len(step.inputs), 3)]
    return [written(step, step.op("Concat", *parts, axis=step.attribute("axis")), 0, 1)]


@expansion("QLinearAveragePool", domain=MICROSOFT, integers=True)
def qlinear_average_pool(step: Step) -> list[str]:
    """An average over windows."""
    return [_pooled(step, "AveragePool", _settings(step, POOL))]


@expansion("QLinearGlobalAveragePool", domain=MICROSOFT, integers=True)
def qlinear_global_average_pool(step: Step) -> list[str]:
    """An average over all positions."""
    return [_pooled(step, "GlobalAveragePool", {})]


def _pooled(step: Step, kind: str, settings: dict[str, Any]) -> str:
    name, last = real(step, 0, 1, 2), step.attribute("channels_last", 0)
    rank = step.rank(step.inputs[0])
    if last:
        name = step.op("Transpose", name, perm=[0, rank - 1, *range(1, rank - 1)])
    name = step.op(kind, name, **settings)
    if last:
        name = step.op("Transpose", name, perm=[0, *range(2, rank), 1])
    return written(step, name, 3, 4)


def _settings(step: Step, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: step.attribute(name) for name in names if step.attribute(name) is not None}


def _added(step: Step, name: str, bias: int) -> str:
    return step.op("Add", name, step.x(bias)) if step.has(bias) else name
