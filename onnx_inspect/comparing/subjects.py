"""What two models hold on the same inputs, tensor by tensor: run in parts that fit in memory, one input at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.alignment import Side
from onnx_inspect.analysis.fingerprints import Fingerprint, joined, sketch
from onnx_inspect.engine import Engine
from onnx_inspect.feeds import filled
from onnx_inspect.graph.batch import batch_axes, fixed_batch
from onnx_inspect.graph.bind import bind
from onnx_inspect.graph.memory import tensor_bytes
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.points import INPUT, Point, points
from onnx_inspect.graph.steps import Quantisers, Steps
from onnx_inspect.graph.surgery import expose
from onnx_inspect.graph.weights import LEARNED, layer_weights
from onnx_inspect.inputs.batch import Batch

Arrays = dict[str, NDArray[Any]]

BUDGET = 256 * 2**20  # bytes of tensors that one part of a model gives for one input
PROBES = 4  # inputs that tensors are recognised by; all are compared


class Subject(Protocol):
    """One of the two that are compared: a model, or a framework's own network."""

    @property
    def source(self) -> str:
        """Where it comes from."""
        ...

    @property
    def points(self) -> tuple[Point, ...]:
        """Its tensors, makers first."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Its own outputs, in its order."""
        ...

    @property
    def count(self) -> int:
        """How many inputs it is run on."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of its file; "" where it has none."""
        ...

    def steps(self, name: str) -> Steps | None:
        """What the 8-bit integers of a tensor stand for; None where nobody says."""
        ...

    def answers(self) -> Arrays:
        """Its outputs for all inputs, (N, ...), as it gives them when nothing else is asked of it."""
        ...

    def parts(self, names: Iterable[str]) -> list[list[str]]:
        """Groups of tensors that are captured together."""
        ...

    def values(self, index: int, names: Sequence[str]) -> Arrays:
        """Tensors for one input, with the axis of samples that the model gives them."""
        ...


class ModelSubject:
    """An ONNX model on the samples of a batch.

    Parameters
    ----------
    make_engine : callable
        Makes exact engines, which the layers are looked at with.
    deploy : callable, optional
        Makes engines that run as users do, for the outputs.
    block : int
        Samples that each run takes, all of them the one that is looked at; see :func:`block_of`.
    budget : int
        Bytes of tensors that are captured together.
    """

    def __init__(
        self,
        model: Model,
        batch: Batch,
        make_engine: Callable[[Model], Engine],
        *,
        deploy: Callable[[Model], Engine] | None = None,
        block: int = 1,
        budget: int = BUDGET,
    ) -> None:
        self.model, self.batch, self.make_engine, self.budget = model, batch, make_engine, budget
        self.block = block
        self.plain = (deploy or make_engine)(model)
        self._engine: tuple[frozenset[str], Engine] | None = None

    @property
    def source(self) -> str:
        """The model's file."""
        return self.model.source

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """What the inputs decide, of the main graph."""
        return points(self.model)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The model's own outputs."""
        return tuple(o.name for o in self.model.outputs)

    @property
    def count(self) -> int:
        """Samples of the batch."""
        return self.batch.n

    @property
    def digest(self) -> str:
        """SHA-256 of the model's file."""
        return self.model.digest

    @cached_property
    def _quantisers(self) -> Quantisers:
        return Quantisers(self.model)

    def steps(self, name: str) -> Steps | None:
        """Scale and zero point of a quantised tensor, where they are constants."""
        return self._quantisers.of(name)

    @property
    def provider(self) -> str:
        """What runs it."""
        return self.plain.provider

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes that tensors have for one sample, as far as the inputs' decide them."""
        return bind(self.model, {name: array.shape for name, array in self.feeds(0).items()})

    def weights(self) -> dict[str, Fingerprint]:
        """Fingerprints of filters and matrices, by what their layers make."""
        learned = (w for w in layer_weights(self.model) if w.role in LEARNED)
        return {w.layer.output.name: sketch(w.array().reshape(1, -1), 1) for w in learned if np.prod(w.shape)}

    def answers(self) -> Arrays:
        """The model's outputs for all samples, (N, ...)."""
        found = self.plain.run(self.batch.arrays)
        return {name: self.plain.samples_first(name, value, self.count) for name, value in found.items()}

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes of each tensor for one sample."""
        return tensor_bytes(self.model, {name: array.shape for name, array in self.feeds(0).items()})

    def feeds(self, index: int) -> Arrays:
        """What the model is fed for one sample."""
        shared = self.batch.shared
        one = {n: array if n in shared else array[index : index + 1] for n, array in self.batch.arrays.items()}
        return filled(one, batch_axes(self.model), self.block) if self.block > 1 else one

    def parts(self, names: Iterable[str]) -> list[list[str]]:
        """Groups of tensors, in order, each within the budget unless it is a single one."""
        found: list[list[str]] = []
        room = 0
        for name in names:
            size = self.sizes.get(name, 0)
            if not found or size > room:
                found.append([])
                room = self.budget
            found[-1].append(name)
            room -= size
        return found

    def values(self, index: int, names: Sequence[str]) -> Arrays:
        """Tensors for one sample; the last sample's are kept while others of the same part are asked for."""
        feeds = self.feeds(index)
        found = {name: np.asarray(array) for name, array in feeds.items() if name in names}
        wanted = [name for name in names if name not in found]
        for part in self.parts(wanted):
            found |= self._opened(part).run(feeds, part)
        return found

    def _opened(self, names: Sequence[str]) -> Engine:
        """An engine that gives at least these tensors; the last one is kept."""
        if self._engine is None or not self._engine[0].issuperset(names):
            whole = self.parts([p.name for p in self.points if p.op_type != INPUT])
            part = next((part for part in whole if set(part).issuperset(names)), list(names))
            self._engine = frozenset(part), self.make_engine(expose(self.model, part))
        return self._engine[1]


def block_of(*models: Model) -> int:
    """Samples that a run of any of these takes: more than one where a model's batch is fixed at more."""
    return max(fixed_batch(model) or 1 for model in models)


def fingerprints(subject: Subject) -> dict[str, Fingerprint]:
    """A fingerprint of each tensor that holds numbers, taken part by part, so that memory stays bounded."""
    probes = _spread(subject.count, PROBES)
    prints: dict[str, list[Fingerprint]] = {}
    for part in subject.parts([p.name for p in subject.points]):
        for index in probes:
            for name, array in subject.values(index, part).items():
                if array.dtype.kind in "biuf" and array.size:
                    prints.setdefault(name, []).append(sketch(array, len(probes)))
    whole = {name: parts for name, parts in prints.items() if len({part.size for part in parts}) == 1}
    return {name: _stepped(joined(parts), subject, name) for name, parts in whole.items() if len(parts) == len(probes)}


def _stepped(found: Fingerprint, subject: Subject, name: str) -> Fingerprint:
    """Note what a tensor's 8-bit integers stand for."""
    steps = subject.steps(name) if found.stepped else None
    return found if steps is None else replace(found, steps=(steps.scale, steps.zero_point))


def side(subject: Subject) -> Side:
    """Run a model and tell alignment what it needs to know of it."""
    weights = subject.weights() if isinstance(subject, ModelSubject) else {}
    return Side(subject.points, fingerprints(subject), subject.outputs, weights)


def _spread(count: int, most: int) -> list[int]:
    """Up to `most` numbers below `count`, evenly."""
    return sorted({round(x) for x in np.linspace(0, count - 1, min(count, most))})
