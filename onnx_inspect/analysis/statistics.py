"""What each layer's values were like over the whole batch: moments, zeros, and channels that are dead or stuck."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.activations import BLOCK, Grid, Readings, fits
from onnx_inspect.graph.model import Layer
from onnx_inspect.graph.spatial import Spatial
from onnx_inspect.trace import Trace

SATURATED = 0.95  # this share of a channel's values at a bound: it no longer answers to its input
NEAR = 0.01  # of the range between the bounds: this close to one counts as at it
BOUNDS = {"Sigmoid": (0, 1), "HardSigmoid": (0, 1), "Tanh": (-1, 1), "Erf": (-1, 1), "Softsign": (-1, 1)}
CEILINGS = frozenset({"Clip", "Min", "QuantizeLinear"})  # bounded above by a number that the trace doesn't hold


@dataclass(frozen=True)
class LayerStatistics:
    """A layer's values over the whole batch; non-finite ones are counted and left out of the rest.

    Attributes
    ----------
    name, op_type : str
    shape : tuple of int
        With the batch axis.
    dtype : str
    mean, std, min, max : float or None
        `std` is the population's. None where there is no finite value.
    zeros : float or None
        Share of the finite values that are exactly 0, in [0, 1].
    channels : int or None
        None where the layer has no channel axis.
    dead, constant : tuple of int, or None
        Channels that are 0 at every position of every sample; that hold one other value everywhere. None where each
        channel has only one value, as a vector has on one sample: nothing can be said.
    saturated : tuple of int, or None
        Channels at least 95 % of whose finite values lie within 1 % of the range of either bound (Sigmoid, HardSigmoid,
        Tanh, Erf, Softsign), or exactly at the layer's own maximum (Clip, Min, 8-bit integers), dead ones left out.
        None for layers that nothing bounds.
    nan, inf : int
    """

    name: str
    op_type: str
    shape: tuple[int, ...]
    dtype: str
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    zeros: float | None
    channels: int | None
    dead: tuple[int, ...] | None
    constant: tuple[int, ...] | None
    saturated: tuple[int, ...] | None
    nan: int
    inf: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what isn't known is null, and no number is NaN or infinite."""
        lists = {name: _listed(getattr(self, name)) for name in ("dead", "constant", "saturated")}
        return {
            "layer": self.name,
            "op_type": self.op_type,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "mean": self.mean,
            "std": self.std,
            "min": self.min,
            "max": self.max,
            "zeros": self.zeros,
            "channels": self.channels,
            **lists,
            "nan": self.nan,
            "inf": self.inf,
        }


def statistics(trace: Trace, *, readings: Readings | None = None) -> tuple[LayerStatistics, ...]:
    """Statistics of every captured layer over the batch, in float64, block by block: no array is copied whole.

    Parameters
    ----------
    trace : Trace
    readings : mapping of tensor name to Spatial, optional
        As for :func:`~onnx_inspect.analysis.activations.view`: it says which axis counts channels. Else axis 1 of ranks
        2, 4 and 5, and the last of the others.
    """
    batch, found = len(trace.sources), []
    for layer in trace.layers:
        running = Running(layer, (readings or {}).get(layer.output.name))
        running.add(trace.activations[layer.name], batch)
        found.append(running.result())
    return tuple(found)


class Running:
    """One layer's statistics, gathered from parts of a batch; they don't depend on how it was parted."""

    def __init__(self, layer: Layer, reading: Spatial | None = None) -> None:
        self.layer, self.reading = layer, reading
        self.shape: tuple[int, ...] = ()
        self.dtype = np.dtype(np.float32)
        self.channels: int | None = None
        self.places = 0  # values of each channel
        self.sums: _Sums | None = None

    def add(self, array: Grid, batch: int) -> None:
        """Add a part, (n, ...), of `batch` samples."""
        cube = _by_channel(array, self.reading, batch)  # (n, K, positions)
        if self.sums is None:
            self.shape, self.dtype = array.shape, array.dtype
            self.channels = None if cube is None else cube.shape[1]
            self.sums = _Sums(self.channels or 1)
        else:
            self.shape = (self.shape[0] + array.shape[0], *self.shape[1:]) if self.shape else ()
        self.places += 0 if cube is None else cube.shape[0] * cube.shape[2]
        if array.dtype.kind in "biuf":
            for block in _blocks(array.reshape(1, 1, -1) if cube is None else cube):
                self.sums.add(block, BOUNDS.get(self.layer.op_type))

    def result(self) -> LayerStatistics:
        """What the parts so far were like."""
        sums = self.sums or _Sums(1)
        number, mean, squares = sums.whole()
        per_channel = self.places > 1
        stuck = _stuck(self.layer, self.dtype, sums)
        return LayerStatistics(
            name=self.layer.name,
            op_type=self.layer.op_type,
            shape=self.shape,
            dtype=str(self.dtype),
            mean=_plain(mean) if number else None,
            std=_plain(math.sqrt(squares / number)) if number else None,
            min=float(sums.low.min()) if number else None,
            max=float(sums.high.max()) if number else None,
            zeros=float(sums.zeros.sum() / number) if number else None,
            channels=self.channels,
            dead=_where(sums.still & (sums.high == 0)) if per_channel else None,
            constant=_where(sums.still & (sums.high != 0)) if per_channel else None,
            saturated=_where(stuck) if per_channel and stuck is not None else None,
            nan=sums.nan,
            inf=sums.inf,
        )


def _stuck(layer: Layer, dtype: np.dtype[Any], sums: _Sums) -> NDArray[np.bool_] | None:
    """Mark channels that stay at a bound of their function; None where it has none."""
    if layer.op_type in BOUNDS:
        at_bound = sums.near
    elif layer.op_type in CEILINGS or dtype in (np.uint8, np.int8):
        top = sums.high.max()
        at_bound = np.where((sums.high == top) & (top != 0), sums.peaks, 0)  # a 0 maximum means sparse or dead
    else:
        return None
    dead = sums.still & (sums.high == 0)
    stuck: NDArray[np.bool_] = (at_bound >= SATURATED * np.maximum(sums.number, 1)) & ~dead
    return stuck


class _Sums:
    """Running sums per channel over blocks (n, K, s); moments are merged as in Chan, Golub and LeVeque (1983)."""

    def __init__(self, channels: int) -> None:
        self.number = np.zeros(channels)
        self.mean = np.zeros(channels)
        self.squares = np.zeros(channels)  # of the distances from the mean
        self.zeros = np.zeros(channels)
        self.low = np.full(channels, np.inf)
        self.high = np.full(channels, -np.inf)
        self.peaks = np.zeros(channels)  # values equal to `high`
        self.near = np.zeros(channels)  # values near a bound
        self.strange = np.zeros(channels)  # NaN and infinity
        self.nan = self.inf = 0

    def add(self, raw: Grid, bounds: tuple[int, int] | None) -> None:
        block = raw.astype(np.float64)
        finite = np.isfinite(block)
        whole = bool(finite.all())  # the usual case, which needs no masks
        number = finite.sum(axis=(0, 2))
        if not whole:
            nan = int(np.isnan(block).sum())
            self.nan += nan
            self.inf += int((~finite).sum()) - nan
            self.strange += (~finite).sum(axis=(0, 2))
        self.zeros += (block == 0).sum(axis=(0, 2))
        self._moments(block if whole else np.where(finite, block, 0), finite, number)
        self._extremes(block, finite, whole)
        if bounds is not None:
            margin = NEAR * (bounds[1] - bounds[0])
            outer = (block <= bounds[0] + margin) | (block >= bounds[1] - margin)
            self.near += (outer & finite).sum(axis=(0, 2))

    def _moments(self, block: Grid, finite: NDArray[np.bool_], number: NDArray[np.int64]) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # beyond 1e154 squares overflow: no deviation is told then
            mean = block.sum(axis=(0, 2)) / np.maximum(number, 1)
            distances = (block - mean[:, None]) * finite
            shift = mean - self.mean
            both = np.maximum(self.number + number, 1)
            self.squares += np.square(distances, out=distances).sum(axis=(0, 2))
            self.squares += shift**2 * self.number * number / both
        self.mean += shift * number / both
        self.number += number

    def _extremes(self, block: Grid, finite: NDArray[np.bool_], whole: bool) -> None:
        low = (block if whole else np.where(finite, block, np.inf)).min(axis=(0, 2))
        high = (block if whole else np.where(finite, block, -np.inf)).max(axis=(0, 2))
        peaks = (finite & (block == high[:, None])).sum(axis=(0, 2))
        self.peaks = np.where(self.high >= high, self.peaks, 0) + np.where(high >= self.high, peaks, 0)
        self.low = np.minimum(self.low, low)
        self.high = np.maximum(self.high, high)

    @property
    def still(self) -> NDArray[np.bool_]:
        """Which channels hold one finite value throughout."""
        still: NDArray[np.bool_] = (self.low == self.high) & (self.strange == 0)
        return still

    def whole(self) -> tuple[float, float, float]:
        """Number, mean and sum of squared distances from it over all channels."""
        number = float(self.number.sum())
        mean = float((self.number * self.mean).sum() / max(number, 1))
        with np.errstate(over="ignore", invalid="ignore"):
            return number, mean, float((self.squares + self.number * (self.mean - mean) ** 2).sum())


def _by_channel(array: Grid, reading: Spatial | None, batch: int) -> Grid | None:
    """View of (N, ...) as (N, K, positions); None where no axis counts channels."""
    if array.ndim < 2 or array.size == 0:
        return None
    batched = len(array) == batch
    if reading is not None and batched and fits(reading, array.shape[1:]):
        first = reading.form in ("channels-first", "flat")
    else:
        first = batched and array.ndim in (2, 4, 5)
    if first:
        return array.reshape(*array.shape[:2], -1)
    return array.reshape(len(array), -1, array.shape[-1]).transpose(0, 2, 1)


def _blocks(cube: Grid) -> Iterator[Grid]:
    """Pieces of (N, K, positions) of about `BLOCK` values, every channel in each."""
    batch, channels, positions = cube.shape
    samples = max(1, BLOCK // max(1, channels * positions))
    places = max(1, BLOCK // max(1, channels))
    for n in range(0, batch, samples):
        for p in range(0, positions, places):
            yield cube[n : n + samples, :, p : p + places]


def _where(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.flatnonzero(mask))


def _plain(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _listed(channels: tuple[int, ...] | None) -> list[int] | None:
    return None if channels is None else list(channels)
