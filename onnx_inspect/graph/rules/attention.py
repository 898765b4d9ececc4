"""How the standard attention operators are differentiated: written out, then as what they are written in."""

from __future__ import annotations

import math

from onnx_inspect.graph.rules._attending import (
    NEVER,
    attend,
    both,
    by_head,
    causal,
    places,
    repeated,
    rotated,
    together,
)
from onnx_inspect.graph.rules._rows import part
from onnx_inspect.graph.rules._rule import expansion
from onnx_inspect.graph.rules._step import Step


@expansion("Attention")
def attention(step: Step) -> list[str]:
    """Scaled dot products of opset 23 and later: grouped heads, masks, causality, soft caps, a past."""
    flat = step.rank(step.inputs[0]) == 3
    heads = [step.attribute("q_num_heads"), step.attribute("kv_num_heads"), step.attribute("kv_num_heads")]
    names = [step.x(i) for i in range(3)]
    if flat:
        if None in heads:
            raise step.fail("nothing tells how many heads it has")
        names = [by_head(step, name, int(count or 1)) for name, count in zip(names, heads, strict=True)]
    else:
        heads = [(step.shape(step.inputs[i]) or (None, None))[1] for i in range(3)]
    query, key, value = names
    if step.has(4):
        key, value = (step.op("Concat", step.x(i), name, axis=2) for i, name in ((4, key), (5, value)))
    present = [key, value]
    if not isinstance(heads[0], int) or not isinstance(heads[1], int):
        raise step.fail("nothing tells how many heads it has")
    key, value = (repeated(step, name, heads[0] // heads[1]) for name in (key, value))
    added, allowed = _mask(step, query, key)
    made = attend(
        step,
        query,
        key,
        value,
        scale=step.attribute("scale") or _usual_scale(step, heads[0] if flat else 1),
        added=added,
        allowed=allowed,
        softcap=step.attribute("softcap", 0.0),
    )
    shown = (made.products, made.capped, made.scores, made.shares)[step.attribute("qk_matmul_output_mode", 0)]
    return [together(step, made.context) if flat else made.context, *present, shown]


def _usual_scale(step: Step, heads: int) -> float:
    """1 over the root of a head's width."""
    width = (step.shape(step.inputs[0]) or (None,))[-1]
    if not isinstance(width, int):
        raise step.fail("nothing tells the width of its heads")
    return 1 / math.sqrt(width // heads)


def _mask(step: Step, query: str, key: str) -> tuple[str, str]:
    """What is added to the scores, and where a key may be attended to."""
    added = allowed = ""
    if step.has(3):
        if step.writer.spec(step.inputs[3]).dtype == "bool":
            allowed = step.writer.cast(step.inputs[3], step.dtype)
        else:
            added = step.op("Max", step.x(3), step.number(NEVER))
            allowed = step.flag("Greater", step.x(3), step.number(NEVER))
        allowed, added = (_lengthened(step, name, key) for name in (allowed, added))
    offset = step.integer(0)
    if step.has(6):
        lengths = step.op("Reshape", step.inputs[6], step.ints([-1, 1, 1, 1]))
        allowed = both(step, allowed, step.flag("Less", places(step, key), lengths))
        offset = step.op("Sub", lengths, part(step, step.op("Shape", query), 2, 3))
    elif step.has(4):
        offset = part(step, step.shape_of(step.inputs[4]), 2, 3)
    if step.attribute("is_causal", 0):
        allowed = both(step, allowed, causal(step, query, key, offset))
    for side, comparison, sign in (("left", "GreaterOrEqual", -1), ("right", "LessOrEqual", 1)):
        if (reach := step.attribute(f"{side}_window_size", -1)) >= 0:
            end = step.op("Add", offset, step.integer(sign * reach))
            allowed = both(step, allowed, causal(step, query, key, end, comparison))
    return added, allowed


def _lengthened(step: Step, mask: str, key: str) -> str:
    """A mask that ends before the keys do, with zeros after it: they are padding."""
    if not mask or not step.has(6):
        return mask
    missing = step.op("Sub", part(step, step.op("Shape", key), 2, 3), part(step, step.op("Shape", mask), -1))
    pads = step.op("Concat", step.ints([0]), missing, axis=0)
    return step.op("Pad", mask, pads, "", step.ints([-1]))


@expansion("RotaryEmbedding")
def rotary_embedding(step: Step) -> list[str]:
    """Pairs of channels turned by angles that grow with the place, of opset 23 and later."""
    shape, table = step.shape(step.inputs[0]) or (None,), step.shape(step.inputs[1]) or (None,)
    flat = len(shape) == 3
    width, half = shape[-1], table[-1]
    if not isinstance(width, int) or not isinstance(half, int):
        raise step.fail("nothing tells the width of its heads")
    heads = step.attribute("num_heads", 0) if flat else 1
    if not heads:
        raise step.fail("nothing tells how many heads it has")
    if flat:
        x = step.op("Reshape", step.x(0), step.ints([0, 0, heads, -1]))
    else:
        x = step.op("Transpose", step.x(0), perm=[0, 2, 1, 3])  # (N, T, heads, d)
    tables = [step.x(i) for i in (1, 2)]
    if step.has(3):
        tables = [step.op("Gather", name, step.inputs[3], axis=0) for name in tables]
    cosine, sine = (step.op("Unsqueeze", name, step.ints([2])) for name in tables)
    made = rotated(step, x, cosine, sine, (2 * half, width // heads), interleaved=step.attribute("interleaved", 0))
    return [step.like(made, step.inputs[0]) if flat else step.op("Transpose", made, perm=[0, 2, 1, 3])]
