"""How samples of a data set become batches, a few at a time; broken ones are left out and told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_inspect.errors import InputError
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.inputs.dataset import Dataset
from onnx_inspect.inputs.parts import Part, join
from onnx_inspect.inputs.preprocess import Preprocess
from onnx_inspect.inputs.read import Fill, assemble, values_of
from onnx_inspect.inputs.samples import Demand, Samples

if TYPE_CHECKING:
    from onnx_inspect.graph.model import TensorSpec

TRIED = 64  # samples that are read at one time in search of one that can be


@dataclass(frozen=True)
class Skipped:
    """A sample that can't be read, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class Reading:
    """What some places of a data set gave: a batch of those that could be read, their places, and the others.

    `batch` is None where none could.
    """

    batch: Batch | None
    places: tuple[int, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Reader:
    """Reads batches of a data set for one model; small, so that it can be sent to other processes.

    Attributes
    ----------
    dataset : Dataset
    demand : Demand
    given, fills, values
        Inputs given by name, as :func:`~onnx_inspect.inputs.read.values_of` reads them: one sample for all, or one for
        each.
    labels : tuple of str or None
        The model's class names.
    seed : int
        Of inputs that are made up.
    shapes : mapping of input name to tuple of int
        Of one sample: what the first that could be read has, and all others must have.
    notes : tuple of str
        Choices made for the user.
    """

    dataset: Dataset
    demand: Demand
    given: Mapping[str, Samples]
    fills: Mapping[str, Fill]
    values: Mapping[str, str]
    labels: tuple[str, ...] | None
    seed: int
    shapes: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, places: range, *, drawn: bool = False) -> Reading:
        """Read samples; `drawn` where their pictures are wanted, too.

        Raises
        ------
        InputError
            A file that holds many samples can't be read, or doesn't fit the model.
        """
        demand = replace(self.demand, drawn=drawn)
        parts: list[Part] = []
        kept: list[int] = []
        skipped: list[Skipped] = []
        at = places.start
        for found in self.dataset.entries.read(places, demand):
            step = 1 if isinstance(found, InputError) else len(found.sources)
            reason = str(found) if isinstance(found, InputError) else self._misfit(found)
            if reason:
                skipped += [Skipped(self.dataset.entries.source(n), reason) for n in range(at, at + step)]
            elif not isinstance(found, InputError):
                parts.append(found)
                kept += range(at, at + step)
            at += step
        return Reading(self._batch(parts, kept, demand) if parts else None, tuple(kept), tuple(skipped))

    def first(self) -> Batch:
        """The first sample that can be read, as a batch of one.

        Raises
        ------
        InputError
            None can.
        """
        wrong: tuple[Skipped, ...] = ()
        for start in range(0, len(self), TRIED):
            for place in range(start, min(start + TRIED, len(self))):
                found = self.read(range(place, place + 1), drawn=True)
                if found.batch is not None:
                    return found.batch
                wrong = wrong or found.skipped
        raise InputError(f"none of the {len(self):,} samples can be read: {wrong[0].reason}")

    def _misfit(self, part: Part) -> str:
        """Why a part can't stand beside the first sample; "" where it can."""
        for name, samples in part.samples.items():
            own, wanted = samples.array.shape[1:], self.shapes.get(name)
            if wanted is not None and self.demand.batched(name) and own != wanted:
                return f"{part.sources[0]} has shape {list(own)}, but the first sample {list(wanted)}"
        return ""

    def _batch(self, parts: Sequence[Part], places: Sequence[int], demand: Demand) -> Batch:
        given = {name: self._picked(samples, name, places) for name, samples in self.given.items()}
        rng = np.random.default_rng(self.seed)  # what is made up is the same for every batch
        return assemble(join(parts, demand), given, self.fills, self.values, demand, rng=rng, labels=self.labels)

    def _picked(self, samples: Samples, name: str, places: Sequence[int]) -> Samples:
        """Rows of an input that was given by name: its own for each sample, or one for all."""
        if not self.demand.batched(name) or len(samples.array) == 1:
            return samples
        if len(samples.array) != len(self):
            raise InputError(
                f"input {name!r} holds {len(samples.array)} samples, but the data set {len(self)}: give one, or as many"
            )
        return Samples(samples.array[list(places)], (), (), samples.preprocess, samples.notes)


def reader(
    dataset: Dataset,
    specs: Mapping[str, TensorSpec],
    primary: str,
    *,
    named: Mapping[str, str] | None = None,
    preprocess: Preprocess | str | None = None,
    metadata: Mapping[str, str] | None = None,
    labels: tuple[str, ...] | None = None,
    seed: int = 0,
) -> Reader:
    """Prepare to read a data set; its first sample is read to know what it is like.

    Parameters
    ----------
    named : mapping of input name to str
        Values of single inputs, as :func:`onnx_inspect.inputs.read.read` takes them.

    Raises
    ------
    InputError
        No sample can be read, or an input is missing.
    """
    demand = Demand(specs, primary, preprocess, metadata or {})
    values = dict(named or {})
    given, fills = values_of(values, demand)
    plain: dict[str, Any] = {"values": values, "labels": labels, "seed": seed}
    made = Reader(dataset, demand, given, fills, shapes={}, notes=(), **plain)
    first = made.first()
    shapes = {name: array.shape[1:] for name, array in first.arrays.items() if demand.batched(name)}
    return replace(made, shapes=shapes, notes=(*dataset.notes, *first.notes))
