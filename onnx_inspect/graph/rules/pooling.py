"""How pooling is differentiated."""

from __future__ import annotations

import math

from onnx_inspect.graph.input_shapes import fixed
from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step


@rule("GlobalAveragePool")
def global_average_pool(step: Step) -> Gradients:
    """Every position gets an equal share."""
    return {0: step.spread(step.op("Div", step.g, positions(step)), step.inputs[0])}


@rule("MaxPool")
def max_pool(step: Step) -> Gradients:
    """The gradient goes to where the maximum was found: the first such position, as the runtime tells.

    The pool is computed once more for its indices, which count through the whole tensor: the forward pass keeps the
    form that runtimes are fastest in.
    """
    if step.attribute("storage_order", 0):
        raise step.fail("its indices count columns first (storage_order=1)")
    settings = {name: step.attribute(name) for name in POOL if step.attribute(name) is not None}
    _, indices = step.ops("MaxPool", 2, step.x(0), **settings)
    flat = step.ints([-1])
    count = step.op("Size", step.inputs[0])
    zeros = step.op("Expand", step.numbers([0]), step.op("Reshape", count, flat))
    places, values = step.op("Reshape", indices, flat), step.op("Reshape", step.g, flat)
    summed = step.op("ScatterElements", zeros, places, values, axis=0, reduction="add")
    return {0: step.like(summed, step.inputs[0])}


POOL = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")


def positions(step: Step) -> str:
    """How many positions each channel of the input has."""
    shape = step.shape(step.inputs[0])
    space = fixed(shape[2:]) if shape is not None else None
    if space is not None:
        return step.number(math.prod(space))
    sizes = step.op("Slice", step.shape_of(step.inputs[0]), step.ints([2]), step.ints([2**31]))
    return step.writer.cast(step.op("ReduceProd", sizes, keepdims=0), step.dtype)
