"""How onnxruntime's fused attentions are differentiated: written out first."""

from __future__ import annotations

import math

from onnx_inspect.graph.input_shapes import fixed
from onnx_inspect.graph.rules._attending import attend, both, by_head, causal, places, together
from onnx_inspect.graph.rules._rows import part
from onnx_inspect.graph.rules._rule import expansion
from onnx_inspect.graph.rules._step import Step

DOMAIN = "com.microsoft"


@expansion("Attention", domain=DOMAIN)
def attention(step: Step) -> list[str]:
    """Self-attention with its projections inside."""
    return projected(step, step.x(0), step.x(1), mask=3, past=4, bias=5)


def projected(step: Step, source: str, weight: str, *, mask: int, past: int, bias: int) -> list[str]:
    """Project to queries, keys and values, and attend; the numbers say where the inputs of each role lie."""
    if step.attribute("do_rotary", 0) or step.attribute("past_present_share_buffer", 0):
        raise step.fail("it turns its queries by their places, or its past and present share a buffer")
    heads = step.attribute("num_heads")
    shape = fixed(step.shape(step.inputs[1]))
    widths = step.attribute("qkv_hidden_sizes") or ([shape[1] // 3] * 3 if shape else None)
    if widths is None:
        raise step.fail("the shape of its weights is unknown")
    made = step.op("MatMul", source, weight)
    if step.has(2):
        made = step.op("Add", made, step.x(2))
    parts = [by_head(step, p, heads) for p in step.ops("Split", 3, made, step.ints(widths), axis=-1)]
    if step.has(past):
        before = [step.op("Gather", step.x(past), step.integer(k), axis=0) for k in (0, 1)]
        parts[1:] = [step.op("Concat", old, new, axis=2) for old, new in zip(before, parts[1:], strict=True)]
        offset = part(step, step.shape_of(step.inputs[past]), 3, 4)
    else:
        offset = step.ints([0])
    context = _attended(step, parts, widths[0] // heads, mask, bias, offset)
    stacked = [step.op("Unsqueeze", name, step.ints([0])) for name in parts[1:]]
    return [context, step.op("Concat", *stacked, axis=0)]


@expansion("MultiHeadAttention", domain=DOMAIN)
def multi_head_attention(step: Step) -> list[str]:
    """Attention of what was projected before; keys may come by head already, or packed with values and queries."""
    if any(step.has(i) for i in (8, 9)):
        raise step.fail("its past and present share a buffer")
    heads, names = step.attribute("num_heads"), [step.x(i) for i in range(3) if step.has(i)]
    ranks = [step.rank(step.inputs[i]) for i in range(3) if step.has(i)]
    if ranks[0] == 5 or (len(ranks) > 1 and ranks[1] == 5):
        packed = ranks.index(5)
        if step.has(3):
            raise step.fail("its queries, keys and values are packed, with a bias")
        taken = [step.op("Gather", names[packed], step.integer(k), axis=3) for k in range(3 - packed)]
        parts = [by_head(step, names[0], heads)] * packed
        parts += [step.op("Transpose", name, perm=[0, 2, 1, 3]) for name in taken]
    else:
        parts = [
            by_head(step, name, heads) if rank == 3 else name
            for name, rank in zip(_biased(step, names, ranks), ranks, strict=True)
        ]
    offset = step.ints([0])
    if step.has(6):
        parts[1:] = [step.op("Concat", step.x(i), new, axis=2) for i, new in zip((6, 7), parts[1:], strict=True)]
        offset = part(step, step.shape_of(step.inputs[6]), 2, 3)
    shape = step.shape(step.inputs[0]) or (None,)
    width = shape[-1] if ranks[0] == 5 else shape[-1] // heads if isinstance(shape[-1], int) else None
    if not isinstance(width, int):
        raise step.fail("nothing tells the width of its heads")
    return [_attended(step, parts, width, 4, 5, offset), *parts[1:]]


def _biased(step: Step, names: list[str], ranks: list[int]) -> list[str]:
    """Queries, keys and values with their parts of the one bias added; keys by head have none."""
    if not step.has(3):
        return names
    shapes = [step.shape(step.inputs[i]) or (None,) for i in range(3)]
    heads = step.attribute("num_heads")
    widths = []
    for shape, rank in zip(shapes, ranks, strict=True):
        last, count = shape[-1], shape[1] if rank == 4 else 1
        if not isinstance(last, int) or not isinstance(count, int):
            raise step.fail("nothing tells the width of its heads")
        widths.append(last * (heads if rank == 4 else 1))
    added = step.ops("Split", 3, step.x(3), step.ints(widths), axis=0)
    return [
        step.op("Add", name, bias) if rank == 3 else name for name, bias, rank in zip(names, added, ranks, strict=True)
    ]


def _attended(step: Step, parts: list[str], width: int, mask: int, bias: int, offset: str) -> str:
    """Context (N, T, heads d) under the masks of both operators."""
    query, key, value = parts
    allowed = _allowed(step, mask, key) if step.has(mask) else ""
    if step.attribute("unidirectional", 0):
        allowed = both(step, allowed, causal(step, query, key, offset))
    scale = step.attribute("scale") or 1 / math.sqrt(width)
    added = step.x(bias) if step.has(bias) else ""
    floor = step.attribute("mask_filter_value", -10000.0)
    made = attend(step, query, key, value, scale=scale, added=added, allowed=allowed, floor=floor)
    return together(step, made.context)


def _allowed(step: Step, mask: int, key: str) -> str:
    """Where keys may be attended to: a row of 0 and 1 for each sample, or for each query, or how long samples are."""
    name, shape = step.inputs[mask], step.shape(step.inputs[mask])
    if shape is None:
        raise step.fail("the shape of its mask is unknown")
    if len(shape) == 1:
        samples = (step.shape(step.inputs[0]) or (None,))[0]
        if isinstance(shape[0], int) and isinstance(samples, int) and shape[0] != samples:
            raise step.fail("its mask holds starts and ends of sequences")
        lengths = step.op("Reshape", step.writer.cast(name, "int64"), step.ints([-1, 1, 1, 1]))
        return step.flag("Less", places(step, key), lengths)
    if len(shape) > 3:
        raise step.fail(f"its mask has {len(shape)} axes")
    whole = step.flag("Greater", step.writer.cast(name, "int64"), step.integer(0))
    return step.op("Unsqueeze", whole, step.ints([1, 2] if len(shape) == 2 else [1]))
