"""How a tensor's axes lie over the input's plane, and how that is told from where each of its elements comes from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Form = Literal["channels-first", "channels-last", "tokens", "flat", "windows"]
Shape = tuple[int, ...]
Cells = NDArray[np.int32]  # of a tensor's shape for one sample: the cell of each element on a grid, -1 for none


@dataclass(frozen=True)
class Spatial:
    """How a tensor's axes lie over the input's plane.

    Attributes
    ----------
    form : str
        ``channels-first`` (N, K, h, w), also 1-D and 3-D; ``channels-last`` (N, h, w, K); ``tokens`` (N, T, K);
        ``flat`` (N, K, T); ``windows`` (N * windows, T, K), or any other axes in front of the channels.
    grid : tuple of int
        Extent of the map along each spatial axis.
    prefix : int
        Tokens before the grid's (class, distillation, registers).
    places : tuple of int
        Of windows: where each cell of the grid lies among one sample's positions, all axes but the last as one. Empty
        for other forms.
    """

    form: Form
    grid: Shape
    prefix: int = 0
    places: Shape = ()

    @property
    def cells(self) -> int:
        """Number of positions of the map."""
        return math.prod(self.grid)


def spread(reading: Spatial, shape: Shape) -> Cells:
    """Cell of each element of a tensor, from its reading and its shape for one sample."""
    cells = np.arange(reading.cells, dtype=np.int32)
    if reading.form == "channels-first":
        return np.broadcast_to(cells.reshape(reading.grid), shape)
    if reading.form == "flat":
        row = np.full(shape[2], -1, np.int32)
        row[reading.prefix : reading.prefix + reading.cells] = cells
        return np.broadcast_to(row, shape)
    row = np.full(math.prod(shape[:-1]), -1, np.int32)
    row[list(reading.places) or np.arange(reading.prefix, reading.prefix + reading.cells)] = cells
    return np.broadcast_to(row.reshape(*shape[:-1], 1), shape)


def recognise(cells: Cells, grid: Shape) -> Spatial | None:
    """Reading of a tensor whose elements come from these cells of a grid; None where it is no map.

    One axis holds the channels. Each other position must belong to a cell of its own, or to a block of cells that was
    merged into it; positions without any cell (class tokens, padding) are left out. Merged blocks make a coarser grid.
    What covers but a part of the grid is none: its place on the plane would be lost.
    """
    shape, axes = cells.shape, len(grid)
    if len(shape) < 3 or not np.bincount(cells[cells >= 0], minlength=math.prod(grid)).all():
        return None
    if shape[0] == 1 and len(shape) == axes + 2:
        first, last = _lattice(cells, 1, grid), _lattice(cells, -1, grid)
        if first is not None and first.grid == shape[2:] and first.in_order:
            return Spatial("channels-first", first.grid)
        if last is not None and last.grid == shape[1:-1] and last.in_order:
            return Spatial("channels-last", last.grid)
    found = _lattice(cells, -1, grid)
    if found is not None:
        if shape[0] == 1 and len(shape) == 3 and found.in_order:
            return Spatial("tokens", found.grid, found.places[0])
        return Spatial("windows", found.grid, places=found.places)
    flat = _lattice(cells, 1, grid) if shape[0] == 1 and len(shape) == 3 else None
    return Spatial("flat", flat.grid, flat.places[0]) if flat is not None and flat.in_order else None


@dataclass(frozen=True)
class _Lattice:
    grid: Shape
    places: Shape  # position of each cell

    @property
    def in_order(self) -> bool:
        return self.places == tuple(range(self.places[0], self.places[0] + len(self.places)))


def _lattice(cells: Cells, axis: int, grid: Shape) -> _Lattice | None:
    """Read positions as a regular lattice, with the channels along one axis; None where they make none."""
    rows = np.moveaxis(cells, axis, -1).reshape(-1, cells.shape[axis])  # (positions, K)
    inside = rows >= 0
    kept = np.flatnonzero(inside.all(axis=1))
    if len(kept) < 2 or inside.any(axis=1).sum() != len(kept):
        return None
    alike = bool((rows == rows[:, :1]).all())
    middles = [c.sum(axis=1) for c in np.unravel_index(rows[kept, :1] if alike else rows[kept], grid)]
    lines = [np.unique(middle, return_inverse=True) for middle in middles]
    extents = tuple(len(values) for values, _ in lines)
    if math.prod(extents) != len(kept):
        return None
    cell = np.ravel_multi_index(tuple(place for _, place in lines), extents)
    places = np.full(len(kept), -1)
    places[cell] = kept
    return _Lattice(extents, tuple(places.tolist())) if (places >= 0).all() else None
