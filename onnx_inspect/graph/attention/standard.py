"""The standard operator Attention, of operator sets 23 and later."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from onnx_inspect.graph.attention import _decomposed as parts
from onnx_inspect.graph.attention._decomposed import Heads, optional
from onnx_inspect.graph.attention._recipe import Found, Refusal, Sketch, finished, sketch_of, tolerance_of
from onnx_inspect.graph.constants import attribute
from onnx_inspect.graph.factors import Axis, born
from onnx_inspect.graph.lineage import Lineage
from onnx_inspect.graph.model import Layer

AFTER_SOFTMAX = 3  # value of qk_matmul_output_mode


@dataclass(frozen=True)
class Shapes:
    """Concrete shapes of an Attention's query, key and value, and how many keys it remembers."""

    query: tuple[int, ...]
    key: tuple[int, ...]
    value: tuple[int, ...]
    past: int


def find(lineage: Lineage, *, decompose: bool = False) -> Iterator[Found]:
    """Attention nodes of a model; `decompose` computes their probabilities anew where a kernel can't hand them out."""
    layers = {layer.name: layer for layer in lineage.model.layers}
    for node in lineage.model.proto.graph.node:
        if node.op_type == "Attention" and node.domain in ("", "ai.onnx") and node.output[0] in lineage.data:
            yield _read(node, layers[node.name], lineage, decompose)


def _read(node: onnx.NodeProto, layer: Layer, lineage: Lineage, decompose: bool) -> Found:
    names = list(node.input)
    shapes = _shapes(lineage, names)
    if shapes is None:
        return Refusal(layer, "the shapes of its queries, keys and values are unknown")
    sizes = _sizes(node, shapes)
    sketch = sketch_of(lineage, layer)
    taken = len(node.output) > 3 and node.output[3]
    if taken and attribute(node, "qk_matmul_output_mode", 0) != AFTER_SOFTMAX:
        decompose = True  # the scores that it hands out are read by others
    if decompose and optional(names, 6):
        return Refusal(layer, "its keys' lengths (nonpad_kv_seqlen) are only read by the kernel of the CPU")
    values = _values(sketch, node, shapes, sizes)
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    if decompose:
        soft = _decomposed(sketch, node, shapes, sizes, lineage)
    elif taken:
        soft = node.output[3]
    else:
        soft = f"{sketch.prefix}__probabilities"
        _hand_out(copy, soft)
    edited = [*_widened(copy, sketch.prefix, sizes, lineage), copy]
    width = shapes.value[-1] // (sizes.shared if len(shapes.value) == 3 else 1)
    made = (*shapes.query[:2], sizes.heads * width) if len(shapes.query) == 3 else (*shapes.query[:3], width)
    context = parts.by_head(sketch, node.output[0], made, sizes.heads)
    tensors = parts.grouped(sketch, (soft, values, context), sizes, width)
    axes = _axes(node, shapes, sizes, lineage)
    bound = tolerance_of(lineage, *names[:3])
    return finished(sketch, layer, "Attention", tensors, axes, edited=edited, tolerance=bound)


def _shapes(lineage: Lineage, names: list[str]) -> Shapes | None:
    query, key, value = (lineage.shape(n) for n in names[:3])
    past = lineage.shape(optional(names, 4)) if optional(names, 4) else (0, 0, 0, 0)
    if query is None or key is None or value is None or past is None:
        return None
    return Shapes(query, key, value, past[2]) if {len(query), len(key), len(value)} <= {3, 4} else None


def _sizes(node: onnx.NodeProto, shapes: Shapes) -> Heads:
    query, key = shapes.query, shapes.key
    heads = query[1] if len(query) == 4 else int(attribute(node, "q_num_heads", 1))
    shared = key[1] if len(key) == 4 else int(attribute(node, "kv_num_heads", 1))
    width = query[-1] if len(query) == 4 else query[-1] // heads
    return Heads(query[0], heads, shared, query[-2], key[-2] + shapes.past, width)


def _values(sketch: Sketch, node: onnx.NodeProto, shapes: Shapes, sizes: Heads) -> str:
    values = parts.by_head(sketch, node.input[2], shapes.value, sizes.shared)
    if not shapes.past:
        return values
    return sketch.concat([sketch.float32(node.input[5]), values], 2)


def _hand_out(copy: onnx.NodeProto, name: str) -> None:
    """Make a node also give its probabilities."""
    kept = [a for a in copy.attribute if a.name != "qk_matmul_output_mode"]
    del copy.attribute[:]
    copy.attribute.extend([*kept, onnx.helper.make_attribute("qk_matmul_output_mode", AFTER_SOFTMAX)])
    copy.output[:] = [*copy.output[:3], *[""] * (3 - len(copy.output)), name]


def _widened(copy: onnx.NodeProto, prefix: str, sizes: Heads, lineage: Lineage) -> list[onnx.NodeProto]:
    """Write a mask that is the same for all queries out for each, and return what does so.

    The standard lets it be broadcast, the kernel of onnxruntime 1.32 doesn't.
    """
    mask = optional(list(copy.input), 3)
    shape = lineage.shape(mask) if mask else None
    if not shape or len(shape) < 2 or shape[-2] == sizes.queries:
        return []
    rows, wide = f"{prefix}__rows", f"{prefix}__mask"
    copy.input[3] = wide
    return [
        onnx.helper.make_node("Constant", [], [rows], name=rows, value_ints=[sizes.queries, 1]),
        onnx.helper.make_node("Expand", [mask, rows], [wide], name=wide),
    ]


def _decomposed(sketch: Sketch, node: onnx.NodeProto, shapes: Shapes, sizes: Heads, lineage: Lineage) -> str:
    query = parts.by_head(sketch, node.input[0], shapes.query, sizes.heads)
    key = parts.by_head(sketch, node.input[1], shapes.key, sizes.shared)
    if shapes.past:
        key = sketch.concat([sketch.float32(node.input[4]), key], 2)
    scale = float(attribute(node, "scale", 0.0)) or sizes.width**-0.5
    product = parts.scores(sketch, query, key, sizes, scale, float(attribute(node, "softcap", 0.0)))
    mask = optional(list(node.input), 3)
    if mask and lineage.dtype(mask) == "bool":
        product = parts.masked_where_zero(sketch, product, mask)
    elif mask:
        bias = sketch.add("Max", sketch.float32(mask), sketch.constant(parts.LOWEST))  # no -inf - -inf
        product = sketch.add("Add", product, bias)
    if attribute(node, "is_causal", 0):
        product = parts.causal(sketch, product, sizes, shapes.past)
    return parts.probabilities(sketch, product)


def _axes(node: onnx.NodeProto, shapes: Shapes, sizes: Heads, lineage: Lineage) -> tuple[tuple[Axis, ...], Axis, Axis]:
    query, key = lineage.of(node.input[0]), lineage.of(node.input[1])
    heads = (sizes.shared, sizes.group) if sizes.group > 1 else (sizes.heads,)
    lead = (query[0], *born("channel", heads, node.name))
    return lead, query[-2], parts.remembered(key[-2], sizes.keys, node.name)
