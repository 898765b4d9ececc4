"""Grad-CAM: ``L = sum_k mean(dy/dA_k) A_k``."""

from __future__ import annotations

from onnx_inspect.graph.bake._draft import Draft

NEEDS = ("index", "gradient")


def write(draft: Draft) -> str:
    """Write the map down, (N, cells)."""
    return draft.weighted(draft.mean(draft.gradient, 2))
