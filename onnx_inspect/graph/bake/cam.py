"""CAM: ``L = sum_k W[c, k] A_k``, where pooling and one linear layer follow the maps."""

from __future__ import annotations

from onnx_inspect.graph.bake._draft import Draft

NEEDS = ("index", "weights")


def write(draft: Draft) -> str:
    """Write the map down, (N, cells)."""
    return draft.weighted(draft.class_weights())
