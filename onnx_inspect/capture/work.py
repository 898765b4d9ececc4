"""How a portion of a data set becomes activations: a pure function of its places, with an engine held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.pooling import pool
from onnx_inspect.capture.plan import Plan
from onnx_inspect.engine import Engine
from onnx_inspect.graph.classifier import Classifier
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.spatial import Spatial
from onnx_inspect.graph.surgery import expose, extract
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.inputs.dataset_batches import Reader, Reading, Skipped
from onnx_inspect.sections import run, samples_first
from onnx_inspect.targets import dequantised, probabilities

TRIAL = 3  # samples that decide whether several are run at once


@dataclass(frozen=True)
class Block:
    """What some places of a data set gave.

    Attributes
    ----------
    arrays : dict of layer to ndarray, (n, ...)
    sources : tuple of str, n
    labels, predictions : ndarray, (n,), int64
        -1 where there is none.
    confidences : ndarray, (n,), float32
        Probability of the predicted class; NaN where there is none.
    places : tuple of int, n
        Where the samples stand in the data set.
    skipped : tuple of Skipped
        Samples that couldn't be read.
    """

    arrays: dict[str, NDArray[Any]]
    sources: tuple[str, ...]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confidences: NDArray[np.float32]
    places: tuple[int, ...]
    skipped: tuple[Skipped, ...]


@dataclass
class Worker:
    """Captures any part of a data set; one for each process, and the engine in it is made once.

    What it gives for a portion depends on the portion alone, not on what was run before: whether samples can be run
    together is decided on the data set's first sample by every worker alike.
    """

    model: Model
    reader: Reader
    plan: Plan
    forms: dict[str, Spatial | None]
    classifier: Classifier | None
    make_engine: Callable[[Model], Engine]

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to other processes: everything but the engine, which each makes for itself."""
        return {name: value for name, value in vars(self).items() if name != "engine"}

    def block(self, shard: int) -> Block:
        """All of a shard."""
        parts = [self.compute(self.read(places)) for places in self.plan.portions(shard)]
        return joined(parts, self.plan.layers)

    def read(self, places: range) -> Reading:
        """Read a portion; may be called from another thread, ahead of :meth:`compute`."""
        return self.reader.read(places)

    def compute(self, reading: Reading) -> Block:
        """Run a portion and keep what the plan asks for."""
        if reading.batch is None:
            return self._empty(reading)
        batch, names = reading.batch, self._tensors
        values = samples_first(self.engine, run(self.engine, batch.arrays, names), batch.n)
        layers = zip(self.plan.layers, self.plan.tensors, strict=True)
        mask = _mask(batch)
        predictions, confidences = self._predicted(values, batch.n)
        return Block(
            arrays={
                layer: pool(values[tensor], self.plan.pool, self.forms[layer], mask=mask, layer=layer)
                for layer, tensor in layers
            },
            sources=batch.sources,
            labels=self.reader.dataset.labels[list(reading.places)],
            predictions=predictions,
            confidences=confidences,
            places=reading.places,
            skipped=reading.skipped,
        )

    @cached_property
    def engine(self) -> Engine:
        """Runs the inputs to the layers and to the class scores, and nothing else."""
        opened = expose(self.model, self._tensors)
        engine = self.make_engine(extract(opened, [i.name for i in opened.inputs], self._tensors))
        first = self.reader.first()
        own = {i.name for i in engine.model.inputs}
        engine.settle({n: a for n, a in _trial(first).items() if n in own}, self._tensors)
        return engine

    @property
    def _tensors(self) -> list[str]:
        return list(dict.fromkeys([*self.plan.tensors, *([self.plan.scores] if self.plan.scores else [])]))

    def _predicted(self, values: dict[str, NDArray[Any]], count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if self.classifier is None:
            return np.full(count, -1, np.int64), np.full(count, np.nan, np.float32)
        scores = probabilities(self.classifier, dequantised(self.classifier, values[self.plan.scores]))
        if scores.shape[1] == 1:  # one score tells two classes apart
            scores = np.concatenate([1 - scores, scores], axis=1)
        best = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
        sure = scores[np.arange(count), best].astype(np.float32)
        return np.where(np.isfinite(sure), best, -1).astype(np.int64), sure

    def _empty(self, reading: Reading) -> Block:
        """A block of no samples; nobody asks for its arrays."""
        nothing = np.zeros(0, np.int64)
        return Block({}, (), nothing, nothing, np.zeros(0, np.float32), (), reading.skipped)


def joined(parts: Sequence[Block], layers: Sequence[str]) -> Block:
    """Put blocks after one another."""
    full = [part for part in parts if part.sources]
    return Block(
        arrays={layer: np.concatenate([part.arrays[layer] for part in full]) for layer in layers} if full else {},
        sources=tuple(source for part in parts for source in part.sources),
        labels=np.concatenate([part.labels for part in parts]),
        predictions=np.concatenate([part.predictions for part in parts]),
        confidences=np.concatenate([part.confidences for part in parts]),
        places=tuple(place for part in parts for place in part.places),
        skipped=tuple(one for part in parts for one in part.skipped),
    )


def _trial(first: Batch) -> dict[str, NDArray[Any]]:
    """The first sample, and it again with its values in the opposite order: two that differ, of the same kind."""
    found = {}
    for name, array in first.arrays.items():
        if name in first.shared:
            found[name] = array
        else:
            turned = array.reshape(1, -1)[:, ::-1].reshape(array.shape)
            found[name] = np.concatenate([array, turned, array])  # (3, ...)
    return found


def is_mask(name: str, array: NDArray[Any]) -> bool:
    """Whether an input says which tokens count."""
    return "mask" in name.lower() and array.ndim == 2


def _mask(batch: Batch) -> NDArray[Any] | None:
    return next((array for name, array in batch.arrays.items() if is_mask(name, array)), None)
