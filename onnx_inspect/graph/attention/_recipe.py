"""What must be added to a graph so that an attention's probabilities, values and context can be read from it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_inspect.graph.factors import Axes, Axis
from onnx_inspect.graph.lineage import Lineage
from onnx_inspect.graph.model import Layer

EXACT, HALF, QUANTISED = 1e-4, 1e-2, 8e-2  # largest error of a proof, by the coarsest type of number involved


@dataclass(frozen=True)
class Recipe:
    """How one attention's probabilities are had.

    Attributes
    ----------
    layer : Layer
        The node that makes them, or the fused one that hides them.
    kind : str
        ``softmax``, ``Attention``, ``com.microsoft.QAttention``, ...
    nodes, constants : tuple
        To be added to the graph.
    edited : tuple of NodeProto
        To take the place of the graph's nodes of the same name; what has another name goes right before the next that
        hasn't.
    probabilities, values, context : str
        Tensors (..., queries, keys), (..., keys, d) and (..., queries, d) whose leading axes broadcast: the context is
        what the model itself computes.
    lead : tuple of Axis
        Where the leading axes come from: samples, windows, heads.
    queries, keys : Axis
        Where the last two axes of the probabilities come from.
    tolerance : float
        Error of the proof that such numbers may have.
    """

    layer: Layer
    kind: str
    nodes: tuple[onnx.NodeProto, ...]
    constants: tuple[onnx.TensorProto, ...]
    edited: tuple[onnx.NodeProto, ...]
    probabilities: str
    values: str
    context: str
    lead: Axes
    queries: Axis
    keys: Axis
    tolerance: float = EXACT


@dataclass(frozen=True)
class Refusal:
    """A layer that looks like attention, and why its probabilities can't be had."""

    layer: Layer
    reason: str


Found = Recipe | Refusal


@dataclass
class Sketch:
    """Nodes to be added to a model, in the words of its operator set; names start with that of a layer."""

    opset: int
    prefix: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; return its output."""
        name = self._name(op_type)
        self.nodes.append(onnx.helper.make_node(op_type, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: Any, dtype: str = "float32") -> str:
        """Add a constant; return its name."""
        name = self._name("constant")
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def reshape(self, tensor: str, shape: Sequence[int]) -> str:
        """Add a Reshape to a fixed shape, in which one -1 may stand."""
        return self.add("Reshape", tensor, self.constant(shape, "int64"))

    def transpose(self, tensor: str, order: Sequence[int]) -> str:
        """Add a Transpose, where it changes anything."""
        return tensor if list(order) == list(range(len(order))) else self.add("Transpose", tensor, perm=list(order))

    def swapped(self, tensor: str, rank: int) -> str:
        """Swap the last two axes."""
        return self.transpose(tensor, [*range(rank - 2), rank - 1, rank - 2])

    def reduce(self, op_type: str, tensor: str, axes: Sequence[int], *, keep: bool) -> str:
        """Add a reduction; its axes moved from an attribute to an input in opset 13 (sums) and 18 (the rest)."""
        if self.opset >= (13 if op_type == "ReduceSum" else 18):
            return self.add(op_type, tensor, self.constant(list(axes), "int64"), keepdims=int(keep))
        return self.add(op_type, tensor, axes=list(axes), keepdims=int(keep))

    def concat(self, tensors: Sequence[str], axis: int) -> str:
        """Add a Concat of several tensors."""
        return tensors[0] if len(tensors) == 1 else self.add("Concat", *tensors, axis=axis)

    def split(self, tensor: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Cut a tensor along an axis."""
        starts = np.cumsum([0, *sizes])
        return [
            self.add("Gather", tensor, self.constant(np.arange(a, b), "int64"), axis=axis)
            for a, b in itertools.pairwise(starts)
        ]

    def float32(self, tensor: str) -> str:
        """Add a Cast to float32."""
        return self.add("Cast", tensor, to=int(onnx.TensorProto.FLOAT))

    def _name(self, what: str) -> str:
        return f"{self.prefix}__{what}_{len(self.nodes) + len(self.constants)}"


def sketch_of(lineage: Lineage, layer: Layer) -> Sketch:
    """Begin a sketch for one layer of a model."""
    return Sketch(lineage.model.opsets.get("ai.onnx", 1), f"{layer.name}__attention")


def tolerance_of(lineage: Lineage, *names: str) -> float:
    """Error that a proof may have, by the types of some tensors."""
    dtypes = [lineage.dtype(name) for name in names]
    return HALF if any(d in ("float16", "bfloat16") for d in dtypes) else EXACT


def finished(
    sketch: Sketch,
    layer: Layer,
    kind: str,
    tensors: tuple[str, str, str],
    axes: tuple[Axes, Axis, Axis],
    *,
    edited: Sequence[onnx.NodeProto] = (),
    tolerance: float = EXACT,
) -> Recipe:
    """Make a recipe of a sketch, its (probabilities, values, context) and its (leading, query, key) axes."""
    return Recipe(
        layer, kind, tuple(sketch.nodes), tuple(sketch.constants), tuple(edited), *tensors, *axes, tolerance=tolerance
    )
