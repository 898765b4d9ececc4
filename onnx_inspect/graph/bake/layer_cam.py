"""LayerCAM: ``L = sum_k A_k relu(g_k)``."""

from __future__ import annotations

from onnx_inspect.graph.bake._draft import Draft

NEEDS = ("index", "gradient")


def write(draft: Draft) -> str:
    """Write the map down, (N, cells)."""
    return draft.total(draft.op("Mul", draft.maps, draft.op("Relu", draft.gradient)), 1)
