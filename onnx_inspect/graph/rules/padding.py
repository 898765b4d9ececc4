"""How padding and repeating are differentiated: every copy gives its gradient to the original."""

from __future__ import annotations

from onnx_inspect.graph.rules._rows import END, part, returned, with_length
from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step


@rule("Pad")
def pad(step: Step) -> Gradients:
    """Constant padding is cut off, other padding is added to where it was copied from."""
    mode = step.attribute("mode", "constant")
    if mode == "constant":
        cut = _cut(step)
        found = {0: cut} if step.wants(0) else {}
        if step.wants(2):
            rest = step.op("Sub", step.op("ReduceSum", step.g, keepdims=0), step.op("ReduceSum", cut, keepdims=0))
            found[2] = step.like(rest, step.inputs[2])
        return found
    source = step.inputs[0]
    rank, pads, given = step.rank(source), step.value(1), step.value(3)
    if step.has(3) and given is None:
        raise step.fail("its axes are no constants")
    along = [int(a) % rank for a in given] if given is not None else list(range(rank))
    gradient, shape = step.g, step.shape_of(source)
    for i, axis in enumerate(along):
        if pads is not None and not pads[i] and not pads[i + len(along)]:
            continue
        length = part(step, shape, axis, axis + 1)
        places = step.op("Range", step.integer(0), step.op("Squeeze", length, step.ints([0])), step.integer(1))
        ends = [part(step, step.inputs[1], k, k + 1) for k in (i, i + len(along))]
        places = step.op("Pad", places, step.op("Concat", *ends, axis=0), mode=mode)  # where each number is from
        target = with_length(step, step.op("Shape", gradient), axis, length)
        gradient = returned(step, gradient, places, axis, rank, target)
    return {0: gradient}


def _cut(step: Step) -> str:
    """The gradient without what was added; where something was cut off instead, zeros come back."""
    axes, pads = [step.inputs[3]] if step.has(3) else [], step.value(1)
    if pads is None or min(pads, default=0) < 0:
        return step.op("Pad", step.g, step.op("Neg", step.inputs[1]), *(["", *axes] if axes else []))
    half = len(pads) // 2
    ends = [-int(p) or END for p in pads[half:]]
    return step.op("Slice", step.g, step.ints(int(p) for p in pads[:half]), step.ints(ends), *axes)


@rule("Tile")
def tile(step: Step) -> Gradients:
    """All copies are added up."""
    rank = step.rank(step.inputs[0])
    columns = [step.op("Unsqueeze", name, step.ints([1])) for name in (step.inputs[1], step.shape_of(step.inputs[0]))]
    apart = step.op("Reshape", step.op("Concat", *columns, axis=1), step.ints([-1]))  # copies, length, copies, ...
    copies = step.op("Reshape", step.g, apart)
    return {0: step.total(copies, [2 * a for a in range(rank)], keep=False)}
