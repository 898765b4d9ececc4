"""How operators that join tensors and cut them apart are differentiated."""

from __future__ import annotations

import numpy as np

from onnx_inspect.graph.input_shapes import fixed
from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step


@rule("Concat")
def concat(step: Step) -> Gradients:
    """The gradient is cut where the inputs were joined."""
    axis = step.attribute("axis")
    lengths = [_length(step, name, axis) for name in step.inputs]
    if all(isinstance(n, int) for n in lengths):
        sizes = step.ints(n for n in lengths if isinstance(n, int))
    else:
        sizes = step.op("Concat", *(_run_time_length(step, n, axis) for n in step.inputs), axis=0)
    if len(step.inputs) == 1:
        return {0: step.g}
    parts = step.ops("Split", len(step.inputs), step.g, sizes, axis=axis)
    return {i: part for i, part in enumerate(parts) if step.wants(i)}


@rule("Split")
def split(step: Step) -> Gradients:
    """The gradients of the parts are joined; parts that nothing reads have none."""
    parts = []
    for gradient, name in zip(step.grads, step.outputs, strict=True):
        if not name:
            raise step.fail("one of its parts has no name")
        zeros = "" if gradient else step.op("Expand", step.number(0), step.shape_of(name))
        parts.append(gradient or zeros)
    return {0: step.op("Concat", *parts, axis=step.attribute("axis", 0))}


@rule("Slice")
def cut(step: Step) -> Gradients:
    """The gradient is put back among zeros."""
    rank, axes, strides = step.rank(step.inputs[0]), step.value(3), step.value(4)
    count = fixed(step.shape(step.inputs[1]))
    if not step.has(3) and count is not None:
        axes = np.arange(count[0])
    if axes is None or (step.has(4) and (strides is None or any(strides != 1))):
        return {0: _scattered(step)}
    return {0: _padded(step, [int(a) % rank for a in axes])}


def _padded(step: Step, axes: list[int]) -> str:
    """Zeros before and after, as many as were cut off."""
    source, made = step.inputs[0], step.outputs[0]
    before, after, starts = step.shape(source), step.shape(made), step.value(1)
    if before is not None and after is not None and starts is not None:
        wide, narrow = (fixed(tuple(shape[a] for a in axes)) for shape in (before, after))
        if wide is not None and narrow is not None:
            begins = [min(max(int(s) + w if s < 0 else int(s), 0), w) for s, w in zip(starts, wide, strict=True)]
            ends = [w - b - n for w, b, n in zip(wide, begins, narrow, strict=True)]
            return step.op("Pad", step.g, step.ints([*begins, *ends]), "", step.ints(axes))
    lengths, cut_lengths = (step.op("Gather", step.shape_of(n), step.ints(axes)) for n in (source, made))
    first = step.writer.cast(step.inputs[1], "int64")
    negative = step.writer.cast(step.op("Less", first, step.ints([0])), "int64")
    begin = step.op("Add", first, step.op("Mul", negative, lengths))
    begin = step.op("Min", step.op("Max", begin, step.ints([0])), lengths)
    end = step.op("Sub", step.op("Sub", lengths, begin), cut_lengths)
    return step.op("Pad", step.g, step.op("Concat", begin, end, axis=0), "", step.ints(axes))


def _scattered(step: Step) -> str:
    """Put a gradient back at the places that the slice took, whatever its steps: the places are cut out like it."""
    source, flat = step.inputs[0], step.ints([-1])
    count = step.op("Size", source)
    places = step.op("Range", step.integer(0), count, step.integer(1))
    taken = step.op("Slice", step.like(places, source), *step.inputs[1:])
    zeros = step.op("Expand", step.number(0), step.op("Reshape", count, flat))
    parts = [step.op("Reshape", name, flat) for name in (taken, step.g)]
    return step.like(step.op("ScatterElements", zeros, *parts, axis=0), source)


def _length(step: Step, name: str, axis: int) -> int | str | None:
    shape = step.shape(name)
    return None if shape is None else shape[axis]


def _run_time_length(step: Step, name: str, axis: int) -> str:
    return step.op("Gather", step.shape_of(name), step.ints([axis]))
