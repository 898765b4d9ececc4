"""Grad-CAM++: ``w_k = sum a relu(g)`` with ``a = g^2 / (2 g^2 + sum(A) g^3)``."""

from __future__ import annotations

from onnx_inspect.graph.bake._draft import Draft

NEEDS = ("index", "gradient")


def write(draft: Draft) -> str:
    """Write the map down, (N, cells)."""
    g = draft.gradient
    square = draft.op("Mul", g, g)
    cubes = draft.op("Mul", draft.op("Mul", square, g), draft.total(draft.maps, 2, keep=True))
    shares = draft.ratio(square, draft.op("Add", draft.op("Mul", square, draft.number(2)), cubes))
    return draft.weighted(draft.total(draft.op("Mul", shares, draft.op("Relu", g)), 2))
