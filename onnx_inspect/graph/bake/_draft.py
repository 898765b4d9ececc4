"""What a baked method is given of a model, and how it writes its map down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnx_inspect.errors import MethodError
from onnx_inspect.graph.linear import LinearHead
from onnx_inspect.graph.model import node_inputs
from onnx_inspect.graph.rules._writer import FLOAT, Writer
from onnx_inspect.graph.spatial import Spatial
from onnx_inspect.graph.surgery import Cut


@dataclass(frozen=True)
class Draft:
    """A layer's maps in one form, and nodes to be added.

    Attributes
    ----------
    writer : Writer
    tensor : str
        The layer's own tensor.
    form : Spatial
        How its axes lie.
    maps : str
        The layer's maps, (N, K, cells), float32.
    channels : int
    scores : str
        Class scores (N, classes), float32; "" where the method looks at no class.
    hot : str
        1 for each sample's class, 0 for the others, (N, classes); "" like `scores`.
    gradient : str
        Gradient of that class's score by the maps, shaped like them; "" where nobody asked for it.
    head : LinearHead or None
        What follows the layer, where that is pooling and one linear layer.
    tail : Cut or None
        The model cut at the layer, its tail free to take any batch; None where nobody asked for it.
    """

    writer: Writer
    tensor: str
    form: Spatial
    maps: str
    channels: int
    scores: str = ""
    hot: str = ""
    gradient: str = ""
    head: LinearHead | None = None
    tail: Cut | None = None

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output and return the output's name."""
        return self.writer.op(kind, *inputs, **attributes)

    def number(self, value: float) -> str:
        """Constant scalar."""
        return self.writer.constant(np.array(value, FLOAT))

    def numbers(self, values: Any) -> str:
        """Constant array of float32."""
        return self.writer.constant(np.asarray(values, FLOAT))

    def ints(self, *values: int) -> str:
        """Constant list of int64."""
        return self.writer.constant(list(values))

    def total(self, tensor: str, *axes: int, keep: bool = False) -> str:
        """Sum over axes."""
        return self.op("ReduceSum", tensor, self.ints(*axes), keepdims=int(keep))

    def mean(self, tensor: str, *axes: int, keep: bool = False) -> str:
        """Mean over axes."""
        return self.op("ReduceMean", tensor, self.ints(*axes), keepdims=int(keep))

    def weighted(self, weights: str) -> str:
        """Sum of the channels, (N, cells), each times its weight (N, K)."""
        row = self.op("Unsqueeze", weights, self.ints(1))  # (N, 1, K)
        return self.op("Squeeze", self.op("MatMul", row, self.maps), self.ints(1))

    def ratio(self, above: str, below: str) -> str:
        """``above / below``, 0 where `below` is."""
        zero = self.op("Equal", below, self.number(0))
        safe = self.op("Where", zero, self.number(1), below)
        return self.op("Where", zero, self.number(0), self.op("Div", above, safe))

    def canonical(self, tensor: str) -> str:
        """Show a tensor of the layer's form as (N, K, cells), float32: prefix tokens left out."""
        tensor = self.writer.cast(tensor, FLOAT)
        if self.form.form == "tokens":
            stop = self.form.prefix + self.form.cells
            tensor = self.op("Slice", tensor, self.ints(self.form.prefix), self.ints(stop), self.ints(1))
            return self.op("Transpose", tensor, perm=[0, 2, 1])
        if self.form.form == "channels-last":
            rank = len(self.form.grid) + 2
            tensor = self.op("Transpose", tensor, perm=[0, rank - 1, *range(1, rank - 1)])
        return self.op("Reshape", tensor, self.ints(0, 0, -1))

    def class_weights(self) -> str:
        """Weights of the linear tail for each sample's class, (N, K)."""
        assert self.head is not None
        if self.head.weight is None:
            return self.hot
        return self.op("MatMul", self.hot, self.numbers(self.head.weight))

    def scores_of(self, variants: str, count: int) -> str:
        """Class scores (N, count, classes) of variants of the maps, (N, count, K, cells), by the tail."""
        assert self.tail is not None
        tail, writer = self.tail.tail, self.writer
        shown = self._restored(variants, count)
        renamed = {self.tail.tensor: writer.cast(shown, writer.spec(self.tensor).dtype or FLOAT)}
        for name in self.tail.crossing:
            renamed[name] = name if name in tail.shared else self._repeated(name, count)
        own = writer.model.constants
        writer.stored.update({t.name: t for t in tail.proto.graph.initializer if t.name not in own})
        for node in tail.proto.graph.node:
            writer.copy(node, renamed)
        scores = writer.cast(renamed[tail.outputs[0].name], FLOAT)
        classes = writer.op("Shape", self.scores, start=1)
        shape = writer.op("Concat", self.ints(-1, count), classes, axis=0)
        return self.op("Reshape", scores, shape)

    def of_class(self, scores: str) -> str:
        """Scores (N, count) of each sample's class, from scores (N, count, classes)."""
        hot = self.op("Unsqueeze", self.hot, self.ints(2))  # (N, classes, 1)
        return self.op("Squeeze", self.op("MatMul", scores, hot), self.ints(2))

    def _restored(self, variants: str, count: int) -> str:
        """Variants (N, count, K, cells) in the layer's own form, (N * count, ...)."""
        flat = self.op("Reshape", variants, self.ints(-1, self.channels, self.form.cells))
        if self.form.form == "channels-first":
            return self.op("Reshape", flat, self.ints(-1, self.channels, *self.form.grid))
        rows = self.op("Transpose", flat, perm=[0, 2, 1])
        if self.form.form == "channels-last":
            return self.op("Reshape", rows, self.ints(-1, *self.form.grid, self.channels))
        parts = [rows]
        tensor, stop = self.writer.cast(self.tensor, FLOAT), self.form.prefix + self.form.cells
        if self.form.prefix:
            first = self.op("Slice", tensor, self.ints(0), self.ints(self.form.prefix), self.ints(1))
            parts.insert(0, self._repeated(first, count))
        known = self.writer.spec(self.tensor).shape
        if known is None or known[1] != stop:
            raise MethodError(f"only the first tokens of {self.tensor!r} are known to be a class's or patches'")
        return self.op("Concat", *parts, axis=1) if len(parts) > 1 else rows

    def _repeated(self, name: str, count: int) -> str:
        """Each sample `count` times, (N * count, ...)."""
        wide = self.op("Unsqueeze", name, self.ints(1))
        own = self.op("Shape", name)
        rest = self.op("Slice", own, self.ints(1), self.ints(2**31), self.ints(0))
        first = self.op("Slice", own, self.ints(0), self.ints(1), self.ints(0))
        spread = self.op("Expand", wide, self.op("Concat", first, self.ints(count), rest, axis=0))
        return self.op("Reshape", spread, self.op("Concat", self.ints(-1), rest, axis=0))


def used(nodes: Sequence[onnx.NodeProto], wanted: Sequence[str]) -> list[onnx.NodeProto]:
    """Those nodes that the wanted tensors are made of, in their order."""
    needed, kept = set(wanted), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node_inputs(node))
    return kept[::-1]
