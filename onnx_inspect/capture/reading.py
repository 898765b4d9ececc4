"""How a capture is read back: arrays that stay on disk until they are looked at, and what their rows are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.pooling import Pool, pool
from onnx_inspect.capture.plan import Plan
from onnx_inspect.capture.store import Store, manifest
from onnx_inspect.errors import InputError, LayerError
from onnx_inspect.graph.spatial import Spatial
from onnx_inspect.inputs.dataset_batches import Skipped


@dataclass(frozen=True)
class Sharded:
    """An array in several files, mapped into memory: (N, ...) as a whole, read where it is indexed.

    Attributes
    ----------
    shards : tuple of ndarray
        Its parts along axis 0, read-only.
    """

    shards: tuple[NDArray[Any], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole."""
        return (sum(len(part) for part in self.shards), *self.shards[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the whole."""
        return self.shards[0].dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.shards[0].ndim

    @property
    def nbytes(self) -> int:
        """Bytes of the whole."""
        return sum(part.nbytes for part in self.shards)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for part in self.shards:
            yield from part

    def __getitem__(self, key: int | slice | NDArray[Any]) -> NDArray[Any]:
        """Rows by number, slice, or an array of numbers or of truths, as numpy gives them."""
        rows = np.arange(len(self))[key]  # numpy's own rules, and its IndexError
        if rows.ndim == 0:
            return self._row(int(rows))
        ends = np.cumsum([len(part) for part in self.shards])
        which = np.searchsorted(ends, rows, side="right")
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for shard in np.unique(which):
            mine = which == shard
            found[mine] = self.shards[shard][rows[mine] - (ends[shard] - len(self.shards[shard]))]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All of it, in memory."""
        if copy is False:
            raise ValueError("an array in several files can't be had without a copy")
        return np.concatenate(self.shards).astype(dtype or self.dtype, copy=False)

    def _row(self, row: int) -> NDArray[Any]:
        for part in self.shards:
            if row < len(part):
                return part[row]
            row -= len(part)
        raise IndexError(row)


@dataclass(frozen=True)
class Captured:
    """Activations of a data set.

    Attributes
    ----------
    arrays : mapping of layer name to array, (N, ...)
        Mapped from disk (:class:`Sharded`), or in memory.
    sources : tuple of str, N
    labels, predictions : ndarray, (N,), int64
        -1 where there is none.
    confidences : ndarray, (N,), float32
        Probability of the predicted class; NaN where there is none.
    places : ndarray, (N,), int64
        Where each sample stands in the data set; broken ones are missing.
    classes : tuple of str or None
        Names of the labels.
    outputs : tuple of str or None
        Names of the predictions.
    comparable : bool
        Whether labels and predictions number classes alike.
    skipped : tuple of Skipped
        Samples that couldn't be read.
    pool, model : str
    forms : mapping of layer name to Spatial or None
        How the axes of whole maps lie.
    masked : bool
        Whether an input says which tokens count; what it said isn't kept.
    """

    arrays: Mapping[str, Sharded | NDArray[Any]]
    sources: tuple[str, ...]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confidences: NDArray[np.float32]
    places: NDArray[np.int64]
    classes: tuple[str, ...] | None
    outputs: tuple[str, ...] | None
    comparable: bool
    skipped: tuple[Skipped, ...]
    pool: Pool
    model: str
    forms: Mapping[str, Spatial | None]
    masked: bool = False

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the captured layers, in the order of depth."""
        return tuple(self.arrays)

    def array(self, layer: str) -> Sharded | NDArray[Any]:
        """A layer's activations, (N, ...).

        Raises
        ------
        LayerError
            It wasn't captured.
        """
        if layer not in self.arrays:
            raise LayerError(f"layer {layer!r} was not captured; these were: {', '.join(self.layers)}")
        return self.arrays[layer]

    def width(self, layer: str) -> int:
        """How many numbers are kept of each sample."""
        return int(np.prod(self.array(layer).shape[1:]))

    def pooled(self, how: Pool) -> Captured:
        """The same capture with one vector for each sample.

        Raises
        ------
        InputError
            It was pooled in another way already.
        LayerError
            A layer that can't be pooled so.
        """
        if self.pool == how:
            return self
        if self.pool != "none" or (self.masked and how in ("mean", "max")):
            kept = f"pooled by {self.pool}" if self.pool != "none" else "without the mask that tells which tokens count"
            raise InputError(f"activations were captured {kept}: capture them again with --pool {how}")
        arrays = {}
        for layer, array in self.arrays.items():
            parts = array.shards if isinstance(array, Sharded) else (array,)
            arrays[layer] = np.concatenate([pool(part, how, self.forms.get(layer), layer=layer) for part in parts])
        return replace(self, arrays=arrays, pool=how)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Which samples the model misclassifies, as far as that can be told, (N,)."""
        known = (self.labels >= 0) & (self.predictions >= 0)
        return np.asarray(known & (self.labels != self.predictions) & self.comparable)

    @property
    def accuracy(self) -> float:
        """Share of the labelled samples that the model classifies rightly; NaN where that can't be told."""
        known = (self.labels >= 0) & (self.predictions >= 0)
        return float((~self.wrong)[known].mean()) if self.comparable and known.any() else float("nan")


def is_capture(path: str | Path) -> bool:
    """Whether a folder holds a capture."""
    return manifest(Path(path).expanduser()) is not None


def described(folder: str | Path) -> dict[str, Any]:
    """What a capture's manifest says of it.

    Raises
    ------
    InputError
        There is no capture.
    """
    folder = Path(folder).expanduser()
    known = manifest(folder)
    if known is None:
        raise InputError(f"{folder} holds no capture: make one with onnx-inspect capture MODEL DATASET -o {folder}")
    return known


def open(folder: str | Path, *, partial: bool = False) -> Captured:
    """Open what ``onnx-inspect capture`` wrote.

    Parameters
    ----------
    folder : str or Path
    partial : bool
        Take what is there of a capture that was interrupted; else it is refused.

    Raises
    ------
    InputError
        No capture, one that isn't complete, or one without any sample.
    """
    folder, known = Path(folder).expanduser(), described(folder)
    plan = Plan.from_json(known["plan"])
    store = Store(folder, plan.layers)
    records = [(shard, store.record(shard)) for shard in range(plan.shards)]
    missing = [shard for shard, record in records if record is None]
    if missing and not partial:
        raise InputError(
            f"the capture in {folder} was interrupted: {len(missing)} of {plan.shards} shards are missing; run the same"
            " capture again to go on with it"
        )
    there = [(shard, record) for shard, record in records if record is not None]
    full = [shard for shard, record in there if record["sources"]]
    if not full:
        raise InputError(f"the capture in {folder} holds no sample")

    def gather(key: str) -> list[Any]:
        return [value for _, record in there for value in record[key]]

    return Captured(
        arrays={layer: Sharded(tuple(_mapped(store.array_path(layer, s)) for s in full)) for layer in plan.layers},
        sources=tuple(gather("sources")),
        labels=np.array(gather("labels"), np.int64),
        predictions=np.array(gather("predictions"), np.int64),
        confidences=np.array([np.nan if c is None else c for c in gather("confidences")], np.float32),
        places=np.array(gather("places"), np.int64),
        classes=_names(known.get("classes")),
        outputs=_names(known.get("outputs")),
        comparable=bool(known.get("comparable")),
        skipped=tuple(Skipped(one["source"], one["reason"]) for one in gather("skipped")),
        pool=plan.pool,
        model=str(known.get("model", "")),
        forms={layer: _form(one) for layer, one in known["forms"].items()},
        masked=bool(known["masked"]),
    )


def _mapped(path: Path) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} can't be read: {error}; run the same capture again to mend it") from error
    return found


def _form(values: Any) -> Spatial | None:
    return Spatial(values["form"], tuple(values["grid"]), values["prefix"]) if values else None


def _names(values: Any) -> tuple[str, ...] | None:
    return tuple(values) if values else None
