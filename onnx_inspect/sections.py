"""What of a model is run to explain it: all of it, the part up to a layer, and the part from there to the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.engine import Engine
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
    """

    model: Model
    layer: Layer | None
    tensors: tuple[str, ...]
    make_engine: Callable[[Model], Engine]
    kept: dict[str, tuple[Batch, Arrays]] = field(default_factory=dict, repr=False, compare=False)
    heads: dict[str, LinearHead] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def split(self) -> Cut:
        """Head up to the layer, and tail from it to those of the tensors that depend on it."""
        assert self.layer is not None
        return cut(self.model, self.layer, outputs=self.tensors)

    @cached_property
    def beside(self) -> tuple[str, ...]:
        """Tensors that don't depend on the layer: no variant of it changes them."""
        made = {o.name for o in self.split.tail.outputs}
        return tuple(name for name in self.tensors if name not in made)

    @cached_property
    def head(self) -> Engine:
        """Runs inputs up to the layer and what else the tail needs; without a target the layer is all it gives."""
        assert self.layer is not None
        if not self.tensors:
            return self.make_engine(self._from_inputs([self.layer.output.name]))
        split = self.split
        return self._taking_turns(self._from_inputs(dict.fromkeys([split.tensor, *split.crossing, *self.beside])))

    @cached_property
    def tail(self) -> Engine:
        """Runs activations from the layer to the target's tensors."""
        return self._taking_turns(self.split.tail)

    @cached_property
    def whole(self) -> Engine:
        """Runs inputs to the target's tensors."""
        return self.make_engine(self._from_inputs(self.tensors))

    @property
    def passes(self) -> tuple[int, int]:
        """Runs so far of the whole model and of the tail; parts that nobody asked for yet count nothing."""
        built = vars(self)
        return (built["whole"].passes if "whole" in built else 0), (built["tail"].passes if "tail" in built else 0)

    @property
    def provider(self) -> str:
        """What runs the model."""
        return (self.whole if self.layer is None else self.head).provider

    def capture(self, batch: Batch) -> Arrays:
        """The layer's own tensor and those that cross the cut, for the whole batch."""
        names = [o.name for o in self.head.model.outputs]
        return self._keep("captured", batch, lambda: run(self.head, batch.arrays, names))

    def outputs(self, batch: Batch) -> Arrays:
        """The target's tensors for the inputs as they are, (N, ...): by the tail where there is a layer."""
        return self._keep(
            "outputs", batch, lambda: self._by_whole(batch) if self.layer is None else self._by_tail(batch)
        )

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

    def _by_whole(self, batch: Batch) -> Arrays:
        return samples_first(self.whole, run(self.whole, batch.arrays, self.tensors), batch.n)

    def _by_tail(self, batch: Batch) -> Arrays:
        captured, made = self.capture(batch), [o.name for o in self.tail.model.outputs]
        found = samples_first(self.tail, run(self.tail, captured, made), batch.n)
        return found | samples_first(self.head, {name: captured[name] for name in self.beside}, batch.n)

    def _keep(self, what: str, batch: Batch, make: Callable[[], Arrays]) -> Arrays:
        if what not in self.kept or self.kept[what][0] is not batch:
            self.kept[what] = (batch, make())
        return self.kept[what][1]

    def _taking_turns(self, model: Model) -> Engine:
        """Make an engine that leaves the cores to another between its runs."""
        engine = self.make_engine(model)
        engine.spinning = False
        return engine

    def _from_inputs(self, tensors: Any) -> Model:
        return extract(self.model, [i.name for i in self.model.inputs], tensors)


def run(engine: Engine, feeds: Any, names: Any) -> Arrays:
    """Run a part with those of some feeds that it takes."""
    own = {i.name for i in engine.model.inputs}
    return engine.run({name: array for name, array in feeds.items() if name in own}, list(names))


def samples_first(engine: Engine, values: Arrays, count: int) -> Arrays:
    """Show what an engine gave for `count` samples as (N, ...)."""
    return {name: engine.samples_first(name, np.asarray(value), count) for name, value in values.items()}
