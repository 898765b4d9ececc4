"""Attention that onnxruntime's optimisers fused: operators of the domain com.microsoft."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_inspect.graph.attention import _decomposed as parts
from onnx_inspect.graph.attention._decomposed import Heads, optional
from onnx_inspect.graph.attention._recipe import (
    QUANTISED,
    Found,
    Refusal,
    Sketch,
    finished,
    sketch_of,
    tolerance_of,
)
from onnx_inspect.graph.constants import attribute
from onnx_inspect.graph.factors import Axes, Axis, born
from onnx_inspect.graph.lineage import Lineage
from onnx_inspect.graph.model import Layer
from onnx_inspect.graph.schemaless import MICROSOFT

PACKED = "its tokens are packed without padding: only CUDA runs it, and there is nothing to prove it by on a CPU"
REASONS = {
    "PackedAttention": PACKED,
    "PackedMultiHeadAttention": PACKED,
    "LongformerAttention": "its tokens see a band of neighbours and a few global ones: only CUDA runs it",
}


@dataclass(frozen=True)
class Masks:
    """Inputs and attributes that say which keys a query may see."""

    mask: str
    bias: str
    causal: bool
    past: int


def find(lineage: Lineage, *, decompose: bool = False) -> Iterator[Found]:
    """Fused attentions of a model; `decompose` asks for nothing that only the CPU's kernels hand out."""
    layers = {layer.name: layer for layer in lineage.model.layers}
    for node in lineage.model.proto.graph.node:
        if node.domain != MICROSOFT or "Attention" not in node.op_type:
            continue
        layer, form = layers[node.name], FORMS.get(node.op_type)
        if form is None:
            yield Refusal(layer, REASONS.get(node.op_type, f"how {node.op_type} works is not known here"))
        elif not decompose or node.op_type != "GroupQueryAttention":
            yield form(node, layer, lineage)
        else:
            yield Refusal(layer, "its probabilities are only handed out by the kernel of the CPU: run it there")


def _projected(node: onnx.NodeProto, layer: Layer, lineage: Lineage) -> Found:
    """Attention and QAttention: the projections to queries, keys and values are inside."""
    names = list(node.input)
    quantised = node.op_type == "QAttention"
    places = (5, 99, 8) if quantised else (3, 5, 4)
    mask, bias, past = (optional(names, i) for i in places)
    source, weight = lineage.shape(names[0]), lineage.shape(names[1])
    remembered = lineage.shape(past) if past else (2, 0, 0, 0, 0)
    if attribute(node, "do_rotary", 0):
        return Refusal(layer, "it turns its queries by their positions (do_rotary) inside")
    if source is None or weight is None or remembered is None:
        return Refusal(layer, "the shapes of its input and its weights are unknown")
    if attribute(node, "past_present_share_buffer", 0):
        return Refusal(layer, "its past and present share one buffer")
    heads = int(attribute(node, "num_heads", 1))
    widths = [int(n) for n in attribute(node, "qkv_hidden_sizes", [])] or [weight[1] // 3] * 3
    sketch = sketch_of(lineage, layer)
    values = _quantised_input(sketch, node) if quantised else (sketch.float32(names[0]), sketch.float32(names[1]))
    product = sketch.add("MatMul", *values)
    if optional(names, 2):
        product = sketch.add("Add", product, sketch.float32(names[2]))
    query, key, value = (
        parts.by_head(sketch, part, (*source[:2], n), heads)
        for part, n in zip(sketch.split(product, widths, 2), widths, strict=True)
    )
    if remembered[3]:
        key, value = (
            sketch.concat([sketch.float32(sketch.add("Gather", past, sketch.constant(i, "int64"), axis=0)), new], 2)
            for i, new in enumerate((key, value))
        )
    sizes = Heads(source[0], heads, heads, source[1], source[1] + remembered[3], widths[0] // heads)
    masks = Masks(mask, bias, bool(attribute(node, "unidirectional", 0)), remembered[3])
    soft = _soft(sketch, node, (query, key), sizes, masks, lineage)
    if isinstance(soft, str):
        context = parts.by_head(sketch, node.output[0], (*source[:2], widths[2]), heads)
        axis = lineage.of(names[0])[1]
        axes = _axes(lineage.of(names[0])[0], sizes, axis, parts.remembered(axis, sizes.keys, node.name), node.name)
        bound = QUANTISED if quantised else tolerance_of(lineage, names[0])
        tensors = (soft, value, context)
        return finished(sketch, layer, f"{MICROSOFT}.{node.op_type}", tensors, axes, tolerance=bound)
    return Refusal(layer, soft.reason)


def _quantised_input(sketch: Sketch, node: onnx.NodeProto) -> tuple[str, str]:
    """Input and weights of a QAttention as real numbers: (steps - zero point) * scale, columns scaled on their own."""
    made = []
    for values, scale, zero in ((0, 3, 6), (1, 4, 7)):
        steps = sketch.float32(node.input[values])
        if optional(list(node.input), zero):
            steps = sketch.add("Sub", steps, sketch.float32(node.input[zero]))
        made.append(sketch.add("Mul", steps, node.input[scale]))
    return made[0], made[1]


@dataclass(frozen=True)
class Unclear:
    """Why a decomposition can't be written."""

    reason: str


def _soft(
    sketch: Sketch, node: onnx.NodeProto, pair: tuple[str, str], sizes: Heads, masks: Masks, lineage: Lineage
) -> str | Unclear:
    """Probabilities from queries and keys by head, under an operator's own masks."""
    scale = float(attribute(node, "scale", 0.0)) or sizes.width**-0.5
    product = parts.scores(sketch, *pair, sizes, scale)
    if masks.mask:
        masked = _masked(sketch, product, masks.mask, sizes, lineage)
        if isinstance(masked, Unclear):
            return masked
        product = masked
    if masks.bias:
        product = sketch.add("Add", product, sketch.float32(masks.bias))
    if masks.causal:
        product = parts.causal(sketch, product, sizes, masks.past)
    return parts.probabilities(sketch, product)


def _masked(sketch: Sketch, product: str, mask: str, sizes: Heads, lineage: Lineage) -> str | Unclear:
    """Mask keys as an index says: rows of 0 and 1, or how long each sample is."""
    shape = lineage.shape(mask)
    if shape is None:
        return Unclear("the shape of its mask is unknown")
    if len(shape) == 2:
        whole = sketch.reshape(mask, (-1, 1, 1, sizes.keys))
    elif len(shape) == 3:
        whole = sketch.reshape(mask, (-1, 1, sizes.queries, sizes.keys))
    elif len(shape) == 1 and shape[0] == sizes.samples:
        places = sketch.constant(np.arange(sizes.keys), "int64")
        lengths = sketch.reshape(sketch.add("Cast", mask, to=7), (-1, 1, 1, 1))
        whole = sketch.add("Less", places, lengths)
    elif len(shape) == 1 and shape[0] == 2 * sizes.samples and sizes.samples == 1:
        ends, starts = (
            sketch.add("Cast", sketch.add("Gather", mask, sketch.constant(i, "int64"), axis=0), to=7) for i in (0, 1)
        )
        places = sketch.constant(np.arange(sizes.keys).reshape(1, 1, 1, -1), "int64")
        inside = sketch.add("Less", places, ends)
        whole = sketch.add("And", inside, sketch.add("Not", sketch.add("Less", places, starts)))
    else:
        return Unclear(f"its mask of shape {list(shape)} is of a kind not known here")
    return parts.masked_where_zero(sketch, product, whole)


def _multi_head(node: onnx.NodeProto, layer: Layer, lineage: Lineage) -> Found:
    """MultiHeadAttention: queries, keys and values come projected, sometimes packed into one or two tensors."""
    names = list(node.input)
    heads = int(attribute(node, "num_heads", 1))
    query = lineage.shape(names[0])
    key, value = (lineage.shape(optional(names, i)) if optional(names, i) else None for i in (1, 2))
    past = lineage.shape(optional(names, 6)) if optional(names, 6) else (0, 0, 0, 0)
    if query is None or past is None or any(optional(names, i) for i in (8, 9)):
        return Refusal(layer, "the shapes of its queries and its past are unknown, or they share a buffer")
    if len(query) != 3 or key is None or value is None or len(key) == 5:
        return _packed(node, layer, lineage, query, key)
    sketch = sketch_of(lineage, layer)
    width = query[2] // heads
    total = value[2] // heads if len(value) == 3 else value[3]
    sources = list(names[:3])
    if optional(names, 3):
        sizes_of = [query[2], key[2] if len(key) == 3 else query[2], heads * total]
        added = sketch.split(names[3], sizes_of, 0)
        sources = [
            sketch.add("Add", s, b) if len(shape) == 3 else s
            for s, b, shape in zip(sources, added, (query, key, value), strict=True)
        ]
    new = [parts.by_head(sketch, s, shape, heads) for s, shape in zip(sources, (query, key, value), strict=True)]
    if past[2]:
        new[1:] = [sketch.concat([sketch.float32(names[i]), n], 2) for i, n in zip((6, 7), new[1:], strict=True)]
    keys = (key[1] if len(key) == 3 else key[2]) + past[2]
    sizes = Heads(query[0], heads, heads, query[1], keys, width)
    ends = lineage.of(names[0])[1], lineage.of(names[1])[1 if len(key) == 3 else 2]
    return _by_heads(sketch, node, layer, lineage, (new[0], new[1], new[2]), sizes, total, past[2], ends)


def _packed(
    node: onnx.NodeProto,
    layer: Layer,
    lineage: Lineage,
    query: tuple[int, ...],
    key: tuple[int, ...] | None,
) -> Found:
    """Queries, keys and values in one tensor (N, T, heads, 3, d), or keys and values in one (N, T, heads, 2, d)."""
    names = list(node.input)
    heads = int(attribute(node, "num_heads", 1))
    sketch = sketch_of(lineage, layer)
    if optional(names, 3) or optional(names, 6):
        return Refusal(layer, "its queries, keys and values are packed, with a bias or a past")

    def taken(tensor: str, index: int) -> str:
        part = sketch.add("Gather", tensor, sketch.constant(index, "int64"), axis=3)  # (N, T, heads, d)
        return sketch.float32(sketch.transpose(part, (0, 2, 1, 3)))

    if len(query) == 5:
        new = (taken(names[0], 0), taken(names[0], 1), taken(names[0], 2))
        sizes = Heads(query[0], heads, heads, query[1], query[1], query[4])
        ends = lineage.of(names[0])[1], lineage.of(names[0])[1]
    elif key is not None and len(key) == 5:
        new = (parts.by_head(sketch, names[0], query, heads), taken(names[1], 0), taken(names[1], 1))
        sizes = Heads(query[0], heads, heads, query[1], key[1], key[4])
        ends = lineage.of(names[0])[1], lineage.of(names[1])[1]
    else:
        return Refusal(layer, "how its queries, keys and values are packed is not known here")
    return _by_heads(sketch, node, layer, lineage, new, sizes, sizes.width, 0, ends)


def _by_heads(
    sketch: Sketch,
    node: onnx.NodeProto,
    layer: Layer,
    lineage: Lineage,
    tensors: tuple[str, str, str],
    sizes: Heads,
    width: int,
    past: int,
    ends: tuple[Axis, Axis],
) -> Found:
    """Finish a MultiHeadAttention from its queries, keys and values by head."""
    names = list(node.input)
    masks = Masks(optional(names, 4), optional(names, 5), bool(attribute(node, "unidirectional", 0)), past)
    soft = _soft(sketch, node, tensors[:2], sizes, masks, lineage)
    if isinstance(soft, Unclear):
        return Refusal(layer, soft.reason)
    made = (sizes.samples, sizes.queries, sizes.heads * width)
    context = parts.by_head(sketch, node.output[0], made, sizes.heads)
    keys = parts.remembered(ends[1], sizes.keys, node.name)
    axes = _axes(lineage.of(names[0])[0], sizes, ends[0], keys, node.name)
    bound = tolerance_of(lineage, names[0])
    return finished(sketch, layer, f"{MICROSOFT}.{node.op_type}", (soft, tensors[2], context), axes, tolerance=bound)


def _grouped(node: onnx.NodeProto, layer: Layer, lineage: Lineage) -> Found:
    """GroupQueryAttention: the kernel hands its probabilities out, and the keys and values that it remembers."""
    names = list(node.input)
    query = lineage.shape(names[0])
    heads, shared = int(attribute(node, "num_heads", 1)), int(attribute(node, "kv_num_heads", 1))
    if query is None:
        return Refusal(layer, "the shape of its queries is unknown")
    if any(optional(names, i) for i in (11, 12, 13, 16)) or attribute(node, "smooth_softmax", 0):
        return Refusal(layer, "a sink takes part of its probabilities, or its memory is quantised or padded")
    packed = not optional(names, 1)
    width = query[2] // (heads + 2 * shared if packed else heads)
    before = lineage.shape(optional(names, 3)) if optional(names, 3) else (0, 0, 0, 0)
    total = lineage.value(names[6])
    if before is None:
        return Refusal(layer, "the shape of its past is unknown")
    keys = int(np.ravel(total)[0]) if total is not None else query[1] + before[2]
    sketch = sketch_of(lineage, layer)
    edited = onnx.NodeProto()
    edited.CopyFrom(node)
    outputs = [*node.output, *[""] * (4 - len(node.output))]
    for i, what in ((1, "key"), (2, "value"), (3, "probabilities")):
        outputs[i] = outputs[i] or f"{sketch.prefix}__{what}"
    edited.output[:] = outputs
    kept = [a for a in edited.attribute if a.name != "qk_output"]
    del edited.attribute[:]
    edited.attribute.extend([*kept, onnx.helper.make_attribute("qk_output", 2)])
    sizes = Heads(query[0], heads, shared, query[1], keys, width)
    context = parts.by_head(sketch, node.output[0], (*query[:2], heads * width), heads)
    tensors = (sketch.float32(outputs[3]), sketch.float32(outputs[2]), context)
    group = (shared, sizes.group) if sizes.group > 1 else (heads,)
    source = lineage.of(names[0])
    ends = source[1], parts.remembered(source[1], keys, node.name)
    axes = ((source[0], *born("channel", group, node.name)), *ends)
    bound = tolerance_of(lineage, names[0])
    whole = parts.grouped(sketch, tensors, sizes, width)
    return finished(sketch, layer, f"{MICROSOFT}.GroupQueryAttention", whole, axes, edited=[edited], tolerance=bound)


def _axes(sample: Axis, sizes: Heads, queries: Axis, keys: Axis, name: str) -> tuple[Axes, Axis, Axis]:
    return (sample, *born("channel", (sizes.heads,), name)), queries, keys


FORMS: dict[str, Callable[[onnx.NodeProto, Layer, Lineage], Found]] = {
    "Attention": _projected,
    "QAttention": _projected,
    "MultiHeadAttention": _multi_head,
    "GroupQueryAttention": _grouped,
}
