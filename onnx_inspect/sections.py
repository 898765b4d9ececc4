"""What of a model is run to explain it: all of it, the part up to a layer, and the part from there to the target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.engine import Engine
from onnx_inspect.graph.gradient import GRADIENT, SEED, FlatError, gradient, gradient_name
from onnx_inspect.graph.linear import LinearHead, linear_head
from onnx_inspect.graph.model import Layer, Model
from onnx_inspect.graph.surgery import Cut, cut, extract
from onnx_inspect.graph.upgrade import upgrade
from onnx_inspect.inputs.batch import Batch

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Sections:
    """A model's parts, made when they are first run; scenes of other inputs and targets share them.

    Attributes
    ----------
    layer : Layer or None
        Where the model is cut; None where only the whole of it is run.
    tensors : tuple of str
        What a target reads; empty where nothing is explained.
    kept : dict
        What :meth:`capture` and :meth:`outputs` gave for the last batch, by their names: several targets ask for it.
    heads : dict
        What :meth:`linear_head` read, by the class scores' tensor.
    proved : set of str
        Those that a batch has shown to hold to float32's precision.
    spent : Counter
        Passes that the ``inputs`` themselves took.
    shapes : mapping of tensor name to tuple of int
        As tensors were seen, for one sample.
    backward : dict
        Engines of :meth:`layer_gradient` and its like, by the two tensors and what is asked of them.
    """

    model: Model
    layer: Layer | None
    tensors: tuple[str, ...]
    make_engine: Callable[[Model], Engine]
    kept: dict[str, tuple[Batch, Arrays]] = field(default_factory=dict, repr=False, compare=False)
    heads: dict[str, LinearHead] = field(default_factory=dict, repr=False, compare=False)
    proved: set[str] = field(default_factory=set, repr=False, compare=False)
    spent: Counter[str] = field(default_factory=Counter, repr=False, compare=False)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)
    backward: dict[tuple[str, str, str], Engine] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def split(self) -> Cut:
        """Head up to the layer, and tail from it to those of the tensors that depend on it."""
        assert self.layer is not None
        return cut(self.model, self.layer, outputs=self.tensors)

    @cached_property
    def head(self) -> Engine:
        """Runs inputs to the layer, to what else the tail needs, and on to the target's tensors: all in one pass."""
        assert self.layer is not None
        if not self.tensors:
            return self.make_engine(self._from_inputs([self.layer.output.name]))
        split = self.split
        return self.make_engine(self._from_inputs(dict.fromkeys([split.tensor, *split.crossing, *self.tensors])))

    @cached_property
    def tail(self) -> Engine:
        """Runs activations from the layer to the target's tensors; between its runs it leaves the cores to others."""
        engine = self.make_engine(self.split.tail)
        engine.spinning = False
        return engine

    @cached_property
    def whole(self) -> Engine:
        """Runs inputs to the target's tensors: the head, where it gives little else, so that weights are held once."""
        if self.layer is not None and self.tensors and not self.split.crossing:
            return self.head
        return self.make_engine(self._from_inputs(self.tensors))

    @property
    def passes(self) -> tuple[int, int]:
        """Runs so far of the whole model on variants, and of the tail; parts that nobody asked for count nothing."""
        tail, own = vars(self).get("tail"), self.layer.output.name if self.layer is not None else ""
        by_layer = sum(engine.passes for (by, *_), engine in self.backward.items() if by == own)
        by_input = sum(engine.passes for engine in self.backward.values()) - by_layer
        full = self._full_passes - self.spent["inputs"] + by_input
        return full, (tail.passes if tail is not None else 0) + by_layer

    @property
    def provider(self) -> str:
        """What runs the model."""
        return (self.whole if self.layer is None else self.head).provider

    def capture(self, batch: Batch) -> Arrays:
        """The layer's own tensor, those that cross the cut, and the target's, for the whole batch."""
        names = [o.name for o in self.head.model.outputs]
        return self._keep("captured", batch, lambda: self._on_inputs(self.head, batch, names))

    def outputs(self, batch: Batch) -> Arrays:
        """The target's tensors for the inputs as they are, (N, ...)."""
        return self._keep("outputs", batch, lambda: self._outputs(batch))

    def layer_gradient(self, tensor: str, feeds: Arrays, seed: NDArray[Any]) -> NDArray[Any]:
        """Gradient by the layer, of its shape, of one of the target's tensors weighted by a `seed` of that one's shape.

        `feeds` hold the layer's tensor and those that cross the cut: only what follows the layer is run.
        """
        by = self.split.tensor
        engine = self._backward(by, tensor, "", lambda: gradient(self._ranked(self.split.tail), [by], tensor))
        return _gradients(engine, feeds, [seed])[0]

    def layer_curvature(
        self, tensor: str, feeds: Arrays, seed: NDArray[Any], direction: NDArray[Any]
    ) -> NDArray[Any] | None:
        """How that gradient changes along a direction, of the layer's shape; None where it is the same everywhere.

        This is the product of the second derivatives and the direction: the gradient of the gradient's own graph.
        """
        by = self.split.tensor

        def twice() -> Model:
            once = gradient(self._ranked(self.split.tail), [by], tensor)
            return gradient(self._ranked(once), [by], gradient_name(by))

        try:
            engine = self._backward(by, tensor, "twice", twice)
        except FlatError:
            return None
        return _gradients(engine, feeds, [seed, direction])[-1]

    def input_gradient(
        self, primary: str, tensor: str, feeds: Arrays, seed: NDArray[Any], *, guided: bool = False
    ) -> NDArray[Any]:
        """Gradient by an input, of its shape, or guided backpropagation's; see :meth:`layer_gradient`."""

        def part() -> Model:
            return gradient(self._ranked(self._from_inputs([tensor])), [primary], tensor, guided=guided)

        engine = self._backward(primary, tensor, "guided" if guided else "", part)
        return _gradients(engine, feeds, [seed])[0]

    def gradients(
        self, primary: str, by: Sequence[str], tensor: str, feeds: Arrays, seed: NDArray[Any]
    ) -> list[NDArray[Any]]:
        """Gradients by tensors on the way from an input, of their shapes; see :meth:`layer_gradient`."""

        def part() -> Model:
            return gradient(self._ranked(self._from_inputs([tensor])), by, tensor)

        engine = self._backward(primary, tensor, " ".join(by), part)
        found = dict(zip(_made(engine), _gradients(engine, feeds, [seed]), strict=True))
        return [found[gradient_name(name)] for name in by]

    def _backward(self, by: str, tensor: str, kind: str, part: Callable[[], Model]) -> Engine:
        if (by, tensor, kind) not in self.backward:
            engine = self.backward[by, tensor, kind] = self.make_engine(part())
            engine.spinning = False  # else its threads slow the next forward pass down
        return self.backward[by, tensor, kind]

    def _ranked(self, part: Model) -> Model:
        """A part in the operators that gradients are written in; tensors have the rank that they were seen with."""
        part = upgrade(part)
        known = {name: part.tensor(name) for name in self.shapes if name in part.producers}
        found = {n: replace(s, shape=(None,) * len(self.shapes[n])) for n, s in known.items() if s.shape is None}
        return replace(part, tensors={**part.tensors, **found}) if found else part

    def others(self, batch: Batch, names: Sequence[str]) -> Arrays:
        """Other tensors for the inputs as they are, (N, ...)."""
        return self._keep("others", batch, lambda: self._others(batch, names))

    def linear_head(self, scores: str, cells: int) -> LinearHead:
        """What follows the layer, where that is pooling and a linear map to the class scores; read once.

        Raises
        ------
        MethodError
            It is something else.
        """
        assert self.layer is not None
        if scores not in self.heads:
            self.heads[scores] = linear_head(self.model, self.layer.output.name, scores, cells)
        return self.heads[scores]

    def _outputs(self, batch: Batch) -> Arrays:
        if self.layer is None:
            return samples_first(self.whole, self._on_inputs(self.whole, batch, self.tensors), batch.n)
        captured = self.capture(batch)
        return samples_first(self.head, {name: captured[name] for name in self.tensors}, batch.n)

    def _others(self, batch: Batch, names: Sequence[str]) -> Arrays:
        engine = self.make_engine(self._from_inputs(names))
        return samples_first(engine, run(engine, batch.arrays, names), batch.n)

    def _on_inputs(self, engine: Engine, batch: Batch, names: Sequence[str]) -> Arrays:
        """Run the inputs as they are, apart from what their variants cost."""
        before = self._full_passes
        found = run(engine, batch.arrays, names)
        self.spent["inputs"] += self._full_passes - before
        return found

    @property
    def _full_passes(self) -> int:
        engines = {id(engine): engine for name, engine in vars(self).items() if name in ("head", "whole")}
        return sum(engine.passes for engine in engines.values())

    def _keep(self, what: str, batch: Batch, make: Callable[[], Arrays]) -> Arrays:
        if what not in self.kept or self.kept[what][0] is not batch:
            self.kept[what] = (batch, make())
        return self.kept[what][1]

    def _from_inputs(self, tensors: Any) -> Model:
        return extract(self.model, [i.name for i in self.model.inputs], tensors)


def _gradients(engine: Engine, feeds: Arrays, seeds: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Run a model of gradients, whose last inputs are the seeds."""
    weightings = engine.model.inputs[-len(seeds) :]
    assert all(spec.name.startswith(SEED) for spec in weightings)
    own = {i.name for i in engine.model.inputs}
    given = {spec.name: seed.astype(spec.dtype) for spec, seed in zip(weightings, seeds, strict=True)}
    names = _made(engine)
    found = engine.run({n: a for n, a in feeds.items() if n in own} | given, names)
    return [found[name] for name in names]


def _made(engine: Engine) -> list[str]:
    """The gradients among a model's outputs, in order."""
    return [o.name for o in engine.model.outputs if GRADIENT in o.name]


def run(engine: Engine, feeds: Any, names: Any) -> Arrays:
    """Run a part with those of some feeds that it takes."""
    own = {i.name for i in engine.model.inputs}
    return engine.run({name: array for name, array in feeds.items() if name in own}, list(names))


def samples_first(engine: Engine, values: Arrays, count: int) -> Arrays:
    """Show what an engine gave for `count` samples as (N, ...)."""
    return {name: engine.samples_first(name, np.asarray(value), count) for name, value in values.items()}
