"""How reductions over axes are differentiated."""

from __future__ import annotations

import math

from onnx_inspect.graph.input_shapes import fixed
from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step

TINY = 1e-37  # about the smallest float32 that is not denormal: what a norm of 0 is divided by


@rule("ReduceSum")
def reduce_sum(step: Step) -> Gradients:
    """1 for every summand."""
    return {0: step.spread(_kept(step, step.g), step.inputs[0])}


@rule("ReduceMean")
def reduce_mean(step: Step) -> Gradients:
    """An equal share for every summand."""
    return {0: step.spread(_kept(step, step.op("Div", step.g, _count(step))), step.inputs[0])}


@rule("ReduceMax", "ReduceMin")
def reduce_extreme(step: Step) -> Gradients:
    """Those that are equally extreme share the gradient."""
    chosen = step.flag("Equal", step.x(0), _kept(step, step.y()))
    share = step.op("Div", _kept(step, step.g), _again(step, "ReduceSum", chosen))
    return {0: step.op("Mul", chosen, share)}


@rule("ReduceL1")
def reduce_l1(step: Step) -> Gradients:
    """The sign."""
    return {0: step.op("Mul", step.op("Sign", step.x(0)), _kept(step, step.g))}


@rule("ReduceL2")
def reduce_l2(step: Step) -> Gradients:
    """``x / y``, 0 where all is 0."""
    share = step.op("Div", step.g, step.op("Max", step.y(), step.number(TINY)))
    return {0: step.op("Mul", step.x(0), _kept(step, share))}


@rule("ReduceSumSquare")
def reduce_sum_square(step: Step) -> Gradients:
    """``2 x``."""
    return {0: step.op("Mul", step.x(0), _kept(step, step.op("Mul", step.g, step.number(2))))}


@rule("ReduceLogSum")
def reduce_log_sum(step: Step) -> Gradients:
    """``1 / sum = exp(-y)``."""
    share = step.op("Mul", step.g, step.op("Exp", step.op("Neg", step.y())))
    return {0: step.spread(_kept(step, share), step.inputs[0])}


@rule("ReduceLogSumExp")
def reduce_log_sum_exp(step: Step) -> Gradients:
    """``exp(x - y)``, the softmax."""
    share = step.op("Exp", step.op("Sub", step.x(0), _kept(step, step.y())))
    return {0: step.op("Mul", share, _kept(step, step.g))}


@rule("ReduceProd")
def reduce_prod(step: Step) -> Gradients:
    """The product of the others, also where there are zeros: a single zero gets it, more leave nothing to anyone."""
    x = step.x(0)
    zero = step.flag("Equal", x, step.number(0))
    filled = step.op("Add", x, zero)
    zeros = _again(step, "ReduceSum", zero)
    others = step.op("Div", _again(step, "ReduceProd", filled), filled)
    return {0: step.op("Mul", step.only(others, "Equal", zeros, zero), _kept(step, step.g))}


def _kept(step: Step, name: str) -> str:
    """A reduced tensor with the axes that the reduction dropped, of length 1."""
    if step.attribute("keepdims", 1) or not step.has(1):
        return name  # a scalar fits everywhere
    return step.op("Unsqueeze", name, step.inputs[1])


def _again(step: Step, kind: str, name: str) -> str:
    """Reduce another tensor of the input's shape over the same axes, and keep them."""
    axes = [step.inputs[1]] if step.has(1) else []
    empty = step.attribute("noop_with_empty_axes", 0)
    return step.op(kind, name, *axes, keepdims=1, noop_with_empty_axes=empty)


def _count(step: Step) -> str:
    """How many numbers are summed into one."""
    before, after = (fixed(step.shape(n)) for n in (step.inputs[0], step.outputs[0]))
    axes = step.value(1)
    shape = step.shape(step.inputs[0])
    if before is not None and after is not None and 0 not in after:
        many: int = math.prod(before)
        return step.number(many // math.prod(after))
    if axes is not None and axes.size and shape is not None:
        sizes = fixed(tuple(shape[int(a)] for a in axes))
        if sizes is not None:
            return step.number(math.prod(sizes))
    ratio = step.op("Div", step.op("Size", step.inputs[0]), step.op("Size", step.outputs[0]))
    return step.writer.cast(ratio, step.dtype)
