"""How operators that pick numbers by their indices are differentiated: what was picked twice gets both gradients."""

from __future__ import annotations

from onnx_inspect.graph.rules._rows import part, returned, with_length
from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step


@rule("Gather")
def gather(step: Step) -> Gradients:
    """Slices are added up where they came from."""
    if not step.wants(0):
        return {}
    source = step.inputs[0]
    rank, axis = step.rank(source), step.axis(step.attribute("axis", 0), source)
    index, shape = step.value(1), step.shape_of(source)
    length = (step.shape(source) or ())[axis]
    if index is not None and index.size == 1 and isinstance(length, int):
        place = int(index.flat[0]) % length
        alone = step.op("Reshape", step.g, with_length(step, shape, axis, step.ints([1])))
        return {0: step.op("Pad", alone, step.ints([place, length - place - 1]), "", step.ints([axis]))}
    rows = step.op("Reshape", step.g, with_length(step, shape, axis, step.ints([-1])))
    places = step.op("Cast", step.op("Reshape", step.inputs[1], step.ints([-1])), to=7)
    return {0: returned(step, rows, places, axis, rank, shape)}


@rule("GatherElements")
def gather_elements(step: Step) -> Gradients:
    """Numbers are added up where they came from."""
    return {0: _scattered(step, step.inputs[1], step.attribute("axis", 0))} if step.wants(0) else {}


@rule("TopK")
def top_k(step: Step) -> Gradients:
    """The largest get their gradients, the rest nothing."""
    return {0: _scattered(step, step.outputs[1], step.attribute("axis", -1))}


def _scattered(step: Step, indices: str, axis: int) -> str:
    zeros = step.op("Expand", step.number(0), step.shape_of(step.inputs[0]))
    return step.op("ScatterElements", zeros, indices, step.g, axis=axis, reduction="add")


@rule("Compress")
def compress(step: Step) -> Gradients:
    """Slices, or numbers of the flattened tensor, go back to where they were chosen."""
    chosen = step.op("Squeeze", step.op("NonZero", step.inputs[1]), step.ints([0]))
    source, shape = step.inputs[0], step.shape_of(step.inputs[0])
    if step.attribute("axis") is not None:
        rank = step.rank(source)
        return {0: returned(step, step.g, chosen, step.axis(step.attribute("axis"), source), rank, shape)}
    flat = step.op("Reshape", step.op("Size", source), step.ints([1]))
    return {0: step.like(returned(step, step.g, chosen, 0, 1, flat), source)}


@rule("GatherND")
def gather_nd(step: Step) -> Gradients:
    """Slices are added up where they came from."""
    if not step.wants(0):
        return {}
    batched, shape = step.attribute("batch_dims", 0), step.shape_of(step.inputs[0])
    if not batched:
        zeros = step.op("Expand", step.number(0), shape)
        return {0: step.op("ScatterND", zeros, step.inputs[1], step.g, reduction="add")}
    # The batch axes as one, whose numbers go before the indices of each.
    one = step.ints([-1])
    flat = step.op("Concat", one, part(step, shape, batched), axis=0)
    picks = step.op("Shape", step.inputs[1])
    indices = step.op("Reshape", step.inputs[1], step.op("Concat", one, part(step, picks, batched), axis=0))
    count = step.op("Squeeze", part(step, step.op("Shape", indices), 0, 1), step.ints([0]))
    numbers = step.op("Range", step.integer(0), count, step.integer(1))
    axes = step.rank(step.inputs[1]) - batched
    numbers = step.op("Reshape", numbers, step.ints([-1, *[1] * axes]))
    across = step.op("Concat", part(step, step.op("Shape", indices), 0, axes), step.ints([1]), axis=0)
    whole = step.op("Concat", step.op("Expand", numbers, across), indices, axis=axes)
    zeros = step.op("Expand", step.number(0), shape)
    zeros = step.op("Reshape", zeros, flat)
    gradient = step.op("Reshape", step.g, step.op("Concat", one, part(step, step.op("Shape", step.g), batched), axis=0))
    added = step.op("ScatterND", zeros, whole, gradient, reduction="add")
    return {0: step.like(added, step.inputs[0])}
