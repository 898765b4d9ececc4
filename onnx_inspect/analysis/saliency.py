"""How a raw saliency map becomes what is drawn: cut at 0, scaled to [0, 1], on the original picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_inspect import ops
from onnx_inspect.analysis.montage import Montage, Tile
from onnx_inspect.cam._concepts import Concepts
from onnx_inspect.cam._probe import Attribution, is_flat
from onnx_inspect.forms import present_input
from onnx_inspect.inputs.batch import Batch

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in the original's pixels
Map = NDArray[np.float32]
Picture = NDArray[np.uint8]

UNSEEN = "hatched: outside what the network saw"


class Placed(Protocol):
    """Whatever brings a map over the model's input plane back onto the original."""

    def to_original(self, values: NDArray[Any]) -> Map:
        """Return (h, w) as (H, W), NaN where the network never saw the picture."""

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Return a point in [0, 1] of the model's input in the original's pixels."""


@dataclass(frozen=True)
class _Slices:
    """How a map over a volume lies on the picture that its slices make."""

    montage: Montage

    def to_original(self, values: NDArray[Any]) -> Map:
        """Enlarge (d, h, w) to the volume and lay its slices out."""
        return np.asarray(self.montage.lay(ops.resize(values, self.montage.size)), np.float32)

    def point(self, x: float, y: float, z: float = 0.5) -> tuple[float, float]:
        """Return a point in [0, 1] of the volume in the picture's pixels."""
        return self.montage.point(x, y, z)


@dataclass(frozen=True)
class Segments:
    """Which of several parts is the strongest where, in one sample.

    Attributes
    ----------
    number : ndarray, (H, W) of a picture or (L,) of a signal, int
        From 0.
    names : tuple of str
        What each part stands for; "" where that is not known.
    shares : tuple of float
        How much of the sample each part is.
    """

    number: NDArray[np.intp]
    names: tuple[str, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class CamMap:
    """One method's map of one sample, ready to be drawn.

    Attributes
    ----------
    method, layer : str
    target : str
        What was explained.
    score : float or None
    values : ndarray, (H, W) of a picture or (L,) of a signal, float32
        In [0, 1], or in [-1, 1] in the signed view; NaN where the network never saw the original.
    problem : str
        Why there is no evidence to show, in words; "" where there is.
    peak : (x, y) or None
        Centre of the strongest cell in the original's pixels (a signal's samples).
    box : (x0, y0, x1, y1) or None
        The box that was explained, outlined on this map alone.
    estimate : str
        What it rests on, where a budget kept the method from running in full; how far shares add up, where they should.
    segments : Segments or None
        Which of a method's several parts `values` is the strength of; they are drawn in colours of their own.
    """

    method: str
    layer: str
    target: str
    score: float | None
    values: Map
    problem: str = ""
    peak: tuple[float, float] | None = None
    box: Box | None = None
    estimate: str = ""
    segments: Segments | None = None


@dataclass(frozen=True)
class CamPanel:
    """One sample with the maps of all methods: a row of a figure.

    Attributes
    ----------
    source : str
    maps : tuple of CamMap
    picture : ndarray, (H, W, 3), uint8, or None
    signal : ndarray, (C, L), or None
        Drawn in place of a picture.
    boxes : tuple of (x0, y0, x1, y1)
        Outlined on every picture, in its pixels.
    signed : bool
        Whether the maps are in [-1, 1].
    notes : tuple of str
    unit : str
        What a map's colours mean, from 0 to 1.
    tiles : tuple of (x0, y0, x1, y1, number)
        Where the slices of a volume lie in the picture that they make.
    """

    source: str
    maps: tuple[CamMap, ...]
    picture: Picture | None = None
    signal: NDArray[Any] | None = None
    boxes: tuple[Box, ...] = ()
    signed: bool = False
    notes: tuple[str, ...] = ()
    unit: str = "relative evidence"
    tiles: tuple[Tile, ...] = ()


def panel(
    attributions: Sequence[Attribution],
    index: int,
    *,
    source: str,
    original: Picture | None = None,
    placement: Placed | None = None,
    array: NDArray[Any] | None = None,
    boxes: Sequence[Box] = (),
    signed: bool = False,
) -> CamPanel:
    """Gather one sample's maps, prepared for drawing.

    Parameters
    ----------
    attributions : sequence of Attribution
    index : int
        Which sample of them.
    source : str
    original : ndarray, (H, W, 3), uint8, optional
    placement : Placement, optional
        How the original lies in the model's input; without it a map covers the whole picture.
    array : ndarray, (C, H, W), (C, L) or (C, D, H, W), optional
        The model's input, channels first, drawn where there is no original; a volume as its slices side by side.
    boxes, signed
        Kept for the drawing.
    """
    signal = array if original is None and array is not None and array.ndim == 2 else None
    notes = []
    montage: Montage | None = None
    if array is not None and array.ndim == 4:
        montage = Montage.of((array.shape[1], array.shape[2], array.shape[3]))
        original, placement, array = None, _Slices(montage), montage.lay(array)
        notes.append(montage.note)
    if original is None and signal is None and array is not None:
        original, placement = _picture_of(array), placement if montage is not None else None
        notes.append("no original picture: the model's input, rescaled to its own range")
    size = (1, signal.shape[-1]) if signal is not None else None if original is None else original.shape[:2]
    maps = tuple(_map(a, index, placement, size, signed) for a in attributions)
    if original is not None and any(np.isnan(m.values).any() for m in maps if not m.problem):
        notes.append(UNSEEN)
    if original is not None and (missed := [m.method for m in maps if m.peak and not _inside(m.peak, original)]):
        notes.append(f"strongest outside the picture, in the letterbox bars: {', '.join(missed)}")
    tiles = montage.tiles if montage is not None else ()
    return CamPanel(source, maps, original, signal, tuple(boxes), signed, tuple(notes), tiles=tiles)


def of_batch(attributions: Sequence[Attribution], index: int, batch: Batch, *, signed: bool = False) -> CamPanel:
    """Gather the maps of one of a batch's samples, for drawing."""
    shown = present_input(batch)[index]  # (C, H, W)
    is_signal = batch.arrays[batch.primary].ndim < 4 and shown.shape[1] == 1
    original, placement = batch.originals[index], batch.placements[index]
    source = Path(batch.sources[index])
    return panel(
        attributions,
        index,
        source=source.stem if source.suffix else source.name,
        original=original,
        placement=placement,
        array=shown[:, 0] if is_signal else shown,
        signed=signed,
    )


def prepare(
    values: Map, *, placement: Placed | None = None, size: tuple[int, int] | None = None, signed: bool = False
) -> tuple[Map, str]:
    """Bring a raw map to what is drawn: the only place where a map is cut at 0, scaled and resized.

    ReLU, then ``(x - min) / (max - min)`` over the map's own cells, then bilinear resizing, which stays in [0, 1]. In
    the signed view ``x / max abs(x)`` instead, in [-1, 1].

    Parameters
    ----------
    values : ndarray, (h, w), float32
        Raw and signed, over the model's whole input plane.
    placement : Placement, optional
        Takes the map back to the original, NaN where the network saw nothing; else it is resized to `size`, if given.
    size : (int, int), optional
        Height and width of what the map covers.

    Returns
    -------
    map : ndarray, (H, W), float32
        All 0 where there is no evidence to show.
    problem : str
        Why there is none, in words; "" otherwise.
    """
    problem = ""
    if not np.isfinite(values).all():
        problem = "not finite: the map holds NaN or infinity"
    elif is_flat(values):
        problem = "flat map: no evidence"
    elif not signed and values.max() <= 0:
        problem = "all-negative: no positive evidence; the signed view shows what speaks against"
    unit = np.zeros(values.shape, np.float32)
    if not problem:
        unit = values / np.abs(values).max() if signed else to_unit(values)
    if placement is not None:
        return placement.to_original(unit), problem
    return (ops.resize(unit, size) if size is not None else unit), problem


def to_unit(values: Map) -> Map:
    """ReLU, then the smallest value to 0 and the largest to 1; a constant map becomes 0."""
    positive = np.maximum(values, 0).astype(np.float64)
    span = positive.max() - positive.min()
    return np.asarray((positive - positive.min()) / (span or 1), dtype=np.float32)


def _map(
    attribution: Attribution, index: int, placement: Placed | None, size: tuple[int, int] | None, signed: bool
) -> CamMap:
    raw = attribution.values[index]
    values, problem = prepare(raw, placement=placement, size=size, signed=signed)
    segments = None
    if attribution.concepts is not None and not problem:
        values, segments = _segments(attribution.concepts, index, placement, size)
    score = float(attribution.scores[index])
    return CamMap(
        method=attribution.method,
        layer=attribution.layer,
        target=attribution.targets[index] if attribution.class_aware else "looks at no class",
        score=score if attribution.class_aware and math.isfinite(score) else None,
        values=values[0] if size is not None and size[0] == 1 and values.ndim == 2 else values,
        segments=segments,
        problem=problem,
        estimate=said_beside(attribution, index),
        box=_on_picture(attribution.boxes[index], placement, size)
        if attribution.class_aware and attribution.boxes
        else None,
        peak=None
        if problem or segments is not None or attribution.values[index].max() <= 0
        else _peak(attribution.peak(index), placement, size),
    )


def said_beside(attribution: Attribution, index: int) -> str:
    """What is to be known of one input's map: what a budget was spent on, or how far shares add up; "" for nothing."""
    if attribution.estimate is not None:
        return attribution.estimate.describe(index)
    return attribution.account.describe(index) if attribution.account is not None else ""


def _segments(
    concepts: Concepts, index: int, placement: Placed | None, size: tuple[int, int] | None
) -> tuple[Map, Segments]:
    """Strength of the strongest concept at each place of what is drawn, in [0, 1], and which one it is."""
    strengths = concepts.strengths[index] / concepts.strengths[index].max()
    if placement is not None:
        stack = np.stack([placement.to_original(one) for one in strengths])
    else:
        stack = ops.resize(strengths, size) if size is not None else strengths
    values = stack.max(axis=0)
    number = np.where(np.isfinite(values), stack, 0).argmax(axis=0)
    if size is not None and size[0] == 1 and number.ndim == 2:
        number = number[0]
    return values, Segments(number, concepts.names, tuple(float(share) for share in concepts.shares[index]))


def _peak(
    point: tuple[float, ...], placement: Placed | None, size: tuple[int, int] | None
) -> tuple[float, float] | None:
    if placement is not None:
        return placement.point(*point)
    return None if size is None else (point[0] * size[1], point[1] * size[0])


def _on_picture(box: Box | None, placement: Placed | None, size: tuple[int, int] | None) -> Box | None:
    """A box in [0, 1] of the model's plane in the pixels of what is drawn."""
    if box is None or size is None:
        return None
    if placement is not None:
        return *placement.point(*box[:2]), *placement.point(*box[2:])
    return box[0] * size[1], box[1] * size[0], box[2] * size[1], box[3] * size[0]


def _inside(point: tuple[float, float], picture: Picture) -> bool:
    return 0 <= point[0] <= picture.shape[1] and 0 <= point[1] <= picture.shape[0]


def _picture_of(array: NDArray[Any]) -> Picture:
    """A model's input (C, H, W) as a picture: three channels as colours, else their mean; scaled to its own range."""
    planes = array.astype(np.float64) if len(array) == 3 else array.mean(axis=0, keepdims=True, dtype=np.float64)
    planes = np.nan_to_num(planes, posinf=0, neginf=0)
    span = planes.max() - planes.min()
    grey = np.rint(255 * (planes - planes.min()) / (span or 1)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(grey, (3, *grey.shape[1:])).transpose(1, 2, 0))
