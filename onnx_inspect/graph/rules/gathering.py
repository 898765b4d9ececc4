"""How operators that pick numbers by their indices are differentiated: what was picked twice gets both gradients."""

from __future__ import annotations

from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step

END = 2**31


@rule("Gather")
def gather(step: Step) -> Gradients:
    """Slices are added up where they came from."""
    if not step.wants(0):
        return {}
    source = step.inputs[0]
    rank, axis = step.rank(source), step.axis(step.attribute("axis", 0), source)
    index = step.value(1)
    shape = step.shape_of(source)
    if index is not None and index.size == 1 and isinstance(length := (step.shape(source) or ())[axis], int):
        place = int(index.flat[0]) % length
        alone = step.g if index.ndim == 1 else step.op("Unsqueeze", step.g, step.ints([axis]))
        if index.ndim > 1:
            parts = [step.op("Slice", shape, step.ints([0]), step.ints([axis])), step.ints([1])]
            parts.append(step.op("Slice", shape, step.ints([axis + 1]), step.ints([END])))
            alone = step.op("Reshape", step.g, step.op("Concat", *parts, axis=0))
        return {0: step.op("Pad", alone, step.ints([place, length - place - 1]), "", step.ints([axis]))}
    before = step.op("Slice", shape, step.ints([0]), step.ints([axis]))
    after = step.op("Slice", shape, step.ints([axis + 1]), step.ints([END]))
    rows = step.op("Reshape", step.g, step.op("Concat", before, step.ints([-1]), after, axis=0))
    zeros = step.op("Expand", step.number(0), shape)
    order = [axis, *(a for a in range(rank) if a != axis)]
    back = [order.index(a) for a in range(rank)]
    if axis:
        rows, zeros = (step.op("Transpose", name, perm=order) for name in (rows, zeros))
    places = step.op("Reshape", step.inputs[1], step.ints([-1, 1]))
    places = step.writer.cast(places, "int64")
    added = step.op("ScatterND", zeros, places, rows, reduction="add")
    return {0: step.op("Transpose", added, perm=back) if axis else added}
