"""How pooling is differentiated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step
from onnx_inspect.graph.rules._window import Window, room, space, to_wide, window
from onnx_inspect.graph.rules.reduction import TINY

SETTINGS = ("auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides")


@rule("GlobalAveragePool")
def global_average_pool(step: Step) -> Gradients:
    """Every position gets an equal share."""
    return {0: step.spread(step.op("Div", step.g, _positions(step)), step.inputs[0])}


@rule("GlobalMaxPool")
def global_max_pool(step: Step) -> Gradients:
    """The first of the largest positions gets it all."""
    flat = step.op("Reshape", step.x(0), step.ints([0, 0, -1]))  # (N, C, positions)
    place = step.op("ArgMax", flat, axis=2, keepdims=1)
    zeros = step.op("Expand", step.numbers([0]), step.op("Shape", flat))
    gradient = step.op("Reshape", step.g, step.ints([0, 0, 1]))
    return {0: step.like(step.op("ScatterElements", zeros, place, gradient, axis=2), step.inputs[0])}


@rule("GlobalLpPool")
def global_lp_pool(step: Step) -> Gradients:
    """``x |x|^(p-2) / y^(p-1)``."""
    power = step.attribute("p", 2)
    return {0: step.op("Mul", _signed_power(step, power - 1), _over_power(step, power - 1))}


@rule("MaxPool")
def max_pool(step: Step) -> Gradients:
    """The gradient goes to where the maximum was found: the first such position, as the runtime tells.

    The pool is computed once more for its indices, which count through the whole tensor: the forward pass keeps the
    form that runtimes are fastest in.
    """
    if any(step.grads[1:]):
        raise step.fail("the places of its maxima are used as numbers")
    _, indices = step.ops("MaxPool", 2, step.x(0), **_settings(step))
    flat = step.ints([-1])
    zeros = step.op("Expand", step.numbers([0]), step.op("Reshape", step.op("Size", step.inputs[0]), flat))
    places, values = step.op("Reshape", indices, flat), step.op("Reshape", step.g, flat)
    summed = step.op("ScatterElements", zeros, places, values, axis=0, reduction="add")
    return {0: step.like(summed, step.inputs[0])}


@rule("MaxUnpool")
def max_unpool(step: Step) -> Gradients:
    """Each input gets the gradient of the position that it was put to."""
    if not step.wants(0):
        return {}
    flat = step.ints([-1])
    picked = step.op("Gather", step.op("Reshape", step.g, flat), step.op("Reshape", step.inputs[1], flat))
    return {0: step.like(picked, step.inputs[0])}


@rule("AveragePool")
def average_pool(step: Step) -> Gradients:
    """Every position of a window gets an equal share."""
    view = window(step)
    padded = view.given is None or any(view.given)
    whole = not step.attribute("ceil_mode", 0) and (not padded or step.attribute("count_include_pad", 0))
    if whole:
        return {0: _summed(step, view, step.op("Mul", step.g, step.number(1 / math.prod(view.kernel))))}
    return {0: _summed(step, view, step.op("Mul", step.g, _shares(step, view)))}


@rule("LpPool")
def lp_pool(step: Step) -> Gradients:
    """``x |x|^(p-2) / y^(p-1)``, summed over the windows that a position lies in."""
    less = step.attribute("p", 2) - 1
    return {0: step.op("Mul", _signed_power(step, less), _summed(step, window(step), _over_power(step, less)))}


def _signed_power(step: Step, power: int) -> str:
    """``sign(x) |x|^power``."""
    x = step.x(0)
    if power in (0, 1):
        return step.op("Sign", x) if power == 0 else x
    return step.op("Mul", step.op("Sign", x), step.op("Pow", step.op("Abs", x), step.number(power)))


def _over_power(step: Step, power: int) -> str:
    """``g / y^power``, 0 where y is 0."""
    if power == 0:
        return step.g
    kept = step.only(step.g, "Greater", step.y(), step.number(0))
    size = step.op("Max", step.y(), step.number(TINY ** (1 / power)))
    return step.op("Div", kept, step.op("Pow", size, step.number(power)))


def _summed(step: Step, view: Window, gradient: str) -> str:
    """Add up for every position the gradients of the windows that it lies in."""
    wide, narrow = space(step, step.inputs[0]), space(step, step.outputs[0])
    if wide is not None and narrow is not None and view.kernel == view.strides and max(view.dilations) == 1:
        fits = all(w == n * k for w, n, k in zip(wide, narrow, view.kernel, strict=True))
        if fits and not any(view.pads(wide) or []):
            return _repeated(step, view, gradient)
    sheets = step.op("Concat", step.ints([-1, 1]), room(step, step.outputs[0]), axis=0)
    ones = step.numbers(np.ones((1, 1, *view.kernel)))
    gradient = step.op("Reshape", gradient, sheets)  # (N C, 1, ...)
    return step.like(to_wide(step, view, gradient, ones, lambda: ones, 1), step.inputs[0])


def _repeated(step: Step, view: Window, gradient: str) -> str:
    """Windows side by side: each one's gradient is repeated over its positions."""
    between = [3 + 2 * i for i in range(view.rank)]
    apart = step.op("Unsqueeze", gradient, step.ints(between))
    sizes = [1, 1] + [size for k in view.kernel for size in (1, k)]
    return step.like(step.op("Expand", apart, step.ints(sizes)), step.inputs[0])


def _shares(step: Step, view: Window) -> str:
    """1 over the count that each window's sum is divided by, (1, 1, ...): as the runtime itself counts.

    A pool of ones gives the real positions over the count, a convolution of them with ones the real positions.
    """
    ones = step.op("Expand", step.number(1), step.op("Concat", step.ints([1, 1]), room(step, step.inputs[0]), axis=0))
    ratio = step.op("AveragePool", ones, **_settings(step))
    more: dict[str, Any] = {"kernel_shape": view.kernel, "strides": view.strides, "dilations": view.dilations}
    if view.given is None:
        more["auto_pad"] = view.auto
    else:
        late = [s - 1 if step.attribute("ceil_mode", 0) else 0 for s in view.strides]
        more["pads"] = [*view.given[: view.rank], *(p + q for p, q in zip(view.given[view.rank :], late, strict=True))]
    real = step.op("Conv", ones, step.numbers(np.ones((1, 1, *view.kernel))), **more)
    if step.attribute("ceil_mode", 0):
        real = step.op("Slice", real, step.ints([0] * view.rank), room(step, step.outputs[0]), step.ints(view.axes))
    return step.op("Div", ratio, real)


def _settings(step: Step) -> dict[str, Any]:
    return {name: step.attribute(name) for name in SETTINGS if step.attribute(name) is not None}


def _positions(step: Step) -> str:
    """How many positions each channel of the input has."""
    sizes = space(step, step.inputs[0])
    if sizes is not None:
        return step.number(math.prod(sizes))
    return step.writer.cast(step.op("ReduceProd", room(step, step.inputs[0]), keepdims=0), step.dtype)
