"""The standard operator Attention, of operator sets 23 and later."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from onnx_inspect.graph.attention import _decomposed as parts
from onnx_inspect.graph.attention._decomposed import Heads, optional
from onnx_inspect.graph.attention._recipe import Found, Refusal, Sketch, finished, sketch_of, tolerance_of
from onnx_inspect.graph.constants import attribute
from onnx_inspect.graph.factors import Axis, Base, Factor, born
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
    edited: list[onnx.NodeProto] = []
    values = _values(sketch, node, shapes, sizes)
    if decompose:
        soft = _decomposed(sketch, node, shapes, sizes, lineage)
    elif taken:
        soft = node.output[3]
    else:
        soft = f"{sketch.prefix}__probabilities"
        edited += _with_probabilities(node, soft, sizes, lineage)
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


def _with_probabilities(node: onnx.NodeProto, name: str, sizes: Heads, lineage: Lineage) -> list[onnx.NodeProto]:
    """Copy of the node that also gives its probabilities.

    A mask that is the same for all queries is written out for each: the standard lets it be broadcast, the kernel of
    onnxruntime 1.32 doesn't.
    """
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    kept = [a for a in copy.attribute if a.name != "qk_matmul_output_mode"]
    del copy.attribute[:]
    copy.attribute.extend([*kept, onnx.helper.make_attribute("qk_matmul_output_mode", AFTER_SOFTMAX)])
    copy.output[:] = [*copy.output[:3], *[""] * (3 - len(copy.output)), name]
    mask = optional(list(node.input), 3)
    shape = lineage.shape(mask) if mask else None
    if not shape or len(shape) < 2 or shape[-2] == sizes.queries:
        return [copy]
    rows = onnx.helper.make_node("Constant", [], [f"{name}__rows"], name=f"{name}__rows", value_ints=[sizes.queries, 1])
    wide = onnx.helper.make_node("Expand", [mask, rows.output[0]], [f"{name}__mask"], name=f"{name}__mask")
    copy.input[3] = wide.output[0]
    return [rows, wide, copy]


def _decomposed(sketch: Sketch, node: onnx.NodeProto, shapes: Shapes, sizes: Heads, lineage: Lineage) -> str:
    query = parts.by_head(sketch, node.input[0], shapes.query, sizes.heads)
    key = parts.by_head(sketch, node.input[1], shapes.key, sizes.shared)
    if shapes.past:
        key = sketch.concat([sketch.float32(node.input[4]), key], 2)
    scale = float(attribute(node, "scale", 0.0)) or sizes.width**-0.5
    product = parts.scores(sketch, query, key, sizes, scale, float(attribute(node, "softcap", 0.0)))
    mask = optional(list(node.input), 3)
    if mask and lineage.model.tensor(mask).dtype == "bool":
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
    keys = (Factor(Base("position", sizes.keys, node.name, 2, parents=key[-2]), sizes.keys),)
    return lead, query[-2], keys if shapes.past else key[-2]
