"""Recipro-CAM: each position's logit when only it and its neighbours are kept, by half along each axis."""

from __future__ import annotations

from functools import reduce

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.graph.bake._draft import Draft

NEEDS = ("index", "tail")
REACH = 2  # positions until nothing is kept


def write(draft: Draft) -> str:
    """Write the map down, (N, cells). Activations that are the same everywhere give a flat one."""
    cells, shares = draft.form.cells, _shares(draft.form.grid)
    if draft.head is not None:
        kept = draft.op("MatMul", draft.maps, draft.numbers(shares.T / cells))  # (N, K, cells): their means
        pooled = draft.op("Transpose", kept, perm=[0, 2, 1])
        scores = pooled if draft.head.weight is None else draft.op("MatMul", pooled, draft.numbers(draft.head.weight.T))
        scores = draft.op("Add", scores, draft.numbers(draft.head.bias))
    else:
        wide = draft.op("Unsqueeze", draft.maps, draft.ints(1))  # (N, 1, K, cells)
        scores = draft.scores_of(draft.op("Mul", wide, draft.numbers(shares[None, :, None])), cells)
    values = draft.of_class(scores)
    high = draft.op("ReduceMax", draft.maps, draft.ints(2), keepdims=0)  # (N, K)
    low = draft.op("ReduceMin", draft.maps, draft.ints(2), keepdims=0)
    range_ = draft.op("ReduceMax", draft.op("Sub", high, low), draft.ints(1), keepdims=1)  # (N, 1)
    constant = draft.op("Equal", range_, draft.number(0))
    return draft.op("Where", constant, draft.mean(values, 1, keep=True), values)


def _shares(grid: tuple[int, ...]) -> NDArray[np.float32]:
    """Share of every cell that is kept for each one (rows), (cells, cells)."""
    along = [np.maximum(0, 1 - np.abs(np.subtract.outer(np.arange(n), np.arange(n))) / REACH) for n in grid]
    return np.asarray(reduce(np.kron, along), np.float32)
