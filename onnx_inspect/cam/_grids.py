"""Which smooth random masks RISE draws, and what the scores under them make of each pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam import _anytime
from onnx_inspect.cam._anytime import Plan, coarse_size
from onnx_inspect.cam._masking import background, masked
from onnx_inspect.cam._params import one_of
from onnx_inspect.cam._probe import Index, Maps, Probe
from onnx_inspect.ops import one_blas_thread, resize

Floats = NDArray[np.float64]

BLOCK = 64  # masks that exist at one time while they are summed


@dataclass(frozen=True)
class GridMasks:
    """Random coarse grids, enlarged bilinearly and cropped at random places; only grids and places are kept.

    Attributes
    ----------
    grids : ndarray, (M, s, s), float32
        1 keeps a cell, 0 hides it; (M, s, s, s) for volumes.
    places : ndarray, (M, 2), int
        Top left corner of each mask's crop; (M, 3) for volumes.
    size : tuple of int
        Height and width of a mask; depth, height and width of a volume's.
    """

    grids: Maps
    places: Index
    size: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.grids)

    @cached_property
    def _enlarge(self) -> tuple[Maps, ...]:
        """Matrices (enlarged side, s) of linear interpolation, one for each axis."""
        cells = self.grids.shape[1]
        eye = np.eye(cells, dtype=np.float32)
        return tuple(resize(eye, ((cells + 1) * cell_side(side, cells), cells)) for side in self.size)

    def make(self, which: Index) -> Maps:
        """Masks at some positions, (B, H, W), in [0, 1]."""
        return _enlarged(self.grids[which], self._sides(which))

    @cached_property
    def coarse(self) -> Maps:
        """All masks, at a coarse resolution, (M, h, w)."""
        size, cells = coarse_size(self.size), self.grids.shape[1]
        parts = []
        for block in self._blocks():
            sides = [resize(m, (n, cells)) for m, n in zip(self._sides(block), size, strict=True)]
            parts.append(_enlarged(self.grids[block], sides))
        return np.concatenate(parts).astype(np.float32)

    def weighted_sum(self, weights: Floats) -> Floats:
        """Sum of all masks for each row of weights (R, M), as (R, H, W).

        Masks that are cropped at the same place are summed as grids; then each place along a side is enlarged once.
        """
        if len(self.size) > 2:
            return np.asarray(
                sum(np.tensordot(weights[:, block], self.make(block).astype(np.float64), 1) for block in self._blocks())
            )
        cells, ends = self.grids.shape[1], self.places.max(axis=0) + 1
        sums = np.zeros((*ends, len(weights), cells, cells))
        np.add.at(sums, tuple(self.places.T), weights.T[:, :, None, None] * self.grids[:, None])
        down, across = (
            matrix[np.arange(side)[:, None] + np.arange(end)].reshape(side, -1).astype(np.float64)  # (side, end * s)
            for matrix, side, end in zip(self._enlarge, self.size, ends, strict=True)
        )
        rows = sums.transpose(2, 0, 3, 1, 4).reshape(len(weights), down.shape[1], across.shape[1])
        return np.asarray(down @ rows @ across.T)

    def _sides(self, which: Index) -> list[Maps]:
        """What enlarges and crops grids along each axis: (B, H, s) and (B, W, s)."""
        return [
            matrix[start[:, None] + np.arange(side)]
            for matrix, start, side in zip(self._enlarge, self.places[which].T, self.size, strict=True)
        ]

    def _blocks(self) -> Iterator[Index]:
        for start in range(0, len(self), BLOCK):
            yield np.arange(start, min(start + BLOCK, len(self)))


def _enlarged(grids: Maps, sides: Sequence[Maps]) -> Maps:
    """Grids (B, s, ..., s) enlarged along each axis by (B, side, s)."""
    count = len(grids)
    with one_blas_thread():
        for side in sides:  # each turn enlarges the first axis and puts it behind the others
            shape = grids.shape
            moved = side @ grids.reshape(count, shape[1], -1)  # (B, side, rest)
            grids = np.moveaxis(moved.reshape(count, side.shape[1], *shape[2:]), 1, -1)
    return np.ascontiguousarray(grids, np.float32)


def cell_side(side: int, cells: int) -> int:
    """Pixels that a cell is shifted by at most."""
    return -(-side // cells)


def draw(rng: np.random.Generator, count: int, cells: int, keep: float, size: tuple[int, ...]) -> GridMasks:
    """Draw `count` masks of `cells` x `cells`, each cell kept with probability `keep`."""
    grids = (rng.random((count, *(cells,) * len(size))) < keep).astype(np.float32)
    places = np.stack([rng.integers(0, cell_side(side, cells), count) for side in size], axis=1)
    return GridMasks(grids, places, size)


def check_estimator(kind: str) -> None:
    """Refuse an estimator that is none of ``centred``, ``plain`` and ``coverage``.

    Raises
    ------
    ValueError
    """
    one_of("estimator", kind, "centred", "plain", "coverage")


def averaged(probe: Probe, masks: GridMasks, *, keep: float, fill: str, probability: bool, estimator: str) -> Maps:
    """Run inputs under masks and average the masks by their scores: RISE's maps, (N, H, W), in the score's unit."""
    count = len(probe.inputs)
    hidden = background(probe.inputs, fill)
    of = np.tile(np.arange(count), len(masks))  # all inputs under one mask, then under the next

    def rows(positions: Index) -> Maps:
        chosen, where = np.unique(positions // count, return_inverse=True)
        return masked(probe.inputs, hidden, of[positions], masks.make(chosen)[where])

    def made(scores: Floats, weighted_sum: Callable[[Floats], Floats]) -> Maps:
        own = scores.reshape(-1, count).T  # (N, M)
        if estimator == "coverage":
            shown = weighted_sum(np.ones((1, len(masks))))
            return np.asarray(weighted_sum(own) / np.maximum(shown, 1e-6), np.float32)
        mean = own.mean(axis=1, keepdims=True) if estimator == "centred" else np.zeros((count, 1))
        return np.asarray(
            mean.reshape(-1, *(1,) * len(masks.size)) + weighted_sum(own - mean) / (len(masks) * keep), np.float32
        )

    def sketched(scores: Floats) -> Maps:
        return made(scores, lambda weights: np.einsum("rm,m...->r...", weights, masks.coarse))

    plan = Plan(
        rows=rows,
        of=of,
        make=lambda scores: made(scores, masks.weighted_sum),
        masks=[np.arange(n, len(of), count)[:, None] for n in range(count)],
        features=lambda n: masks.coarse.reshape(len(masks), -1),
        probability=probability,
        sketch=sketched,
    )
    return _anytime.maps(probe, plan)
