"""How activation functions are differentiated.

At a kink the derivative is the one that PyTorch takes. Conditions become factors of 0 and 1: multiplying is what
runtimes do fastest. Where the output tells as much as the input it is read instead, so that runtimes may still fuse the
function with the layer before it.
"""

from __future__ import annotations

import math

from onnx_inspect.graph.declare import elem_type
from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step


@rule("Relu")
def relu(step: Step) -> Gradients:
    """1 where the output is positive, else 0; 0 at 0."""
    return {0: step.only(step.g, "Greater", step.y(), step.number(0))}


@rule("LeakyRelu")
def leaky_relu(step: Step) -> Gradients:
    """1 where the input is positive, else alpha."""
    alpha = step.attribute("alpha", 0.01)
    positive = step.flag("Greater", step.x(0) if alpha < 0 else step.y(), step.number(0))
    slope = step.op("Add", step.op("Mul", positive, step.number(1 - alpha)), step.number(alpha))
    return {0: step.op("Mul", step.g, slope)}


@rule("PRelu")
def p_relu(step: Step) -> Gradients:
    """1 where the input is positive, else the slope, whose own gradient is the negative part of the input."""
    found = {}
    if step.wants(0):
        positive, negative = _signs(step, step.x(0))
        slope = step.op("Add", positive, step.op("Mul", negative, step.x(1)))
        found[0] = step.op("Mul", step.g, slope)
    if step.wants(1):
        found[1] = step.sum_to(step.op("Mul", step.g, step.op("Min", step.x(0), step.number(0))), 1)
    return found


@rule("Elu")
def elu(step: Step) -> Gradients:
    """1 where the input is positive, else ``alpha exp(x) = y + alpha``."""
    return _exponential(step, 1.0, step.attribute("alpha", 1.0))


@rule("Selu")
def selu(step: Step) -> Gradients:
    """``gamma`` where the input is positive, else ``gamma alpha exp(x) = y + gamma alpha``."""
    gamma, alpha = step.attribute("gamma", 1.0507010221481323), step.attribute("alpha", 1.6732631921768188)
    return _exponential(step, gamma, gamma * alpha)


@rule("Celu")
def celu(step: Step) -> Gradients:
    """1 where the input is positive, else ``exp(x / alpha)``, which is ``y / alpha + 1``."""
    return _exponential(step, 1.0, 1.0, step.attribute("alpha", 1.0))


def _exponential(step: Step, above: float, offset: float, scale: float = 1.0) -> Gradients:
    positive, negative = _signs(step, step.x(0))
    low = step.y() if scale == 1 else step.op("Div", step.y(), step.number(scale))
    below = step.op("Mul", negative, step.op("Add", low, step.number(offset)))
    high = positive if above == 1 else step.op("Mul", positive, step.number(above))
    return {0: step.op("Mul", step.g, step.op("Add", high, below))}


def _signs(step: Step, x: str) -> tuple[str, str]:
    """Factors that are 1 where a tensor is positive, and where it isn't."""
    positive = step.flag("Greater", x, step.number(0))
    return positive, step.op("Sub", step.number(1), positive)


@rule("Gelu")
def gelu(step: Step) -> Gradients:
    """``Phi(x) + x phi(x)`` with the normal distribution; the derivative of the same formula where that is tanh's."""
    x = step.x(0)
    return {0: step.op("Mul", step.g, gelu_slope(step, x, step.attribute("approximate", "none") == "tanh"))}


def gelu_slope(step: Step, x: str, by_tanh: bool) -> str:
    """Derivative of Gelu."""
    square = step.op("Mul", x, x)
    if not by_tanh:
        half = step.number(0.5)
        error = step.op("Erf", step.op("Mul", x, step.number(math.sqrt(0.5))))
        below = step.op("Add", half, step.op("Mul", half, error))
        height = step.number(1 / math.sqrt(2 * math.pi))
        density = step.op("Mul", step.op("Exp", step.op("Mul", square, step.number(-0.5))), height)
        return step.op("Add", below, step.op("Mul", x, density))
    root, cubic = 2 * math.sqrt(2 / math.pi), 0.044715  # (1 + tanh(u)) / 2 is sigmoid(2 u): nothing cancels
    inner = step.op("Mul", x, step.op("Add", step.op("Mul", square, step.number(root * cubic)), step.number(root)))
    share, rest = step.op("Sigmoid", inner), step.op("Sigmoid", step.op("Neg", inner))
    change = step.op("Add", step.op("Mul", square, step.number(3 * root * cubic)), step.number(root))
    steep = step.op("Mul", step.op("Mul", share, rest), step.op("Mul", x, change))
    return step.op("Add", share, steep)


@rule("Sigmoid")
def sigmoid(step: Step) -> Gradients:
    """``y (1 - y)``."""
    return {0: step.op("Mul", step.g, _logistic(step, step.y()))}


def _logistic(step: Step, y: str) -> str:
    return step.op("Mul", y, step.op("Sub", step.number(1), y))


@rule("HardSigmoid")
def hard_sigmoid(step: Step) -> Gradients:
    """``alpha`` where the output lies between 0 and 1, else 0."""
    inside = between(step, step.y(), 0, 1)
    return {0: step.op("Mul", step.op("Mul", step.g, step.number(step.attribute("alpha", 0.2))), inside)}


@rule("HardSwish")
def hard_swish(step: Step) -> Gradients:
    """``x h(x)`` with ``h = x / 6 + 1/2`` between 0 and 1: ``h + x / 6`` there, else h."""
    x = step.x(0)
    line = step.op("Add", step.op("Mul", x, step.number(1 / 6)), step.number(0.5))
    held = step.op("Clip", line, step.number(0), step.number(1))
    inner = step.op("Mul", between(step, line, 0, 1), step.op("Mul", x, step.number(1 / 6)))
    return {0: step.op("Mul", step.g, step.op("Add", held, inner))}


@rule("Swish")
def swish(step: Step) -> Gradients:
    """``x s(alpha x)``: ``s + alpha x s (1 - s)``."""
    alpha, x = step.attribute("alpha", 1.0), step.x(0)
    scaled = x if alpha == 1 else step.op("Mul", x, step.number(alpha))
    share = step.op("Sigmoid", scaled)
    return {0: step.op("Mul", step.g, step.op("Add", share, step.op("Mul", scaled, _logistic(step, share))))}


@rule("Mish")
def mish(step: Step) -> Gradients:
    """``x t`` with ``t = tanh(softplus(x))``: ``t + x (1 - t^2) sigmoid(x)``."""
    x = step.x(0)
    bent = step.op("Tanh", step.op("Softplus", x))
    rest = step.op("Sub", step.number(1), step.op("Mul", bent, bent))
    inner = step.op("Mul", step.op("Mul", x, rest), step.op("Sigmoid", x))
    return {0: step.op("Mul", step.g, step.op("Add", bent, inner))}


@rule("Softplus")
def softplus(step: Step) -> Gradients:
    """``sigmoid(x)``."""
    return {0: step.op("Mul", step.g, step.op("Sigmoid", step.x(0)))}


@rule("Softsign")
def softsign(step: Step) -> Gradients:
    """``1 / (1 + |x|)^2``."""
    below = step.op("Add", step.op("Abs", step.x(0)), step.number(1))
    return {0: step.op("Div", step.g, step.op("Mul", below, below))}


@rule("Tanh")
def tanh(step: Step) -> Gradients:
    """``1 - y^2``."""
    y = step.y()
    return {0: step.op("Mul", step.g, step.op("Sub", step.number(1), step.op("Mul", y, y)))}


@rule("ThresholdedRelu")
def thresholded_relu(step: Step) -> Gradients:
    """1 above the threshold, else 0."""
    return {0: step.only(step.g, "Greater", step.x(0), step.number(step.attribute("alpha", 1.0)))}


@rule("Shrink")
def shrink(step: Step) -> Gradients:
    """1 outside of the threshold, else 0."""
    return {0: step.only(step.g, "Greater", step.op("Abs", step.x(0)), step.number(step.attribute("lambd", 0.5)))}


def between(step: Step, x: str, low: float, high: float) -> str:
    """Factor that is 1 where a tensor lies between two numbers and isn't one of them."""
    above, below = step.op("Greater", x, step.number(low)), step.op("Less", x, step.number(high))
    return step.op("Cast", step.op("And", above, below), to=elem_type(step.dtype))
