"""Where each axis of each tensor comes from: samples, positions of the input, channels of a projection."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from onnx_inspect.errors import ModelError
from onnx_inspect.graph.batch import batch_axes
from onnx_inspect.graph.bodies import CONTROL_FLOW
from onnx_inspect.graph.constants import attribute, evaluate, read
from onnx_inspect.graph.dependence import SHAPE_READERS, dependent
from onnx_inspect.graph.factors import RANK, Axes, Axis, Base, Factor, born, joined, kind, picked, reshaped, size
from onnx_inspect.graph.model import Model, dtype_name
from onnx_inspect.graph.products import PRODUCTS, product_letters
from onnx_inspect.graph.shapes import SMALL

Shapes = Mapping[str, tuple[int, ...]]
DEEPEST = 200  # nodes that the numbers of one shape are followed back through

WINDOWED = {  # operators over a window of positions, channels first
    *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv", "MaxPool", "AveragePool", "LpPool"),
    *("Resize", "Upsample", "GlobalAveragePool", "GlobalMaxPool", "QLinearAveragePool", "QLinearGlobalAveragePool"),
}
REARRANGED = {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}
FUSED = {"Attention", "QAttention", "MultiHeadAttention", "GroupQueryAttention", "PackedAttention"}


@dataclass(eq=False)
class Lineage:
    """Axes of a model's tensors, for concrete shapes.

    Attributes
    ----------
    data : set of str
        Tensors whose values hang on an input's; the rest are weights and shapes.
    """

    model: Model
    shapes: Shapes
    data: set[str] = field(init=False)
    axes: dict[str, Axes] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.data = dependent(self.model.proto.graph, [i.name for i in self.model.inputs])
        self._values: dict[str, Any] = {}
        batch = batch_axes(self.model)
        for spec in self.model.inputs:
            shape = self.shapes.get(spec.name, ())
            self.axes[spec.name] = tuple(
                (Factor(Base("sample" if i == batch[spec.name] else "position", n, spec.name, i), n),)
                for i, n in enumerate(shape)
            )
        for node in self.model.proto.graph.node:
            for name in node.output:
                if name in self.data and name in self.shapes:
                    found = _rule(node)(self, node, name)
                    self.axes[name] = self._checked(found, name)

    def of(self, name: str) -> Axes:
        """Axes of a tensor; of a constant each is its own beginning."""
        if name not in self.axes:
            shape = self.shapes.get(name)
            if shape is None and name in self.model.constants:
                shape = tuple(self.model.constants[name].dims)
            self.axes[name] = born("other" if name in self.data else "constant", shape or (), name)
        return self.axes[name]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Concrete shape of a tensor or constant; None where it isn't known."""
        if name in self.shapes:
            return self.shapes[name]
        return tuple(self.model.constants[name].dims) if name in self.model.constants else None

    def dtype(self, name: str) -> str:
        """Numpy's name of a tensor's or a constant's type; "" where nobody says."""
        stored = self.model.constants.get(name)
        return self.model.tensor(name).dtype if stored is None else dtype_name(stored.data_type)

    def value(self, name: str) -> Any:
        """Numbers of a constant, or of what only shapes decide; None where an input has a say, or it can't be told."""
        if not name:
            return None
        waiting = [name]
        while waiting:
            current = waiting[-1]
            node = self.model.producers.get(current)
            needed = (
                [] if node is None or node.op_type in ("Constant", *SHAPE_READERS) else [n for n in node.input if n]
            )
            missing = [n for n in needed if n not in self._values and n not in self.data]
            if current not in self._values and missing and len(waiting) < DEEPEST:
                waiting.append(missing[0])
                continue
            self._values.setdefault(current, self._worked_out(current, node))
            waiting.pop()
        return self._values[name]

    def _worked_out(self, name: str, node: onnx.NodeProto | None) -> Any:
        """Numbers of a tensor whose node's inputs are known."""
        shape = self.shape(name)
        if name in self.data or shape is None or math.prod(shape) > SMALL:
            return None
        try:
            if name in self.model.constants:
                return read(self.model.constants[name], self.model)
            if node is None:
                return None
            if node.op_type == "Shape":
                known = self.shape(node.input[0])
                part = slice(attribute(node, "start", 0), attribute(node, "end", None))
                return None if known is None else np.array(known[part], np.int64)
            inputs = [self._values.get(n) if n else None for n in node.input]
            if node.op_type in CONTROL_FLOW or any(v is None and n for v, n in zip(inputs, node.input, strict=True)):
                return None
            return evaluate(node, inputs, self.model)[list(node.output).index(name)]
        except ModelError:
            return None

    def channels(self, name: str, axis: int) -> Axis:
        """New axis of channels of a tensor."""
        count = self.shapes[name][axis]
        return (Factor(Base("channel", count, name, axis), count),)

    def _checked(self, found: Axes | None, name: str) -> Axes:
        """Axes found, where their sizes are the tensor's."""
        shape = self.shapes[name]
        if found is None or len(found) != len(shape):
            return born("other", shape, name)
        return tuple(
            axis if size(axis) == n else (Factor(Base("other", n, name, i), n),)
            for i, (axis, n) in enumerate(zip(found, shape, strict=True))
        )


Rule = Callable[[Lineage, onnx.NodeProto, str], Axes | None]


def _rule(node: onnx.NodeProto) -> Rule:
    if node.op_type in PRODUCTS or node.op_type == "Einsum":
        return _product
    if node.op_type in WINDOWED:
        return _window
    if node.op_type in REARRANGED:
        return _rearrange
    if node.op_type in FUSED:
        return _fused
    if node.op_type.startswith("Reduce"):
        return _reduce
    return RULES.get(node.op_type, _elementwise)


def _elementwise(lineage: Lineage, node: onnx.NodeProto, name: str) -> Axes | None:
    """Line inputs up at their last axes, as broadcasting does; what says most of an axis wins."""
    shape = lineage.shapes[name]
    result: list[Axis] = []
    inputs = [(lineage.of(n), n in lineage.data) for n in node.input if n and lineage.shape(n) is not None]
    for i, n in enumerate(shape):
        found = [
            (axes[i - len(shape)], moved)
            for axes, moved in inputs
            if len(shape) - i <= len(axes) and size(axes[i - len(shape)]) == n
        ]
        result.append(max(found, key=lambda f: (f[1], RANK[kind(f[0])]), default=((), False))[0])
    return tuple(result)


def _window(lineage: Lineage, node: onnx.NodeProto, name: str) -> Axes | None:
    """New channels; positions stay where none is skipped, else all of the plane's axes begin anew."""
    shape, source = lineage.shapes[name], lineage.of(node.input[0])
    if len(source) != len(shape) or len(shape) < 3:
        return None
    channels = lineage.channels(name, 1) if "Conv" in node.op_type else source[1]
    plane = source[2:]
    if any(size(axis) != n for axis, n in zip(plane, shape[2:], strict=True)):
        plane = tuple(
            (Factor(Base(kind(axis), n, name, i, parents=axis), n),)
            for i, (axis, n) in enumerate(zip(plane, shape[2:], strict=True), 2)
        )
    return (source[0], channels, *plane)


def _rearrange(lineage: Lineage, node: onnx.NodeProto, name: str) -> Axes | None:
    return reshaped(lineage.of(node.input[0]), lineage.shapes[name])


def _transpose(lineage: Lineage, node: onnx.NodeProto, name: str) -> Axes | None:
    source = lineage.of(node.input[0])
    order = attribute(node, "perm", None) or list(range(len(source)))[::-1]
    return tuple(source[i] for i in order) if len(order) == len(source) else None


def _fused(lineage: Lineage, node: onnx.NodeProto, name: str) -> Axes | None:
    """Queries keep their axes and get new channels."""
    if name != node.output[0]:
        return None
    source = lineage.of(node.input[0])
    return (*source[: len(lineage.shapes[name]) - 1], lineage.channels(name, -1))


def _reduce(lineage: Lineage, node: onnx.NodeProto, name: str) -> Axes | None:
    source, shape = lineage.of(node.input[0]), lineage.shapes[name]
    axes = attribute(node, "axes", None)
    if axes is None and len(node.input) > 1 and node.input[1]:
        axes = lineage.value(node.input[1])
    gone = {int(i) % len(source) for i in (range(len(source)) if axes is None else np.ravel(axes))} if source else set()
    if len(shape) == len(source):
        return tuple(() if i in gone else axis for i, axis in enumerate(source))
    return tuple(axis for i, axis in enumerate(source) if i not in gone)


def _concat(lineage: Lineage, node: onnx.NodeProto, name: str) -> Axes | None:
    names = list(node.input[2::3]) if node.op_type == "QLinearConcat" else list(node.input)
    shape = lineage.shapes[name]
    along = attribute(node, "axis", 1) % len(shape)
    axes = [lineage.of(n) for n in names]
    if any(len(a) != len(shape) for a in axes):
        return None
    moved = [a for a, n in zip(axes, names, strict=True) if n in lineage.data]
    return tuple(
        joined([a[i] for a in axes], name, i, names)
        if i == along
        else max((a[i] for a in moved), key=lambda axis: RANK[kind(axis)])
        for i in range(len(shape))
    )


def _slice(lineage: Lineage, node: onnx.NodeProto, name: str) -> Axes | None:
    source, shape = lineage.of(node.input[0]), lineage.shapes[name]
    given = [attribute(node, key, None) for key in ("starts", "ends", "axes", "steps")]
    read = [lineage.value(n) for n in node.input[1:]]
    starts, ends, axes, steps = (r if r is not None else g for r, g in zip((*read, *[None] * 4), given, strict=False))
    if starts is None or ends is None or len(source) != len(shape):
        return _changed(lineage, source, name)
    which = range(len(starts)) if axes is None else [int(i) % len(source) for i in np.ravel(axes)]
    result = list(source)
    for i, start, end, step in zip(
        which,
        np.ravel(starts),
        np.ravel(ends),
        np.ravel(steps if steps is not None else [1] * len(starts)),
        strict=True,
    ):
        whole = size(source[i])
        stop = None if int(step) < 0 and int(end) < -whole else int(end)
        index = np.arange(whole)[int(start) : stop : int(step)]
        result[i] = picked(source[i], index, name, i, node.input[0])
    return tuple(result)


def _changed(lineage: Lineage, source: Axes, name: str) -> Axes | None:
    """Axes of which only the size is known: those that keep theirs are kept."""
    shape = lineage.shapes[name]
    if len(source) != len(shape):
        return None
    return tuple(
        axis if size(axis) == n else (Factor(Base(kind(axis), n, name, i, parents=axis), n),)
        for i, (axis, n) in enumerate(zip(source, shape, strict=True))
    )


def _split(lineage: Lineage, node: onnx.NodeProto, name: str) -> Axes | None:
    source = lineage.of(node.input[0])
    along = attribute(node, "axis", 0) % len(source)
    start = 0
    for out in node.output:
        count = lineage.shapes[out][along] if out in lineage.shapes else 0
        if out == name:
            index = np.arange(start, start + count)
            return tuple(picked(a, index, name, i, node.input[0]) if i == along else a for i, a in enumerate(source))
        start += count
    return None


def _gather(lineage: Lineage, node: onnx.NodeProto, name: str) -> Axes | None:
    table, indices = node.input[0], node.input[1]
    source = lineage.of(table)
    along = attribute(node, "axis", 0) % max(len(source), 1)
    if table not in lineage.data:  # an embedding: what is looked up keeps its place, its numbers are channels
        looked = lineage.of(indices)
        rest = len(lineage.shapes[name]) - along - len(looked)
        new = tuple(lineage.channels(name, i) for i in range(-rest, 0))
        return (*source[:along], *looked, *new)
    index = lineage.value(indices)
    count = size(source[along]) if source else 0
    if index is None or not np.all((index >= -count) & (index < count)):
        middle: Axes = tuple(
            (Factor(Base(kind(source[along]), n, name, along + i, parents=source[along]), n),)
            for i, n in enumerate(lineage.shape(indices) or ())
        )
    elif index.ndim == 0:
        middle = ()
    else:
        flat = np.where(index < 0, index + count, index).astype(np.intp).ravel()
        middle = (picked(source[along], flat, name, along, table),)
        if index.ndim > 1:
            middle = reshaped(middle, index.shape) or ()
    return (*source[:along], *middle, *source[along + 1 :])


def _pad(lineage: Lineage, node: onnx.NodeProto, name: str) -> Axes | None:
    source, shape = lineage.of(node.input[0]), lineage.shapes[name]
    pads = attribute(node, "pads", None)
    if pads is None and len(node.input) > 1:
        pads = lineage.value(node.input[1])
    axes = lineage.value(node.input[3]) if len(node.input) > 3 else None
    if pads is None or len(source) != len(shape):
        return _changed(lineage, source, name)
    which = range(len(source)) if axes is None else [int(i) % len(source) for i in np.ravel(axes)]
    before = dict(zip(which, np.ravel(pads)[: len(np.ravel(pads)) // 2], strict=True))
    result = list(source)
    for i, axis in enumerate(source):
        if size(axis) != shape[i]:
            index = np.arange(shape[i]) - int(before.get(i, 0))
            index[(index < 0) | (index >= size(axis))] = -1
            result[i] = picked(axis, index.astype(np.intp), name, i, node.input[0])
    return tuple(result)


def _expand(lineage: Lineage, node: onnx.NodeProto, name: str) -> Axes | None:
    source, shape = lineage.of(node.input[0]), lineage.shapes[name]
    missing = len(shape) - len(source)
    return tuple(
        source[i - missing]
        if i >= missing and size(source[i - missing]) == n
        else (Factor(Base("other", n, name, i, parents=source[i - missing] if i >= missing else ()), n),)
        for i, n in enumerate(shape)
    )


def _embedding(lineage: Lineage, node: onnx.NodeProto, name: str) -> Axes | None:
    return (*lineage.of(node.input[0]), lineage.channels(name, -1)) if name == node.output[0] else None


def _product(lineage: Lineage, node: onnx.NodeProto, name: str) -> Axes | None:
    """Axes of operands go on under their letters; what only weights bring along is new channels."""
    found = product_letters(node, lineage.shape)
    if found is None or len(found[2][-1]) != len(lineage.shapes[name]):
        return None
    names, terms = found[0], found[2]
    result = []
    for i, letter in enumerate(terms[-1]):
        moved = [
            lineage.of(n)[term.index(letter)]
            for n, term in zip(names, terms, strict=False)
            if letter in term and n in lineage.data and len(term) == len(lineage.of(n))
        ]
        best = max(moved, key=lambda axis: (size(axis), RANK[kind(axis)]), default=None)
        fits = best is not None and size(best) == lineage.shapes[name][i]
        result.append(best if best is not None and fits else lineage.channels(name, i))
    return tuple(result)


RULES: dict[str, Rule] = {
    "Transpose": _transpose,
    "Concat": _concat,
    "QLinearConcat": _concat,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Pad": _pad,
    "Expand": _expand,
    "Tile": _expand,
    "EmbedLayerNormalization": _embedding,
}
