"""What the positions of one tensor hang on: an interval along each axis of the input's plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.graph import windows
from onnx_inspect.graph.spatial import Spatial

Places = NDArray[np.int32]
BEYOND = np.int32(2**30)  # start of an interval that holds nothing; its end is 0


@dataclass(frozen=True)
class Field:
    """What one tensor hangs on.

    Attributes
    ----------
    starts, stops : tuple of ndarray, one for each axis of the input's plane
        First position and the one after the last, at each position of the tensor; an axis along which they don't vary
        is 1 long. Where nothing is read, start is beyond stop.
    """

    starts: tuple[Places, ...]
    stops: tuple[Places, ...]

    def moved(self, change: Callable[[Places], Places]) -> Field:
        """The same field after what moves values without mixing them."""
        return Field(tuple(map(change, self.starts)), tuple(map(change, self.stops)))

    def over(self, axes: Sequence[int], *, keep: bool = True) -> Field:
        """The smallest field that holds those of all positions along some axes."""
        at = tuple(axes)
        starts = tuple(s.min(axis=tuple(a for a in at if a < s.ndim), keepdims=keep) for s in self.starts)
        return Field(starts, tuple(s.max(axis=tuple(a for a in at if a < s.ndim), keepdims=keep) for s in self.stops))

    def whole(self, rank: int) -> Field:
        """What the tensor hangs on as a whole, for each position of another of some rank."""
        starts = tuple(np.full((1,) * rank, s.min(), np.int32) for s in self.starts)
        return Field(starts, tuple(np.full((1,) * rank, s.max(), np.int32) for s in self.stops))

    def ranked(self, rank: int) -> Field:
        """The same with axes before its own, as numpy broadcasts."""
        return self.moved(lambda a: a.reshape((1,) * (rank - a.ndim) + a.shape) if a.ndim < rank else a)

    def tapped(self, axis: int, taps: windows.Taps) -> Field:
        """What positions hang on that read these along an axis; (made, taps), those outside it read nothing."""
        return Field(
            tuple(_tap(s, axis, taps, BEYOND, np.minimum) for s in self.starts),
            tuple(_tap(s, axis, taps, np.int32(0), np.maximum) for s in self.stops),
        )

    def at(self, form: Spatial | None) -> NDArray[np.int32]:
        """Interval of each position of a map: (cells, axes of the plane, 2), start and stop; one cell without a form.

        (0, 0) along all axes where a position reads nothing, as beyond a border. Prefix tokens are left
        out, as they lie nowhere on the map.
        """
        starts = np.stack([_cells(start, form, np.minimum) for start in self.starts], -1)
        stops = np.stack([_cells(stop, form, np.maximum) for stop in self.stops], -1)
        found = np.stack([starts, stops], -1)
        found[~np.all(starts < stops, axis=-1)] = 0
        return found


def union(*fields: Field) -> Field:
    """What a tensor hangs on that is made of several, position by position, as numpy broadcasts them."""
    rank = max(s.ndim for field in fields for s in field.starts)
    ranked = [field.ranked(rank) for field in fields]
    starts, stops = list(ranked[0].starts), list(ranked[0].stops)
    for other in ranked[1:]:
        starts = [np.minimum(one, two) for one, two in zip(starts, other.starts, strict=True)]
        stops = [np.maximum(one, two) for one, two in zip(stops, other.stops, strict=True)]
    return Field(tuple(starts), tuple(stops))


def plane(shape: Sequence[int], axes: Sequence[int]) -> Field:
    """The input itself: each position hangs on itself.

    Parameters
    ----------
    shape : sequence of int
        Of one sample, with its batch axis of 1.
    axes : sequence of int
        Those of the plane.
    """
    starts = []
    for axis in axes:
        along = [1] * len(shape)
        along[axis] = shape[axis]
        starts.append(np.arange(shape[axis], dtype=np.int32).reshape(along))
    return Field(tuple(starts), tuple(np.asarray(start + 1, np.int32) for start in starts))


def reshaped(field: Field, before: Sequence[int], after: Sequence[int]) -> Field:
    """A field after a Reshape; axes that are neither split nor merged keep what they know."""
    groups = _groups(before, after)

    def change(array: Places) -> Places:
        whole, made = [1] * len(before), [1] * len(after)
        for inner, outer in groups:
            if any(array.shape[i] > 1 for i in inner):
                for i in inner:
                    whole[i] = before[i]
                for o in outer:
                    made[o] = after[o]
        return np.broadcast_to(array, whole).reshape(made)

    return field.ranked(len(before)).moved(change)


def _tap(array: Places, axis: int, taps: windows.Taps, nothing: np.int32, best: np.ufunc) -> Places:
    """Smallest or largest of what each position reads along an axis; what is the same along it stays so."""
    if array.shape[axis] == 1:
        return array
    inside = (taps >= 0) & (taps < array.shape[axis])
    read = np.moveaxis(array, axis, -1)[..., taps.clip(0, array.shape[axis] - 1)]  # (..., made, taps)
    return np.moveaxis(best.reduce(np.where(inside, read, nothing), axis=-1), -1, axis)


def _cells(array: Places, form: Spatial | None, best: np.ufunc) -> Places:
    """One end of the interval at each position of a map, (cells,)."""
    if form is None:
        return np.asarray(best.reduce(array, axis=None), np.int32).reshape(1)
    rank = 3 if form.form in ("tokens", "flat") else 2 + len(form.grid)
    channel = 1 if form.form in ("channels-first", "flat") else rank - 1
    places = best.reduce(array.reshape((1,) * (rank - array.ndim) + array.shape), axis=(0, channel))
    if form.form in ("tokens", "flat"):
        places = places[form.prefix : form.prefix + form.cells] if len(places) > 1 else places
        return np.broadcast_to(places, form.cells)
    return np.broadcast_to(places, form.grid).reshape(-1)


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Axes before and after a Reshape that hold the same values, in runs as short as can be."""
    found: list[tuple[list[int], list[int]]] = []
    i = o = 0
    while i < len(before) or o < len(after):
        inner: list[int] = []
        outer: list[int] = []
        left = right = 1
        while True:
            if i < len(before) and (left < right or (left == right and not inner) or o == len(after)):
                inner.append(i)
                left *= before[i]
                i += 1
            else:
                outer.append(o)
                right *= after[o]
                o += 1
            if (left == right and inner and outer) or (i == len(before) and o == len(after)):
                break
        found.append((inner, outer))
    return found
