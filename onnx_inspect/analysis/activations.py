"""What a layer held for one sample, arranged for one look: which channels, in which order, on which scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError, LayerError
from onnx_inspect.graph.model import Layer
from onnx_inspect.graph.spatial import Spatial
from onnx_inspect.trace import Trace

Kind = Literal["maps", "series", "volume", "tokens", "vector", "empty"]
Scale = Literal["own", "shared"]
Readings = Mapping[str, Spatial]

SHOWN: dict[Kind, int] = {"maps": 64, "series": 64, "volume": 64, "vector": 24}
SLICES = 8  # of a volume, along its depth
BLOCK = 1 << 20  # values turned into float64 at a time

Grid = NDArray[Any]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class ActivationView:
    """One layer's activations on one sample, arranged for drawing.

    Attributes
    ----------
    layer : Layer
    source : str
        What the sample is.
    kind : str
        How `values` is arranged: ``maps`` (K', h, w), ``series`` (K', L), ``volume`` (K', slices, h, w), ``tokens``
        (T, D) whole, ``vector`` (D,) whole, ``empty``.
    shape, dtype
        Of the sample's array as the model has it, the batch axis dropped.
    values : ndarray
        Raw values. Of maps, series and volumes only the channels shown, in the order of `channels`.
    channels : ndarray, (K',), int
        Numbers of the channels (of a vector: the elements) shown, the highest mean abs(a) first, ties by number. A
        vector short enough to be shown whole keeps its order; tokens list all D.
    strengths : ndarray, (K',), float64
        Mean of abs(a) over each shown channel's finite values; 0 where it has none.
    total : int
        Number of channels that the layer has.
    low, high : float
        Smallest and largest finite value of the whole layer on this sample; 0 where there is none.
    mean : ndarray or None
        Mean of abs(a) over ALL channels, finite values only: (h, w) of maps and of tokens with a known grid, (d, h, w)
        of volumes, (T,) of other tokens, (L,) of series.
    scale : str
        Whether each channel is to be drawn on its ``own`` scale or all on a ``shared`` one.
    dead, constant : int
        Channels of at least two values that are zero throughout; that hold one other value throughout.
    nan, inf : int
        Counts over the whole layer.
    slices : tuple of int
        The depths of a volume that `values` holds.
    depth : int
        The volume's full depth; 0 for the other kinds.
    original : ndarray, (H, W, 3), uint8, or None
        The picture that went in.
    labels : tuple of str or None
        Names of a vector's elements.
    notes : tuple of str
        Choices made that the reader should know.
    """

    layer: Layer
    source: str
    kind: Kind
    shape: tuple[int, ...]
    dtype: str
    values: Grid
    channels: NDArray[np.int64]
    strengths: NDArray[np.float64]
    total: int
    low: float
    high: float
    mean: NDArray[np.float64] | None = None
    scale: Scale = "own"
    dead: int = 0
    constant: int = 0
    nan: int = 0
    inf: int = 0
    slices: tuple[int, ...] = ()
    depth: int = 0
    original: NDArray[np.uint8] | None = None
    labels: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def hidden(self) -> int:
        """How many channels aren't shown."""
        return self.total - len(self.channels)

    @property
    def signed(self) -> bool:
        """Whether any value is negative."""
        return self.low < 0


def view(
    trace: Trace,
    layer: str | Layer,
    *,
    sample: int = 0,
    readings: Readings | None = None,
    limit: int | None = None,
    scale: Scale = "own",
    original: NDArray[np.uint8] | None = None,
    labels: tuple[str, ...] | None = None,
) -> ActivationView:
    """Arrange one layer's activations on one sample, the most active channels first.

    Parameters
    ----------
    trace : Trace
    layer : str or Layer
        One that the trace captured.
    sample : int
        Which of the N samples.
    readings : mapping of tensor name to Spatial, optional
        How tensors lie over the input's plane, where that is known. What it doesn't name is read by its rank: (N, K, h,
        w), (N, K, d, h, w), (N, T, D), (N, D).
    limit : int, optional
        Channels shown at most; 64, or 24 elements of a vector, where None.
    scale : str
        Kept for the drawing.
    original, labels
        Kept for the drawing; labels only where there is one for each element.

    Raises
    ------
    LayerError
        The trace has no such layer, or it doesn't hold numbers.
    InputError
        The trace has no such sample.
    """
    layer = _captured(trace, layer)
    if not 0 <= sample < len(trace.sources):
        raise InputError(f"sample {sample} is not in the trace, which has {len(trace.sources)}; count from 0")
    array = trace.activations[layer.name]
    notes: list[str] = []
    one, shape = _one(array, sample, len(trace.sources), notes)
    reading = (readings or {}).get(layer.output.name)
    reading = reading if fits(reading, one.shape) else None
    kind, values = _arrange(one, reading, notes)
    depth = values.shape[1] if kind == "volume" else 0
    slices = tuple(int(i) for i in np.unique(np.linspace(0, depth - 1, min(SLICES, depth)).round()))
    most = max(1, (limit or SHOWN.get(kind, values.size)) // max(1, len(slices)))
    chosen, strengths, dead, constant = _rank(kind, values, most)
    finite = _finite(values)
    return ActivationView(
        layer=layer,
        source=trace.sources[sample],
        kind=kind,
        shape=shape,
        dtype=str(array.dtype),
        values=_frozen(_shown(kind, values, chosen, slices)),
        channels=_frozen(chosen),
        strengths=_frozen(strengths),
        total=0 if kind == "empty" else values.shape[-1 if kind == "tokens" else 0],
        low=float(finite.min()) if finite.size else 0.0,
        high=float(finite.max()) if finite.size else 0.0,
        mean=_mean(kind, values, reading),
        scale=scale,
        dead=dead,
        constant=constant,
        nan=int(np.isnan(values).sum()),
        inf=int(np.isinf(values).sum()),
        slices=slices,
        depth=depth,
        original=original,
        labels=labels if labels is not None and kind == "vector" and len(labels) == values.size else None,
        notes=tuple(notes),
    )


def fits(reading: Spatial | None, shape: tuple[int, ...]) -> bool:
    """Whether a sample of that shape, without the batch axis, can have that reading."""
    if reading is None:
        return False
    if reading.form == "channels-first":
        return shape[1:] == reading.grid
    if reading.form == "channels-last":
        return shape[:-1] == reading.grid
    if reading.form == "windows":
        return False  # their first axis isn't the batch's
    return len(shape) == 2 and shape[0 if reading.form == "tokens" else 1] == reading.cells + reading.prefix


def _captured(trace: Trace, layer: str | Layer) -> Layer:
    name = layer if isinstance(layer, str) else layer.name
    found = next((la for la in trace.layers if la.name == name), None)
    if found is None:
        names = ", ".join(la.name for la in trace.layers[:5])
        raise LayerError(f"layer {name!r} was not captured; the trace has {len(trace.layers)}: {names}; capture it too")
    if trace.activations[name].dtype.kind not in "biuf":
        raise LayerError(f"layer {name!r} holds {trace.activations[name].dtype}, not numbers; choose another layer")
    return found


def _one(array: Grid, sample: int, batch: int, notes: list[str]) -> tuple[Grid, tuple[int, ...]]:
    """One sample's array and its shape; the whole one, laid out as rows, where its first axis isn't the batch."""
    if array.ndim and array.shape[0] == batch:
        return np.asarray(array[sample]), array.shape[1:]
    notes.append(f"its first axis isn't the batch of {batch}: shown whole" + _as_rows(array))
    return (array.reshape(-1, array.shape[-1]) if array.ndim > 2 else array), array.shape


def _as_rows(array: Grid) -> str:
    return f", {' × '.join(map(str, array.shape[:-1]))} as rows" if array.ndim > 2 else ""


def _arrange(one: Grid, reading: Spatial | None, notes: list[str]) -> tuple[Kind, Grid]:
    """Put the channels first and name the kind; singleton grids become vectors."""
    if one.size == 0:
        return "empty", one
    if reading is not None and reading.form == "channels-last":
        one = np.moveaxis(one, -1, 0)
    elif reading is not None and reading.form == "flat":
        one = one.reshape(len(one), *reading.grid) if reading.prefix == 0 else one.T
    by_rank: dict[int, Kind] = {2: "tokens", 3: "maps", 4: "volume"}
    kind = by_rank.get(one.ndim, "vector")
    if kind == "tokens" and reading is not None and reading.form.startswith("channels"):
        kind = "series"
    if one.ndim > 4:
        notes.append(f"of rank {one.ndim}" + _as_rows(one))
        kind, one = "tokens", one.reshape(-1, one.shape[-1])
    if kind == "tokens" and len(one) == 1:
        return "vector", one[0]
    if one.ndim < 2 or math.prod(one.shape[1:]) == 1:
        return ("tokens", one) if kind == "tokens" else ("vector", one.reshape(-1))
    return kind, one


def _rank(kind: Kind, values: Grid, most: int) -> tuple[NDArray[np.int64], NDArray[np.float64], int, int]:
    """Channels to show and their mean |a|, then how many of all are dead and constant."""
    if kind == "empty":
        return np.zeros(0, np.int64), np.zeros(0), 0, 0
    rows = values.T if kind == "tokens" else values.reshape(len(values), -1)  # (K, positions)
    strengths = _strengths(rows)
    if kind == "tokens" or (kind == "vector" and len(rows) <= most):
        order = np.arange(len(rows))
    else:
        order = np.argsort(-strengths, kind="stable")[:most]
    lowest, highest = rows.min(axis=1), rows.max(axis=1)  # NaN in a channel makes both NaN: neither dead nor constant
    still = (lowest == highest) & (rows.shape[1] > 1)
    return order, strengths[order], int((still & (lowest == 0)).sum()), int((still & (lowest != 0)).sum())


def _strengths(rows: Grid) -> NDArray[np.float64]:
    """Mean |a| of each row's finite values, 0 where it has none; (K, positions) -> (K,)."""
    step = max(1, BLOCK // rows.shape[1])
    found = []
    for start in range(0, len(rows), step):
        block = np.abs(rows[start : start + step], dtype=np.float64)
        finite = np.isfinite(block)
        found.append(np.where(finite, block, 0).sum(axis=1) / np.maximum(finite.sum(axis=1), 1))
    return np.concatenate(found)


def _finite(values: Grid) -> Grid:
    finite = np.isfinite(values)
    found: Grid = values.reshape(-1) if finite.all() else values[finite]
    return found


def _shown(kind: Kind, values: Grid, chosen: NDArray[np.int64], slices: tuple[int, ...]) -> Grid:
    if kind == "volume":
        return np.array(values[np.ix_(chosen, np.array(slices))])
    return np.array(values[chosen] if kind in ("maps", "series") else values)


def _mean(kind: Kind, values: Grid, reading: Spatial | None) -> NDArray[np.float64] | None:
    """Mean of |a| over all channels, adding one channel at a time."""
    if kind in ("vector", "empty"):
        return None
    total = np.zeros(values.shape[:1] if kind == "tokens" else values.shape[1:])
    number = np.zeros_like(total)
    for channel in values.T if kind == "tokens" else values:
        finite = np.isfinite(channel)
        total += np.where(finite, np.abs(channel, dtype=np.float64), 0)
        number += finite
    mean = total / np.maximum(number, 1)
    if kind == "tokens" and reading is not None and reading.form in ("tokens", "flat") and len(reading.grid) == 2:
        mean = mean[reading.prefix :].reshape(reading.grid)
    return _frozen(np.asarray(mean))


def _frozen(array: NDArray[T]) -> NDArray[T]:
    array.setflags(write=False)
    return array
