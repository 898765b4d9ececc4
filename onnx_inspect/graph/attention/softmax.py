"""Attention written out: scores of queries and keys, a softmax over the keys, a product with the values."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass

import onnx

from onnx_inspect.graph.attention._products import Product, outcome, product, real, tolerance
from onnx_inspect.graph.attention._recipe import Found, Refusal, Sketch, finished, sketch_of
from onnx_inspect.graph.constants import attribute
from onnx_inspect.graph.factors import Axis, beginnings, kind
from onnx_inspect.graph.lineage import Lineage
from onnx_inspect.graph.model import Layer

# What probabilities may pass through on their way to the values, and what scores may on theirs to the softmax.
AFTER = set("Identity Dropout Cast Where Mul QuantizeLinear DequantizeLinear DynamicQuantizeLinear".split())
MOVED = {"Reshape", "Transpose", "Squeeze", "Unsqueeze"}
BEFORE = {
    *("Add", "Sub", "Mul", "Div", "Where", "Cast", "Dropout", "Identity", "Tanh", "Clip", "Max", "Min", "Concat"),
    *("QuantizeLinear", "DequantizeLinear", "QLinearAdd", "QLinearMul", "Slice", "Expand", "Sum", "Relu"),
    *MOVED,
}
CHANNELS = "its rows and columns are channels, not tokens: channel attention has no picture"


@dataclass(frozen=True)
class Softmax:
    """A softmax, however written, and the axis along which it sums to 1."""

    node: onnx.NodeProto
    scores: str
    made: str
    axis: int


@dataclass(frozen=True)
class Use:
    """Where probabilities meet the values: a product, their side of it, and the tensors passed on the way."""

    product: Product
    side: int
    path: tuple[str, ...]


def find(lineage: Lineage) -> Iterator[Found]:
    """Attentions of a model that are written out in elementary operators."""
    layers = {layer.name: layer for layer in lineage.model.layers}
    for soft in _softmaxes(lineage):
        found = _read(soft, layers[soft.node.name], lineage)
        if found is not None:
            yield found


def _softmaxes(lineage: Lineage) -> Iterator[Softmax]:
    modern = lineage.model.opsets.get("ai.onnx", 1) >= 13
    for node in lineage.model.proto.graph.node:
        made = node.output[0] if node.output else ""
        shape = lineage.shapes.get(made, ())
        if made not in lineage.data or len(shape) < 2:
            continue
        if node.op_type in ("Softmax", "QLinearSoftmax", "BiasSoftmax"):
            flat = attribute(node, "opset", 13) < 13 if node.op_type == "QLinearSoftmax" else not modern
            axis = attribute(node, "axis", 1 if flat else -1) % len(shape)
            if not flat or axis == len(shape) - 1:  # else it runs over several axes at once
                yield Softmax(node, node.input[0], made, axis)
        elif node.op_type == "Div":
            scores, axis = _written_out(node, lineage, len(shape))
            if scores:
                yield Softmax(node, scores, made, axis)


def _written_out(node: onnx.NodeProto, lineage: Lineage, rank: int) -> tuple[str, int]:
    """Scores and axis of ``exp(x) / sum(exp(x))``; "" where a division is something else."""
    above, below = (lineage.model.producers.get(n) for n in node.input)
    if above is None or below is None or above.op_type != "Exp" or below.op_type != "ReduceSum":
        return "", 0
    axes = attribute(below, "axes", None)
    if axes is None and len(below.input) > 1:
        axes = lineage.value(below.input[1])
    if axes is None or len(axes) != 1 or below.input[0] != node.input[0]:
        return "", 0
    return above.input[0], int(axes[0]) % rank


def _read(soft: Softmax, layer: Layer, lineage: Lineage) -> Found | None:
    use = _use(soft, lineage)
    content = _content(soft.scores, lineage)
    if use is None:
        return _lost(soft, layer, content, lineage)
    found, side = use.product, use.side
    values = found.operands[1 - side]
    if values not in lineage.data:
        return None  # a sum of weights: a codebook, an expectation over bins
    letter = found.contracted
    keys = found.axis(side, letter, lineage)
    if content is None:
        shared = beginnings([keys]) & beginnings([found.axis(1 - side, letter, lineage)])
        if kind(keys) == "channel" or not shared:
            return None  # a mixture of experts, a gate
    elif _among_channels(content, keys, lineage):
        return Refusal(layer, CHANNELS)
    return _recipe(soft, layer, use, lineage)


def _use(soft: Softmax, lineage: Lineage) -> Use | None:
    """First product, breadth first, that sums over the axis along which the probabilities sum to 1."""
    waiting: list[tuple[str, int, tuple[str, ...]]] = [(soft.made, soft.axis, (soft.made,))]
    while waiting:
        name, axis, path = waiting.pop(0)
        for node in lineage.model.consumers.get(name, []):
            found = product(node, lineage)
            if found is not None and name in found.operands and node.output[0] in lineage.shapes:
                side = found.operands.index(name)
                if found.letters[side][axis] == found.contracted:
                    return Use(found, side, path)
            made = node.output[0]
            shape = lineage.shapes.get(made, ())
            if node.op_type in AFTER and len(shape) == len(lineage.shapes[name]):
                waiting.append((made, axis, (*path, made)))
            elif node.op_type in MOVED and name == node.input[0]:
                moved = _moved(node, axis, lineage.shapes[name], shape)
                if moved is not None:
                    waiting.append((made, moved, (*path, made)))
    return None


def _moved(node: onnx.NodeProto, axis: int, before: tuple[int, ...], after: tuple[int, ...]) -> int | None:
    """Where an axis lies after a Transpose or a Reshape; None where it is gone."""
    if node.op_type == "Transpose":
        order = attribute(node, "perm", None) or list(range(len(before)))[::-1]
        return int(order.index(axis))
    ending = before[axis:]
    return len(after) - len(ending) if after[-len(ending) :] == ending else None


def _content(scores: str, lineage: Lineage, through: Set[str] | None = frozenset(BEFORE)) -> Product | None:
    """Nearest product of two tensors that both hang on the input, from which scores are made.

    The way to it leads through operators of `through`; where that is None through all but products, softmaxes and
    normalisations.
    """
    waiting, seen = [scores], {scores}
    while waiting:
        node = lineage.model.producers.get(waiting.pop(0))
        if node is None:
            continue
        found = product(node, lineage)
        if found is not None and all(n in lineage.data for n in found.operands):
            return found
        open_way = found is None and "Softmax" not in node.op_type and "Normalization" not in node.op_type
        if node.op_type in through if through is not None else open_way:
            new = [n for n in node.input if n in lineage.data and n not in seen]
            seen.update(new)
            waiting += new
    return None


def _among_channels(content: Product, keys: Axis, lineage: Lineage) -> bool:
    summed = content.axis(0, content.contracted[:1], lineage) if content.contracted else ()
    return kind(keys) == "channel" and kind(summed) == "position"


def _lost(soft: Softmax, layer: Layer, content: Product | None, lineage: Lineage) -> Refusal | None:
    """Say why a softmax over scores of queries and keys meets no values, where anything reads it."""
    readers = lineage.model.consumers.get(soft.made, [])
    if not readers or (content is None and _content(soft.scores, lineage, through=None) is None):
        return None
    keys = lineage.of(soft.made)[soft.axis]
    if content is not None and _among_channels(content, keys, lineage):
        return Refusal(layer, CHANNELS)
    names = ", ".join(sorted({n.op_type for n in _changers(soft.made, lineage)})) or "nothing"
    return Refusal(layer, f"its probabilities are changed before they meet the values ({names} reads them)")


def _changers(made: str, lineage: Lineage) -> list[onnx.NodeProto]:
    """First nodes behind a tensor that do more than to round or rearrange it."""
    waiting, found = [made], []
    while waiting:
        for node in lineage.model.consumers.get(waiting.pop(), []):
            if node.op_type in AFTER | MOVED:
                waiting.append(node.output[0])
            else:
                found.append(node)
    return found


def _recipe(soft: Softmax, layer: Layer, use: Use, lineage: Lineage) -> Found:
    sketch = sketch_of(lineage, layer)
    found, side = use.product, use.side
    values, context = real(found, 1 - side, lineage, sketch), outcome(found, lineage, sketch)
    probabilities = _floating(use, lineage) or real(found, side, lineage, sketch)
    if probabilities is None or values is None or context is None:
        return Refusal(layer, f"the scales of its quantised product {found.node.name!r} can't be found")
    own, other, made = found.letters[side], found.letters[1 - side], found.letters[2]
    key = found.contracted
    query = [c for c in own if c in made and c not in other]
    width = [c for c in other if c in made and c not in own]
    if len(query) != 1 or len(width) != 1 or len(key) != 1:
        return Refusal(layer, f"its product {found.node.name!r} is no product of matrices")
    shared = "".join(c for c in made if c not in (query[0], width[0]))
    shared = "".join(sorted(shared, key=lambda c: (c in own) + (c in other)))  # what one side lacks comes first
    lead = found.result_axes(shared, lineage)
    tensors = (
        _arranged(sketch, probabilities, own, _within(shared, own) + query[0] + key),
        _arranged(sketch, values, other, _within(shared, other) + key + width[0]),
        _arranged(sketch, context, made, shared + query[0] + width[0]),
    )
    axes = (lead, found.axis(side, query[0], lineage), found.axis(side, key, lineage))
    return finished(sketch, layer, "softmax", tensors, axes, tolerance=tolerance(found, lineage))


def _floating(use: Use, lineage: Lineage) -> str | None:
    """Last tensor on the way that holds real numbers, where only rounding comes after it."""
    for name in reversed(use.path):
        maker = lineage.model.producers[name]
        if maker.op_type in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"):
            continue
        if lineage.dtype(name) in ("int8", "uint8"):
            return None  # it was turned around after it was rounded
        whole = lineage.shapes[name] == lineage.shapes[use.path[-1]]
        return name if maker.op_type != "QLinearSoftmax" and whole else None
    return None


def _within(letters: str, own: str) -> str:
    return "".join(c for c in letters if c in own)


def _arranged(sketch: Sketch, tensor: str, before: str, after: str) -> str:
    return sketch.transpose(tensor, [before.index(c) for c in after])
