"""Ablation-CAM: ``w_k = (y - y_k) / |y|`` with channel k set to 0."""

from __future__ import annotations

import numpy as np

from onnx_inspect.graph.bake._draft import Draft

NEEDS = ("index", "tail")


def write(draft: Draft) -> str:
    """Write the map down, (N, cells)."""
    base = draft.total(draft.op("Mul", draft.scores, draft.hot), 1, keep=True)  # (N, 1)
    if draft.head is not None:
        losses = draft.op("Mul", draft.class_weights(), draft.mean(draft.maps, 2))
    else:
        wide = draft.op("Unsqueeze", draft.maps, draft.ints(1))  # (N, 1, K, cells)
        without = draft.numbers((1 - np.eye(draft.channels))[None, :, :, None])  # (1, K, K, 1)
        variants = draft.op("Mul", wide, without)
        losses = draft.op("Sub", base, draft.of_class(draft.scores_of(variants, draft.channels)))
    size = draft.op("Abs", base)
    size = draft.op("Where", draft.op("Equal", size, draft.number(0)), draft.number(1), size)
    return draft.weighted(draft.op("Div", losses, size))
