"""What each channel of a layer answers to over a data set: its strongest samples, classes, dead and equal channels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Maps = NDArray[np.float32]  # (n, K, cells)
Floats = NDArray[np.float64]
Index = NDArray[np.int64]
Picture = NDArray[np.uint8]

EQUAL = 0.99  # correlation from which two channels count as duplicates
POSITIONS = 64  # of each sample, evenly spread, that correlations are taken over
WIDEST = 2048  # channels whose correlations are kept: a table of their square
PAIRS = 1000  # duplicates that are told


@dataclass(frozen=True)
class Duplicate:
    """Two channels that say the same: their correlation over positions of the data set."""

    first: int
    second: int
    correlation: float


@dataclass(frozen=True)
class Crop:
    """What a channel saw where it answered strongest: a piece of a picture, or of a signal (length,).

    `box` is left, top, right, bottom in the original picture's pixels, or first and last place of a signal; it may
    reach beyond the picture where the model was shown a border.
    """

    pixels: NDArray[Any]
    box: tuple[float, ...]


@dataclass(frozen=True)
class Channels:
    """K channels of one layer over N samples, each sample counted at its strongest position.

    Attributes
    ----------
    layer, model : str
    kind : str
        ``channel`` or ``concept``.
    samples : int
    cells : int
        Positions of a map.
    values : ndarray, (K, top), float32
        Largest activations, one for each sample, best first; NaN where fewer samples than `top` raise the channel
        above its lowest value.
    rows, places : ndarray, (K, top), int64
        Row and place in the data set of the samples they are from; -1 for none.
    positions : ndarray, (K, top), int64
        Where on the map, counted row by row.
    low, high, mean : ndarray, (K,), float64
        Over all positions of all samples.
    active : ndarray, (K,), float64
        Share of the samples that raise the channel above 0 anywhere.
    groups : ndarray, (C,), int64
        Numbers of the classes.
    counts : ndarray, (C,), int64
    means : ndarray, (C, K), float64
        Mean activation over the positions of each class's samples.
    selectivity : ndarray, (K,), float64
        Class selectivity index, see :func:`selectivity`; NaN where fewer than two classes are known.
    duplicates : tuple of Duplicate, strongest first
        At most 1000; of dead channels none.
    compared : bool
        Whether duplicates were looked for: not in layers of more than 2048 channels.
    names : tuple of str or None
        Class names by number.
    by : str
        ``class``, ``predicted class``, or "".
    labels : ndarray, (N,), int64
        What `by` says of each row; -1 for none.
    sources : tuple of str, N
    all_places : ndarray, (N,), int64
        Where each row stands in the data set.
    fields : ndarray, (cells or 1, axes, 2), int32
        Receptive field of each position in the model's input, start and stop; no axes where there is none.
    plane : tuple of int
        Extent of the input's plane.
    crops : mapping of (channel, rank) to Crop
    """

    layer: str
    model: str
    kind: str
    samples: int
    cells: int
    values: NDArray[np.float32]
    rows: Index
    places: Index
    positions: Index
    low: Floats
    high: Floats
    mean: Floats
    active: Floats
    groups: Index
    counts: Index
    means: Floats
    selectivity: Floats
    duplicates: tuple[Duplicate, ...]
    compared: bool
    names: tuple[str, ...] | None = None
    by: str = ""
    labels: Index = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)
    sources: tuple[str, ...] = field(default=(), repr=False)
    all_places: Index = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)
    fields: NDArray[np.int32] = field(default_factory=lambda: np.zeros((1, 0, 2), np.int32), repr=False)
    plane: tuple[int, ...] = ()
    crops: Mapping[tuple[int, int], Crop] = field(default_factory=dict, repr=False)

    @property
    def count(self) -> int:
        """How many channels."""
        return len(self.low)

    @property
    def dead(self) -> NDArray[np.bool_]:
        """Channels that hold one and the same value at every position of every sample, (K,)."""
        return np.asarray(self.low == self.high)

    @property
    def preferred(self) -> Index:
        """Class with the highest mean activation, (K,); -1 where no class is known or the channel is dead."""
        if not len(self.groups):
            return np.full(self.count, -1, np.int64)
        return np.where(self.dead, -1, self.groups[self.means.argmax(axis=0)])

    @property
    def whole(self) -> bool:
        """Whether every position sees the whole input."""
        seen = self.fields[..., 1] - self.fields[..., 0]
        return bool(self.fields.shape[1]) and bool((seen == np.array(self.plane)).all())

    @property
    def field_size(self) -> tuple[int, ...]:
        """Largest extent of a receptive field along each axis of the plane."""
        return tuple((self.fields[..., 1] - self.fields[..., 0]).max(axis=0).tolist())

    def name(self, group: int) -> str:
        """A class's name; "" for none."""
        if group < 0:
            return ""
        return self.names[group] if self.names is not None and group < len(self.names) else str(group)

    def ranked(self) -> list[int]:
        """Channels from the most selective to the least, the dead last; by largest value where no class is known."""
        known = np.isfinite(self.selectivity).any()
        key = np.nan_to_num(self.selectivity, nan=-1) if known else self.high
        return np.argsort(-np.where(self.dead, -np.inf, key), kind="stable").tolist()

    def to_json(self, chosen: Sequence[int]) -> dict[str, Any]:
        """Plain values of the layer and of some channels."""
        return {
            "model": self.model,
            "layer": self.layer,
            "samples": self.samples,
            "by": self.by or None,
            "receptive_field": list(self.field_size) if self.fields.shape[1] else None,
            "whole_input": self.whole,
            "selectivity_index": "(max - rest) / (max + rest) of class means of max(a, 0); Morcos et al. 2018",
            f"{self.kind}s_in_all": self.count,
            "dead": np.flatnonzero(self.dead).tolist(),
            "duplicates": [[d.first, d.second, d.correlation] for d in self.duplicates] if self.compared else None,
            f"{self.kind}s": [self._one(k) for k in chosen],
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What ``channels --save`` writes: all of the numbers, without pictures."""
        meta = {"layer": self.layer, "model": self.model, "by": self.by, "names": list(self.names or ())}
        names = (
            "values rows places positions low high mean active groups counts means selectivity dead labels fields"
        ).split()
        pairs = np.array([[d.first, d.second] for d in self.duplicates], np.int64).reshape(-1, 2)
        return {name: np.asarray(getattr(self, name)) for name in names} | {
            "duplicates": pairs,
            "correlations": np.array([d.correlation for d in self.duplicates]),
            "sources": np.array(self.sources),
            "meta": np.array(json.dumps(meta)),
        }

    def _one(self, k: int) -> dict[str, Any]:
        filled = np.flatnonzero(self.rows[k] >= 0).tolist()
        means = {self.name(int(g)): float(self.means[n, k]) for n, g in enumerate(self.groups)}
        return {
            self.kind: k,
            "dead": bool(self.dead[k]),
            "selectivity": float(self.selectivity[k]),
            "preferred": self.name(int(self.preferred[k])) or None,
            "mean": float(self.mean[k]),
            "lowest": float(self.low[k]),
            "highest": float(self.high[k]),
            "active_samples": float(self.active[k]),
            "class_means": means,
            "top": [self._crop(k, rank) for rank in filled],
        }

    def _crop(self, k: int, rank: int) -> dict[str, Any]:
        row, crop = int(self.rows[k, rank]), self.crops.get((k, rank))
        return {
            "source": self.sources[row],
            "place": int(self.places[k, rank]),
            "class": self.name(int(self.labels[row])) or None,
            "value": float(self.values[k, rank]),
            "position": int(self.positions[k, rank]),
            "box": list(crop.box) if crop is not None else None,
        }


class Tally:
    """What of a data set's activations is kept while they pass: its size doesn't depend on how many samples pass.

    Parameters
    ----------
    channels : int
    top : int
        Samples that are remembered for each channel.
    """

    def __init__(self, channels: int, top: int) -> None:
        self.top = top
        self._values = np.zeros((0, channels), np.float32)
        self._rows, self._places, self._positions = (np.zeros((0, channels), np.int64) for _ in range(3))
        self._low, self._high = np.full(channels, np.inf), np.full(channels, -np.inf)
        self._active = np.zeros(channels)
        self._classes: dict[int, tuple[int, Floats, Floats]] = {}  # samples, sums of a, sums of max(a, 0)
        self._total, self._count, self._cells = np.zeros(channels), 0, 0
        self._pairs = _Pairs(channels) if channels <= WIDEST else None

    def add(self, maps: Maps, groups: Index, places: Index) -> None:
        """Take some samples in.

        Parameters
        ----------
        maps : ndarray, (n, K, cells), float32
            Finite.
        groups : ndarray, (n,), int64
            Their classes; -1 for none.
        places : ndarray, (n,), int64
            Where they stand in the data set.
        """
        count, _, self._cells = maps.shape
        peaks = maps.argmax(axis=2)  # (n, K)
        values = np.take_along_axis(maps, peaks[..., None], axis=2)[..., 0]
        self._low, self._high = np.minimum(self._low, maps.min(axis=(0, 2))), np.maximum(self._high, values.max(axis=0))
        self._active += (values > 0).sum(axis=0)
        self._remember(values, peaks, self._count + np.arange(count), places)
        means = maps.mean(axis=2, dtype=np.float64)  # (n, K)
        above = np.maximum(maps, 0).mean(axis=2, dtype=np.float64)
        self._total += means.sum(axis=0)
        for group in np.unique(groups[groups >= 0]).tolist():
            mine = groups == group
            before, sums, rectified = self._classes.get(group, (0, 0, 0))
            self._classes[group] = (
                before + int(mine.sum()),
                sums + means[mine].sum(axis=0),
                rectified + above[mine].sum(axis=0),
            )
        self._count += count
        if self._pairs is not None:
            self._pairs.add(maps)

    def result(self, *, layer: str, model: str, kind: str = "channel", **more: Any) -> Channels:
        """What was found; `more` are further fields of :class:`Channels`."""
        low, high = self._low, self._high
        raised = self._values > low  # (<= top, K)
        short = self.top - len(raised)
        groups = sorted(self._classes)
        counts = np.array([self._classes[g][0] for g in groups], np.int64)
        sums, rectified = (
            np.stack([self._classes[g][which] for g in groups]) if groups else np.zeros((0, len(low)))
            for which in (1, 2)
        )
        share = np.maximum(counts, 1)[:, None]

        def padded(array: NDArray[Any], empty: float) -> NDArray[Any]:
            return np.pad(np.where(raised, array, empty), ((0, short), (0, 0)), constant_values=empty).T

        return Channels(
            layer=layer,
            model=model,
            kind=kind,
            samples=self._count,
            cells=self._cells,
            values=padded(self._values, np.nan).astype(np.float32),
            rows=padded(self._rows, -1),
            places=padded(self._places, -1),
            positions=padded(self._positions, -1),
            low=low,
            high=high,
            mean=self._total / max(self._count, 1),
            active=self._active / max(self._count, 1),
            groups=np.array(groups, np.int64),
            counts=counts,
            means=sums / share,
            selectivity=selectivity(rectified / share),
            duplicates=self._pairs.found(low < high) if self._pairs is not None else (),
            compared=self._pairs is not None,
            **more,
        )

    def _remember(self, values: NDArray[np.float32], peaks: Index, rows: Index, places: Index) -> None:
        """Keep the largest of what was kept and what is new; of equal ones those that came first."""
        shape = values.shape
        merged = np.concatenate([self._values, values])
        best = np.argsort(-merged, axis=0, kind="stable")[: self.top]

        def kept(before: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
            return np.take_along_axis(np.concatenate([before, new]), best, axis=0)

        self._values = kept(self._values, values)
        self._rows = kept(self._rows, np.broadcast_to(rows[:, None], shape))
        self._places = kept(self._places, np.broadcast_to(places[:, None], shape))
        self._positions = kept(self._positions, peaks)


def selectivity(means: Floats) -> Floats:
    """Class selectivity index of Morcos et al. 2018 (arXiv:1803.06959): ``(max - rest) / (max + rest)``.

    Parameters
    ----------
    means : ndarray, (C, K), >= 0
        Mean activation of each class; `max` is the largest, `rest` the mean of the other classes'.

    Returns
    -------
    ndarray, (K,), float64
        From 0 (all classes alike) to 1 (one class alone); 0 for a channel that is 0 everywhere, NaN for C < 2.

    Examples
    --------
    >>> selectivity(np.array([[1.0, 3.0, 0.0], [1.0, 1.0, 2.0], [1.0, 1.0, 0.0]])).tolist()
    [0.0, 0.5, 1.0]
    """
    count = len(means)
    if count < 2:
        return np.full(means.shape[1], np.nan)
    most = means.max(axis=0)
    rest = (means.sum(axis=0) - most) / (count - 1)
    total = most + rest
    return np.divide(most - rest, total, out=np.zeros_like(total), where=total > 0)


class _Pairs:
    """Correlations of channels over evenly spread positions, from sums about the first samples' mean."""

    def __init__(self, channels: int) -> None:
        self._sums, self._products = np.zeros(channels), np.zeros((channels, channels))
        self._about: Floats | None = None
        self._count = 0

    def add(self, maps: Maps) -> None:
        cells = maps.shape[2]
        picked = np.unique(np.linspace(0, cells - 1, min(POSITIONS, cells)).round().astype(int))
        rows = maps[:, :, picked].transpose(0, 2, 1).reshape(-1, maps.shape[1]).astype(np.float64)  # (n * picked, K)
        if self._about is None:
            self._about = rows.mean(axis=0)
        rows -= self._about
        self._sums += rows.sum(axis=0)
        self._products += rows.T @ rows
        self._count += len(rows)

    def found(self, alive: NDArray[np.bool_]) -> tuple[Duplicate, ...]:
        mean = self._sums / max(self._count, 1)
        covariance = self._products / max(self._count, 1) - np.outer(mean, mean)
        spread = np.sqrt(np.maximum(covariance.diagonal(), 0))
        scale = np.outer(spread, spread)
        known = np.outer(alive & (spread > 0), alive & (spread > 0))
        table = np.divide(covariance, scale, out=np.zeros_like(scale), where=known & (scale > 0))
        first, second = np.nonzero(np.triu(np.abs(table) >= EQUAL, 1))
        order = np.argsort(-np.abs(table[first, second]), kind="stable")[:PAIRS]
        return tuple(
            Duplicate(int(first[n]), int(second[n]), float(np.clip(table[first[n], second[n]], -1, 1))) for n in order
        )
