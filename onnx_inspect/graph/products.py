"""Which axes a product of tensors lines up, whichever operator writes it."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from onnx_inspect.graph.constants import attribute

# Operators that multiply by a matrix: positions of both factors.
PRODUCTS = {
    **dict.fromkeys(("MatMul", "MatMulInteger", "FusedMatMul", "TransposeMatMul", "MatMulIntegerToFloat"), (0, 1)),
    **dict.fromkeys(("Gemm", "FusedGemm", "DynamicQuantizeMatMul", "MatMulNBits"), (0, 1)),
    **dict.fromkeys(("QLinearMatMul", "QGemm"), (0, 3)),
}

Operands = tuple[list[str], list[int], list[str]]


def product_letters(node: onnx.NodeProto, shape: Callable[[str], tuple[int, ...] | None]) -> Operands | None:
    """Read a product of tensors as an Einsum writes it; None where `shape` doesn't know the operands.

    Returns
    -------
    names : list of str
        Its operands.
    ranks : list of int
        Their numbers of axes.
    letters : list of str
        One letter for each axis of each operand, then of the result.
    """
    if node.op_type == "Einsum":
        equation = str(attribute(node, "equation", "")).replace(" ", "")
        if "->" not in equation or "." in equation:
            return None
        left, right = equation.split("->")
        return list(node.input), [len(t) for t in left.split(",")], [*left.split(","), right]
    names = [node.input[i] for i in PRODUCTS[node.op_type]]
    shapes = [shape(n) for n in names]
    if node.op_type == "MatMulNBits" and shapes[0] is not None:
        shapes[1] = (0, 0)  # its weights are packed
    if shapes[0] is None or shapes[1] is None or not shapes[0] or not shapes[1]:
        return None
    ranks = [len(shapes[0]), len(shapes[1])]
    lead = "abcdefghij"[: max(*ranks, 2) - 2]
    a = _operand(node, lead, ranks[0], "mx", "A")
    b = _operand(node, lead, ranks[1], "xn", "B")
    return names, ranks, [a, b, lead + ("m" if ranks[0] > 1 else "") + ("n" if ranks[1] > 1 else "")]


def _operand(node: onnx.NodeProto, lead: str, rank: int, matrix: str, side: str) -> str:
    """Letters of a factor; FusedMatMul may take it with its axes turned around."""
    if rank == 1:
        return "x"
    matrix = matrix[::-1] if attribute(node, f"trans{side}", 0) else matrix
    own = lead[len(lead) - rank + 2 :]
    return matrix[0] + own + matrix[1] if attribute(node, f"transBatch{side}", 0) else own + matrix
