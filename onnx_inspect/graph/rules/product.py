"""How matrix products are differentiated."""

from __future__ import annotations

from onnx_inspect.graph.model import Dim
from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step


@rule("Gemm")
def gemm(step: Step) -> Gradients:
    """``Y = alpha A' B' + beta C``: ``dA' = alpha G B'^T``, ``dB' = alpha A'^T G``, turned where A' is A^T."""
    alpha, beta = step.attribute("alpha", 1.0), step.attribute("beta", 1.0)
    turned_a, turned_b = step.attribute("transA", 0), step.attribute("transB", 0)
    found = {}
    if step.wants(0):
        found[0] = (
            step.op("Gemm", step.x(1), step.g, alpha=alpha, transA=turned_b, transB=1)
            if turned_a
            else step.op("Gemm", step.g, step.x(1), alpha=alpha, transB=1 - turned_b)
        )
    if step.wants(1):
        found[1] = (
            step.op("Gemm", step.g, step.x(0), alpha=alpha, transA=1, transB=turned_a)
            if turned_b
            else step.op("Gemm", step.x(0), step.g, alpha=alpha, transA=1 - turned_a)
        )
    if step.wants(2):
        scaled = step.g if beta == 1 else step.op("Mul", step.g, step.number(beta))
        found[2] = step.sum_to(scaled, 2)
    return found


@rule("MatMul")
def matmul(step: Step) -> Gradients:
    """``dA = G B^T``, ``dB = A^T G``, summed over the axes along which stacks of matrices were broadcast.

    A vector is a matrix of one row (on the left) or one column (on the right).
    """
    ranks = [step.rank(step.inputs[i]) for i in (0, 1)]
    g, a, b = step.g, step.x(0), step.x(1)
    if ranks[1] == 1:
        g, b = step.op("Unsqueeze", g, step.ints([-1])), step.op("Unsqueeze", b, step.ints([1]))
    if ranks[0] == 1:
        g, a = step.op("Unsqueeze", g, step.ints([-2])), step.op("Unsqueeze", a, step.ints([0]))
    found = {}
    if step.wants(0):
        found[0] = _stacked(step, step.op("MatMul", g, _turned(step, b, max(ranks[1], 2))), 0, ranks)
    if step.wants(1):
        found[1] = _stacked(step, step.op("MatMul", _turned(step, a, max(ranks[0], 2)), g), 1, ranks)
    return found


def _turned(step: Step, name: str, rank: int) -> str:
    """Transpose the last two axes."""
    return step.op("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2])


def _stacked(step: Step, gradient: str, i: int, ranks: list[int]) -> str:
    """Sum over the broadcast stack axes, and drop the axis that a vector had been given."""
    if ranks[i] == 1:
        return step.like(step.total(gradient, list(range(max(ranks) - 2)), keep=False), step.inputs[i])
    if ranks[1 - i] <= 2:
        return gradient if ranks[i] > 2 or ranks[1 - i] <= 2 else step.sum_to(gradient, i)
    own, made = step.shape(step.inputs[i]), step.shape(step.outputs[0])
    whole: tuple[Dim, ...] | None = None if own is None or made is None else (*made[:-2], *own[-2:])
    return step.sum_to(gradient, i, whole)
