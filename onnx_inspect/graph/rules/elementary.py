"""How elementary functions of one variable, powers and remainders are differentiated."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step


@rule("Floor", "Ceil", "Round", "Sign", "Hardmax")
def steps(step: Step) -> Gradients:
    """Flat wherever they have a derivative."""
    return {}


@rule("Exp")
def exp(step: Step) -> Gradients:
    """``exp(x)``."""
    return {0: step.op("Mul", step.g, step.y())}


@rule("Log")
def log(step: Step) -> Gradients:
    """``1 / x``."""
    return {0: step.op("Div", step.g, step.x(0))}


@rule("Sqrt")
def sqrt(step: Step) -> Gradients:
    """``1 / (2 y)``, infinite at 0."""
    return {0: step.op("Div", step.op("Mul", step.g, step.number(0.5)), step.y())}


@rule("Reciprocal")
def reciprocal(step: Step) -> Gradients:
    """``-y^2``."""
    return {0: step.op("Neg", step.op("Mul", step.g, step.op("Mul", step.y(), step.y())))}


@rule("Abs")
def absolute(step: Step) -> Gradients:
    """The sign, 0 at 0."""
    return {0: step.op("Mul", step.g, step.op("Sign", step.x(0)))}


@rule("Erf")
def erf(step: Step) -> Gradients:
    """``2 / sqrt(pi) exp(-x^2)``."""
    x = step.x(0)
    density = step.op("Exp", step.op("Neg", step.op("Mul", x, x)))
    return {0: step.op("Mul", step.g, step.op("Mul", density, step.number(2 / math.sqrt(math.pi))))}


@rule("Sin")
def sin(step: Step) -> Gradients:
    """``cos(x)``."""
    return {0: step.op("Mul", step.g, step.op("Cos", step.x(0)))}


@rule("Cos")
def cos(step: Step) -> Gradients:
    """``-sin(x)``."""
    return {0: step.op("Neg", step.op("Mul", step.g, step.op("Sin", step.x(0))))}


@rule("Tan")
def tan(step: Step) -> Gradients:
    """``1 + y^2``."""
    return {0: step.op("Mul", step.g, step.op("Add", step.op("Mul", step.y(), step.y()), step.number(1)))}


@rule("Sinh")
def sinh(step: Step) -> Gradients:
    """``cosh(x)``."""
    return {0: step.op("Mul", step.g, step.op("Cosh", step.x(0)))}


@rule("Cosh")
def cosh(step: Step) -> Gradients:
    """``sinh(x)``."""
    return {0: step.op("Mul", step.g, step.op("Sinh", step.x(0)))}


@rule("Asin")
def asin(step: Step) -> Gradients:
    """``1 / sqrt(1 - x^2)``."""
    return _over_root(step, 1, -1)


@rule("Acos")
def acos(step: Step) -> Gradients:
    """``-1 / sqrt(1 - x^2)``."""
    return {0: step.op("Neg", _over_root(step, 1, -1)[0])}


@rule("Asinh")
def asinh(step: Step) -> Gradients:
    """``1 / sqrt(x^2 + 1)``."""
    return _over_root(step, 1, 1)


@rule("Acosh")
def acosh(step: Step) -> Gradients:
    """``1 / sqrt(x^2 - 1)``."""
    return _over_root(step, -1, 1)


@rule("Atan")
def atan(step: Step) -> Gradients:
    """``1 / (1 + x^2)``."""
    return {0: step.op("Div", step.g, _quadratic(step, 1, 1))}


@rule("Atanh")
def atanh(step: Step) -> Gradients:
    """``1 / (1 - x^2)``."""
    return {0: step.op("Div", step.g, _quadratic(step, 1, -1))}


def _over_root(step: Step, constant: int, factor: int) -> dict[int, str]:
    return {0: step.op("Div", step.g, step.op("Sqrt", _quadratic(step, constant, factor)))}


def _quadratic(step: Step, constant: int, factor: int) -> str:
    """``constant + factor x^2``."""
    square = step.op("Mul", step.x(0), step.x(0))
    return step.op("Add" if factor > 0 else "Sub", step.number(constant), square)


@rule("Pow")
def power(step: Step) -> Gradients:
    """``d(a^b) = b a^(b - 1) da + a^b log(a) db``; 0 for b where a is not positive."""
    found = {}
    if step.wants(0):
        made = _power_slope(step)
        if made:
            found[0] = step.sum_to(step.op("Mul", step.g, made), 0)
    if step.wants(1):
        base = step.x(0)
        positive = step.flag("Greater", base, step.number(0))
        logarithm = step.op("Log", step.op("Where", step.op("Greater", base, step.number(0)), base, step.number(1)))
        change = step.op("Mul", step.op("Mul", step.y(), logarithm), positive)
        found[1] = step.sum_to(step.op("Mul", step.g, change), 1)
    return found


def _power_slope(step: Step) -> str:
    """``b a^(b - 1)``, "" where that is 0 everywhere."""
    base, exponent = step.x(0), step.value(1)
    if exponent is not None and np.all(exponent == exponent.flat[0] if exponent.size else False):
        power = float(exponent.flat[0])
        if power == 0:
            return ""
        special: dict[float, Callable[[], str]] = {
            1: lambda: step.op("Expand", step.number(1), step.shape_of(step.outputs[0])),
            2: lambda: step.op("Mul", base, step.number(2)),
            3: lambda: step.op("Mul", step.op("Mul", base, base), step.number(3)),
        }
        if power in special:
            return special[power]()
    raised = step.x(1)
    less = step.op("Pow", base, step.op("Sub", raised, step.number(1)))
    if exponent is None or np.any(exponent == 0):
        less = step.op("Where", step.op("Equal", raised, step.number(0)), step.number(0), less)  # not 0 times infinity
    return step.op("Mul", raised, less)


@rule("Mod")
def remainder(step: Step) -> Gradients:
    """``a - b w``: 1 for a, ``-w`` for b, where w is a / b cut to a whole number (with fmod) or rounded down."""
    found = {}
    if step.wants(0):
        found[0] = step.sum_to(step.g, 0)
    if step.wants(1):
        share = step.op("Div", step.x(0), step.x(1))
        whole = step.op("Floor", share)
        if step.attribute("fmod", 0):
            whole = step.op("Mul", step.op("Sign", share), step.op("Floor", step.op("Abs", share)))
        found[1] = step.sum_to(step.op("Neg", step.op("Mul", step.g, whole)), 1)
    return found
