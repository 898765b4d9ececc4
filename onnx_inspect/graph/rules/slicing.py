"""How operators that join tensors and cut them apart are differentiated."""

from __future__ import annotations

from onnx_inspect.graph.input_shapes import fixed
from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step

END = 2**31


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
    rank = step.rank(step.inputs[0])
    axes, strides = step.value(3), step.value(4)
    if (step.has(3) and axes is None) or (step.has(4) and strides is None):
        raise step.fail("its axes or steps are no constants")
    count = fixed(step.shape(step.inputs[1]))
    if axes is None and count is None:
        raise step.fail("nothing tells how many axes it cuts")
    along = [int(a) % rank for a in axes] if axes is not None else list(range((count or (0,))[0]))
    paces = [int(s) for s in strides] if strides is not None else [1] * len(along)
    if all(pace == 1 for pace in paces):
        return {0: _padded(step, along)}
    gradient = step.g
    for i, axis in enumerate(along):
        gradient = _scattered(step, gradient, axis, i)
    return {0: gradient}


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


def _scattered(step: Step, gradient: str, axis: int, i: int) -> str:
    """Put a gradient back along one axis at the places that the slice took, whatever its steps."""
    rank = step.rank(step.inputs[0])
    length = step.op("Gather", step.shape_of(step.inputs[0]), step.ints([axis]))
    places = step.op("Range", step.integer(0), step.op("Squeeze", length), step.integer(1))
    bounds = [step.op("Slice", step.inputs[k], step.ints([i]), step.ints([i + 1])) for k in (1, 2, 4)]
    taken = step.op("Slice", places, bounds[0], bounds[1], step.ints([0]), bounds[2])
    view = [1] * rank
    view[axis] = -1
    shape = step.op("Shape", gradient)
    indices = step.op("Expand", step.op("Reshape", taken, step.ints(view)), shape)
    parts = [step.op("Slice", shape, step.ints([0]), step.ints([axis])), length]
    parts.append(step.op("Slice", shape, step.ints([axis + 1]), step.ints([END])))
    zeros = step.op("Expand", step.number(0), step.op("Concat", *parts, axis=0))
    return step.op("ScatterElements", zeros, indices, gradient, axis=axis)


def _length(step: Step, name: str, axis: int) -> int | str | None:
    shape = step.shape(name)
    return None if shape is None else shape[axis]


def _run_time_length(step: Step, name: str, axis: int) -> str:
    return step.op("Gather", step.shape_of(name), step.ints([axis]))
