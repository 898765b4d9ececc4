"""XGrad-CAM: ``w_k = sum(A_k g_k) / sum(A_k)``."""

from __future__ import annotations

from onnx_inspect.graph.bake._draft import Draft

NEEDS = ("index", "gradient")


def write(draft: Draft) -> str:
    """Write the map down, (N, cells)."""
    products = draft.total(draft.op("Mul", draft.maps, draft.gradient), 2)
    return draft.weighted(draft.ratio(products, draft.total(draft.maps, 2)))
