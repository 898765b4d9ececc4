"""What of a model is run to explain it: all of it, the part up to a layer, and the part from there to the target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.engine import Engine
from onnx_inspect.graph.gradient import SEED, gradient, gradient_name
from onnx_inspect.graph.linear import LinearHead, linear_head
from onnx_inspect.graph.model import Layer, Model
from onnx_inspect.graph.surgery import Cut, cut, extract
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
    backward : dict
        Engines of :meth:`layer_gradient` and :meth:`input_gradient`, by the two tensors.
    """

    model: Model
    layer: Layer | None
    tensors: tuple[str, ...]
    make_engine: Callable[[Model], Engine]
    kept: dict[str, tuple[Batch, Arrays]] = field(default_factory=dict, repr=False, compare=False)
    heads: dict[str, LinearHead] = field(default_factory=dict, repr=False, compare=False)
    proved: set[str] = field(default_factory=set, repr=False, compare=False)
    spent: Counter[str] = field(default_factory=Counter, repr=False, compare=False)
    backward: dict[tuple[str, str], Engine] = field(default_factory=dict, repr=False, compare=False)

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
        by_layer = sum(engine.passes for (by, _), engine in self.backward.items() if by == own)
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
        part = self.split
        return self._gradient(part.tensor, tensor, lambda: part.tail, feeds, seed)

    def input_gradient(self, primary: str, tensor: str, feeds: Arrays, seed: NDArray[Any]) -> NDArray[Any]:
        """Gradient by an input, of its shape; see :meth:`layer_gradient`."""
        return self._gradient(primary, tensor, lambda: self._from_inputs([tensor]), feeds, seed)

    def _gradient(
        self, by: str, tensor: str, part: Callable[[], Model], feeds: Arrays, seed: NDArray[Any]
    ) -> NDArray[Any]:
        if (by, tensor) not in self.backward:
            self.backward[by, tensor] = self.make_engine(gradient(part(), [by], tensor))
        engine = self.backward[by, tensor]
        weighting = engine.model.inputs[-1]  # the seed comes last
        assert weighting.name.startswith(SEED)
        name = gradient_name(by)
        found = engine.run(
            {n: a for n, a in feeds.items() if n in {i.name for i in engine.model.inputs}}
            | {weighting.name: seed.astype(weighting.dtype)},
            [name],
        )
        return found[name]

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


def run(engine: Engine, feeds: Any, names: Any) -> Arrays:
    """Run a part with those of some feeds that it takes."""
    own = {i.name for i in engine.model.inputs}
    return engine.run({name: array for name, array in feeds.items() if name in own}, list(names))


def samples_first(engine: Engine, values: Arrays, count: int) -> Arrays:
    """Show what an engine gave for `count` samples as (N, ...)."""
    return {name: engine.samples_first(name, np.asarray(value), count) for name, value in values.items()}
