"""Eigen-CAM: ``L = A v1``, v1 by repeated squaring of the Gram matrix of positions.

``G = A' A`` over positions; ``G^(2^n)``, scaled to its trace at each step, tends to the projection on the first
eigenvector; ``L = sqrt(lambda) u`` with the sign that makes the largest magnitude positive. A second eigenvalue of 0.95
times the first has fallen to 2e-6 after eight squarings.
"""

from __future__ import annotations

from onnx_inspect.graph.bake._draft import Draft

NEEDS = ()
SQUARINGS = 8
TINY = 1e-30


def write(draft: Draft) -> str:
    """Write the map down, (N, cells)."""
    gram = draft.op("MatMul", draft.op("Transpose", draft.maps, perm=[0, 2, 1]), draft.maps)  # (N, cells, cells)
    power = _scaled(draft, gram)
    for _ in range(SQUARINGS):
        power = _scaled(draft, draft.op("MatMul", power, power))
    start = draft.op("ReduceSum", gram, draft.ints(2), keepdims=1)  # (N, cells, 1): how each position goes with all
    vector = draft.op("MatMul", power, start)
    vector = draft.op("Div", vector, _above_zero(draft, draft.op("ReduceL2", vector, draft.ints(1), keepdims=1)))
    moved = draft.op("MatMul", gram, vector)
    value = draft.op("ReduceSum", draft.op("Mul", vector, moved), draft.ints(1), keepdims=1)
    scores = draft.op("Mul", vector, draft.op("Sqrt", draft.op("Relu", value)))
    high = draft.op("ReduceMax", scores, draft.ints(1), keepdims=1)
    low = draft.op("ReduceMin", scores, draft.ints(1), keepdims=1)
    down = draft.op("Less", draft.op("Add", high, low), draft.number(0))
    signed = draft.op("Where", down, draft.op("Neg", scores), scores)
    return draft.op("Squeeze", signed, draft.ints(2))


def _scaled(draft: Draft, matrix: str) -> str:
    size = draft.op("ReduceL2", matrix, draft.ints(1, 2), keepdims=1)
    return draft.op("Div", matrix, _above_zero(draft, size))


def _above_zero(draft: Draft, size: str) -> str:
    return draft.op("Max", size, draft.number(TINY))
