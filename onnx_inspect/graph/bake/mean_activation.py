"""Mean activation: ``L = 1/K sum_k A_k``."""

from __future__ import annotations

from onnx_inspect.graph.bake._draft import Draft

NEEDS = ()


def write(draft: Draft) -> str:
    """Write the map down, (N, cells)."""
    return draft.mean(draft.maps, 1)
