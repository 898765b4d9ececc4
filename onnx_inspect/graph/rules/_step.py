"""What a rule sees of one node on the way back, and how it writes down the gradients."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_inspect.graph.batch import ANONYMOUS
from onnx_inspect.graph.constants import attribute
from onnx_inspect.graph.declare import elem_type
from onnx_inspect.graph.model import Dim
from onnx_inspect.graph.rules._writer import DOUBLE, FLOAT, Writer


class NoRule(Exception):
    """A node that can't be differentiated; the text says why."""


Sweep = Callable[[Sequence[onnx.NodeProto], Mapping[str, str], Collection[str]], Mapping[str, str]]


@dataclass(frozen=True)
class Step:
    """One node on the way back.

    Attributes
    ----------
    node : onnx.NodeProto
    grads : tuple of str
        Name of the gradient that arrives at each output, "" where none does.
    wanted : frozenset of str
        Tensors whose gradients are of use.
    writer : Writer
        Where new nodes go.
    start : int
        How many nodes were there before this step.
    sweep : callable
        Differentiates nodes: (nodes, gradients of their outputs, wanted tensors) -> gradients of the wanted tensors.
    """

    node: onnx.NodeProto
    grads: tuple[str, ...]
    wanted: frozenset[str]
    writer: Writer
    start: int
    sweep: Sweep

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the node's inputs, "" for those left out; as many as the node lists."""
        return tuple(self.node.input)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the node's outputs, "" for those left out."""
        return tuple(self.node.output)

    @property
    def g(self) -> str:
        """Gradient that arrives at the first output."""
        if not self.grads[0]:
            raise self.fail("only another output than its first is used")
        return self.grads[0]

    @property
    def dtype(self) -> str:
        """What to calculate in: float64 where the node does, else float32."""
        names = [n for n in (*self.inputs, *self.outputs) if n]
        return DOUBLE if any(self.writer.spec(n).dtype == DOUBLE for n in names) else FLOAT

    def has(self, i: int) -> bool:
        """Whether the node has an input at a position."""
        return i < len(self.inputs) and bool(self.inputs[i])

    def wants(self, i: int) -> bool:
        """Whether the gradient of an input is of use."""
        return self.has(i) and self.inputs[i] in self.wanted

    def x(self, i: int) -> str:
        """Forward input as numbers to calculate with."""
        return self.writer.cast(self.inputs[i], self.dtype)

    def y(self, k: int = 0) -> str:
        """Forward output as numbers to calculate with."""
        return self.writer.cast(self.outputs[k], self.dtype)

    def attribute(self, name: str, default: Any = None) -> Any:
        """Attribute of the node: int, float, text, or a list; the default where it isn't set."""
        return attribute(self.node, name, default)

    def value(self, i: int) -> NDArray[Any] | None:
        """Numbers of an input that only constants decide; None where it isn't one or is left out."""
        return self.writer.value(self.inputs[i]) if self.has(i) else None

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        """What is known of a tensor's shape: a number, a symbol or None per axis; None where the rank is unknown."""
        return self.writer.spec(name).shape

    def rank(self, name: str) -> int:
        """Number of a tensor's axes.

        Raises
        ------
        NoRule
            It is unknown.
        """
        shape = self.shape(name)
        if shape is None:
            raise self.fail(f"nothing tells how many axes {name!r} has")
        return len(shape)

    def axis(self, value: int, name: str) -> int:
        """An axis counted from the front."""
        return value if value >= 0 else value + self.rank(name)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output and return the output's name."""
        return self.writer.op(kind, *inputs, **attributes)

    def ops(self, kind: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node of `count` outputs and return their names."""
        return self.writer.ops(kind, count, *inputs, **attributes)

    def number(self, value: float) -> str:
        """Constant scalar in the step's dtype."""
        return self.writer.constant(np.array(value, self.dtype))

    def numbers(self, values: Any) -> str:
        """Constant array in the step's dtype."""
        return self.writer.constant(np.asarray(values, self.dtype))

    def ints(self, values: Iterable[int]) -> str:
        """Constant list of int64."""
        return self.writer.constant(np.array(list(values), np.int64))

    def integer(self, value: int) -> str:
        """Constant scalar of int64."""
        return self.writer.constant(np.array(value, np.int64))

    def flag(self, comparison: str, one: str, other: str) -> str:
        """Factor that is 1 where a comparison holds, else 0."""
        return self.writer.op("Cast", self.op(comparison, one, other), to=elem_type(self.dtype))

    def only(self, gradient: str, comparison: str, one: str, other: str) -> str:
        """Gradient where a comparison holds, else 0."""
        return self.op("Mul", gradient, self.flag(comparison, one, other))

    def shape_of(self, name: str) -> str:
        """Tensor that holds another's shape at run time."""
        return self.writer.shape_of(name)

    def like(self, gradient: str, name: str) -> str:
        """Reshape a gradient to the shape of a forward tensor."""
        return self.op("Reshape", gradient, self.shape_of(name), allowzero=1)

    def spread(self, gradient: str, name: str) -> str:
        """Expand a gradient to the shape of a forward tensor."""
        return self.op("Expand", gradient, self.shape_of(name))

    def total(self, value: str, axes: Sequence[int], *, keep: bool = True) -> str:
        """Sum over axes; no axes leave it as it is."""
        if not axes:
            return value
        return self.op("ReduceSum", value, self.ints(axes), keepdims=int(keep))

    def sum_to(self, gradient: str, i: int, whole: tuple[Dim, ...] | None = ()) -> str:
        """Sum a gradient over the axes along which input `i` was broadcast.

        `whole` is the gradient's shape as far as it is known; that of the first output where it isn't given.
        """
        name = self.inputs[i]
        whole, own = self.shape(self.outputs[0]) if whole == () else whole, self.shape(name)
        if whole is None or own is None:
            return self._sum_at_run_time(gradient, name)
        lead = len(whole) - len(own)
        axes = list(range(lead))
        for axis, (size, kept) in enumerate(zip(whole[lead:], own, strict=True), lead):
            if kept == 1 and size != 1:
                axes.append(axis)
            elif not isinstance(kept, int) and size != 1 and not _same(size, kept):
                return self._sum_at_run_time(gradient, name)
        if len(axes) == lead:
            return self.total(gradient, axes, keep=False)
        summed = self.total(gradient, axes)
        return self.op("Squeeze", summed, self.ints(range(lead))) if lead else summed

    def _sum_at_run_time(self, gradient: str, name: str) -> str:
        """Sum over the axes that the shapes of both show to be broadcast when the model runs."""
        whole, own = self.op("Shape", gradient), self.shape_of(name)
        missing = self.op("Sub", self.op("Shape", whole), self.op("Shape", own))
        ones = self.op("Expand", self.ints([1]), missing)
        padded = self.op("Concat", ones, own, axis=0)
        differs = self.op("Not", self.op("Equal", whole, padded))
        axes = self.op("Squeeze", self.op("NonZero", differs), self.ints([0]))
        return self.like(self.op("ReduceSum", gradient, axes, keepdims=1, noop_with_empty_axes=1), name)

    def through(self, outputs: Sequence[str]) -> dict[int, str]:
        """Differentiate what this step has written down so far as the way from its inputs to `outputs`."""
        starts = {i: {self.inputs[i], self.x(i)} for i in range(len(self.inputs)) if self.wants(i)}
        given = set().union(*starts.values())
        nodes = [n for n in self.writer.nodes[self.start :] if given.isdisjoint(n.output)]  # casts of inputs aside
        arriving = {name: grad for name, grad in zip(outputs, self.grads, strict=False) if grad}
        if "" in arriving or sum(map(bool, self.grads)) > len(arriving):
            raise self.fail("an output is used that has no rule")
        reached = dict(self.sweep(nodes, arriving, given))
        found = {}
        for i, names in starts.items():  # a tensor that is read twice gets its whole gradient once
            parts = [reached.pop(name) for name in sorted(names) if name in reached]
            if parts:
                found[i] = parts[0] if len(parts) == 1 else self.op("Sum", *parts)
        return found

    def fail(self, reason: str) -> NoRule:
        """Make the error that says why this node can't be differentiated."""
        return NoRule(reason)


def _same(one: Dim, other: Dim) -> bool:
    return one == other and one is not None and one not in ANONYMOUS
