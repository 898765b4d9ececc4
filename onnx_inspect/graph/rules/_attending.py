"""How attention is computed by elementary operators, whatever fused operator it was written as."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_inspect.graph.rules._rows import part
from onnx_inspect.graph.rules._step import Step

NEVER = -1e30  # added to the score of what may not be attended to; exp makes it 0, and no infinity gives a NaN


@dataclass(frozen=True)
class Attended:
    """What attention makes of queries (N, M, T, d), keys and values (N, M, S, d).

    `products` are the scaled ones before anything is added, `capped` those after the soft cap, `scores` with all masks;
    `shares` are the softmax; `context` is (N, M, T, d).
    """

    products: str
    capped: str
    scores: str
    shares: str
    context: str


def attend(
    step: Step,
    query: str,
    key: str,
    value: str,
    *,
    scale: float | str,
    added: str = "",
    allowed: str = "",
    softcap: float = 0.0,
    floor: float = NEVER,
) -> Attended:
    """Attend to keys by queries.

    Parameters
    ----------
    scale : float or str
        A number, or the tensor that holds it.
    added : str
        Tensor that is added to the scores, "" for none.
    allowed : str
        Tensor of 1 where a key may be attended to and 0 elsewhere, "" where all may.
    floor : float
        What is added to the scores of other keys. A query that may attend to nothing gets zeros where it is `NEVER`.
    """
    factor = scale if isinstance(scale, str) else step.number(scale)
    products = step.op("MatMul", step.op("Mul", query, factor), step.op("Transpose", key, perm=[0, 1, 3, 2]))
    capped = products
    if softcap:
        bend = step.op("Tanh", step.op("Div", products, step.number(softcap)))
        capped = step.op("Mul", bend, step.number(softcap))
    scores = step.op("Add", capped, added) if added else capped
    if allowed:
        blocked = step.op("Mul", step.op("Sub", step.number(1), allowed), step.number(floor))
        scores = step.op("Add", scores, blocked)
    shares = step.op("Softmax", scores, axis=-1)
    if allowed and floor == NEVER:
        shares = step.op("Mul", shares, allowed)
    return Attended(products, capped, scores, shares, step.op("MatMul", shares, value))


def by_head(step: Step, name: str, heads: int) -> str:
    """(N, T, heads d) as (N, heads, T, d)."""
    apart = step.op("Reshape", name, step.ints([0, 0, heads, -1]))
    return step.op("Transpose", apart, perm=[0, 2, 1, 3])


def together(step: Step, name: str) -> str:
    """(N, heads, T, d) as (N, T, heads d)."""
    return step.op("Reshape", step.op("Transpose", name, perm=[0, 2, 1, 3]), step.ints([0, 0, -1]))


def repeated(step: Step, name: str, times: int) -> str:
    """Keys or values (N, K, S, d) of which each serves several queries' heads, as (N, K times, S, d)."""
    if times == 1:
        return name
    shape = step.op("Shape", name)
    copies = step.op("Expand", step.op("Unsqueeze", name, step.ints([2])), step.ints([1, 1, times, 1, 1]))
    heads = step.op("Mul", part(step, shape, 1, 2), step.ints([times]))
    return step.op("Reshape", copies, step.op("Concat", step.ints([0]), heads, part(step, shape, 2), axis=0))


def causal(step: Step, query: str, key: str, offset: str, comparison: str = "LessOrEqual") -> str:
    """1 where a key is no later than the query, (T, S) or (N, 1, T, S); `offset` is the place of the first query.

    Another comparison, or a shifted offset, gives windows.
    """
    rows, columns = places(step, query), places(step, key)
    rows = step.op("Add", step.op("Unsqueeze", rows, step.ints([1])), offset)
    return step.flag(comparison, columns, rows)


def places(step: Step, name: str) -> str:
    """0, 1, ... along the tokens of (N, M, T, d)."""
    count = step.op("Squeeze", part(step, step.op("Shape", name), 2, 3), step.ints([0]))
    return step.op("Range", step.integer(0), count, step.integer(1))


def both(step: Step, one: str, other: str) -> str:
    """1 where both are 1; either may be "" for 1 everywhere."""
    return step.op("Mul", one, other) if one and other else one or other


def rotated(step: Step, x: str, cosine: str, sine: str, widths: tuple[int, int], *, interleaved: int) -> str:
    """Turn pairs of channels of (N, T, heads, d) by angles (..., T, 1, width / 2); what lies behind `width` stays.

    `widths` are the width that is turned and d; pairs are neighbours where they are interleaved, else a half apart.
    """
    width, whole = widths
    first, *rest = [x] if whole == width else step.ops("Split", 2, x, step.ints([width, whole - width]), axis=-1)
    half = width // 2
    if interleaved:
        pairs = step.op("Reshape", first, step.ints([0, 0, 0, half, 2]))
        sides = step.ops("Split", 2, pairs, step.ints([1, 1]), axis=-1)
        one, other = (step.op("Squeeze", name, step.ints([-1])) for name in sides)
    else:
        one, other = step.ops("Split", 2, first, step.ints([half, half]), axis=-1)
    real = step.op("Sub", step.op("Mul", one, cosine), step.op("Mul", other, sine))
    imaginary = step.op("Add", step.op("Mul", one, sine), step.op("Mul", other, cosine))
    if interleaved:
        apart = [step.op("Unsqueeze", name, step.ints([-1])) for name in (real, imaginary)]
        made = step.op("Reshape", step.op("Concat", *apart, axis=-1), step.ints([0, 0, 0, -1]))
    else:
        made = step.op("Concat", real, imaginary, axis=-1)
    return step.op("Concat", made, *rest, axis=-1) if rest else made
