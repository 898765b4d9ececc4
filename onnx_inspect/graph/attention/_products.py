"""How products of matrices are read, whichever operator writes them: what is contracted, and the real numbers in it."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from onnx_inspect.graph.attention._recipe import EXACT, QUANTISED, Sketch, tolerance_of
from onnx_inspect.graph.constants import attribute
from onnx_inspect.graph.factors import Axes, Axis
from onnx_inspect.graph.lineage import Lineage
from onnx_inspect.graph.products import PRODUCTS, product_letters

Letters = tuple[str, str, str]

# Operators that say their factors' scales and zero points: positions of both; none for a factor of real numbers.
SCALES: dict[str, tuple[tuple[int, int] | None, tuple[int, int] | None]] = {
    "QLinearMatMul": ((1, 2), (4, 5)),
    "QGemm": ((1, 2), (4, 5)),
    "MatMulIntegerToFloat": ((2, 4), (3, 5)),
    "DynamicQuantizeMatMul": (None, (2, 3)),
}
BIAS = {"MatMulIntegerToFloat": 6, "DynamicQuantizeMatMul": 4}  # position of what is added to the product


@dataclass(frozen=True)
class Product:
    """A product of two tensors, each axis under a letter, as an Einsum writes them."""

    node: onnx.NodeProto
    operands: tuple[str, str]
    letters: Letters

    @property
    def contracted(self) -> str:
        """Letters that are summed over."""
        left, right, result = self.letters
        return "".join(c for c in left if c in right and c not in result)

    def axis(self, side: int, letter: str, lineage: Lineage) -> Axis:
        """Where one axis of an operand comes from."""
        axes = lineage.of(self.operands[side])
        return axes[self.letters[side].index(letter)] if len(axes) == len(self.letters[side]) else ()

    def result_axes(self, letters: str, lineage: Lineage) -> Axes:
        """Where axes of the result come from, by their letters; those that it doesn't have are left out."""
        axes = lineage.of(self.node.output[0])
        return tuple(axes[self.letters[2].index(c)] for c in letters if c in self.letters[2])


def product(node: onnx.NodeProto, lineage: Lineage) -> Product | None:
    """Read a node as a product of two tensors; None where it is none, or shapes are unknown."""
    if node.op_type != "Einsum" and (node.op_type not in PRODUCTS or node.op_type == "MatMulNBits"):
        return None
    found = product_letters(node, lineage.shape)
    if found is None or len(found[0]) != 2 or any(len(set(t)) < len(t) for t in found[2]):
        return None
    names, ranks, letters = found
    if min(ranks) < 2:
        return None
    return Product(node, (names[0], names[1]), (letters[0], letters[1], letters[2]))


def real(found: Product, side: int, lineage: Lineage, sketch: Sketch) -> str | None:
    """Give an operand as real numbers: what stands for quantised steps is computed; None where their scale is lost."""
    name, node = found.operands[side], found.node
    places = SCALES.get(node.op_type, (None, None))[side]
    if places is not None:
        scale, zero = places
        point = node.input[zero] if zero < len(node.input) else ""
        return sketch.add("DequantizeLinear", *filter(None, (name, node.input[scale], point)))
    if node.op_type == "MatMulInteger":
        maker = lineage.model.producers.get(name)
        while maker is not None and maker.op_type in ("Transpose", "Reshape", "Identity"):
            maker = lineage.model.producers.get(maker.input[0])
        if maker is not None and maker.op_type == "DynamicQuantizeLinear":
            return sketch.add("DequantizeLinear", name, maker.output[1], maker.output[2])
        if maker is not None and maker.op_type == "QuantizeLinear":
            return sketch.add("DequantizeLinear", name, *maker.input[1:3])
        return None
    return name


def outcome(found: Product, lineage: Lineage, sketch: Sketch) -> str | None:
    """Give what a product made as real numbers; None where its scale is lost."""
    node = found.node
    made = node.output[0]
    if node.op_type == "QLinearMatMul":
        return sketch.add("DequantizeLinear", made, node.input[6], node.input[7])
    if node.op_type == "QGemm" and len(node.input) > 7:
        return sketch.add("DequantizeLinear", made, *node.input[7:9])
    if node.op_type == "MatMulInteger":
        for step in ("Cast", "Mul"):
            readers = [n for n in lineage.model.consumers.get(made, []) if n.op_type == step]
            if not readers:
                return None
            made = readers[0].output[0]
    bias = BIAS.get(node.op_type, len(node.input))
    if bias < len(node.input) and node.input[bias]:
        made = sketch.add("Sub", made, node.input[bias])
    alpha = float(attribute(node, "alpha", 1.0))
    return made if alpha == 1 else sketch.add("Div", made, sketch.constant(alpha))


def tolerance(found: Product, lineage: Lineage) -> float:
    """Error that the proof of such a product may have."""
    if found.node.op_type in SCALES or found.node.op_type == "MatMulInteger":
        return QUANTISED
    for name in (*found.operands, found.node.output[0]):
        maker = lineage.model.producers.get(name)
        readers = lineage.model.consumers.get(name, [])
        nodes = [*([maker] if maker is not None else []), *readers]
        if any(n.op_type in ("QuantizeLinear", "DequantizeLinear") for n in nodes):
            return QUANTISED
    return max(EXACT, tolerance_of(lineage, *found.operands))
