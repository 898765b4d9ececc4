"""Recipro-CAM: each position's score when it is kept alone, as a probability where the scores are logits."""

from __future__ import annotations

import numpy as np

from onnx_inspect.graph.bake._draft import Draft

NEEDS = ("index", "tail")


def write(draft: Draft) -> str:
    """Write the map down, (N, cells)."""
    cells = draft.form.cells
    if draft.head is not None:
        rows = draft.op("Transpose", draft.maps, perm=[0, 2, 1])  # (N, cells, K)
        pooled = draft.op("Mul", rows, draft.number(1 / cells))
        scores = pooled if draft.head.weight is None else draft.op("MatMul", pooled, draft.numbers(draft.head.weight.T))
        scores = draft.op("Add", scores, draft.numbers(draft.head.bias))
    else:
        wide = draft.op("Unsqueeze", draft.maps, draft.ints(1))  # (N, 1, K, cells)
        alone = draft.numbers(np.eye(cells)[None, :, None])  # (1, cells, 1, cells)
        scores = draft.scores_of(draft.op("Mul", wide, alone), cells)
    return draft.of_class(draft.squashed(scores))
