"""Recipro-CAM: positions weighted by the score they reach alone (Byun and Lee 2022, arXiv:2209.14074).

For each position only its surroundings are kept and the rest set to 0: ``S_ij = f_c``. The paper keeps A[:, i, j] alone
and takes probabilities: ``window=1, score=probability``. Here the neighbours are kept too, by half along each axis, as
its authors' ViT-Recipro-CAM does ([1 2 1; 2 4 2; 1 2 1] / 4), and logits are taken: that finds objects more often at
the same cost (benchmarks/README.md). Nothing stands in for what a window would keep beyond the border, where padding
has made activations less sure; activations that are the same everywhere give a flat map all the same. With
``gaussian=true`` the one position's vector is spread over its neighbourhood by [1 2 1; 2 4 2; 1 2 1] / 16 instead (off
by default, as the authors have it). For pooling and a linear layer without bias, ``window=1, score=logit`` is CAM
divided by the number of positions. Tokens before the grid (class, registers) are kept in every run.
Cost: one pass and h * w passes of the tail only; one pass where the tail is pooling and one linear layer: the scores
then follow from the channels' means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from onnx_inspect.cam._params import at_least, score_kind
from onnx_inspect.cam._probe import Index, Maps, Probe

CLASS_AWARE = True


@dataclass(frozen=True)
class Params:
    """Which score a position gets, how wide the kept window is (odd), and whether one position is spread instead."""

    score: str = "logit"
    window: int = 3
    gaussian: bool = False

    def __post_init__(self) -> None:
        """Check the choices."""
        score_kind(self.score)
        at_least("window", self.window, 1)
        if self.window % 2 == 0:
            raise ValueError(f"window is odd, so that it has a middle, got {self.window}")


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, *grid): logits, or probabilities in [0, 1]."""
    grid = probe.activations.shape[2:]
    bands = [_gaussian(extent) if params.gaussian else window(extent, params.window) for extent in grid]
    maps = _closed(probe, bands, params)
    if maps is None:
        maps = _by_runs(probe, bands, params)
    constant = (np.ptp(probe.activations.reshape(*probe.activations.shape[:2], -1), axis=2) == 0).all(axis=1)
    maps[constant] = maps[constant].mean(axis=tuple(range(1, maps.ndim)), keepdims=True)
    return maps


def _by_runs(probe: Probe, bands: Sequence[Maps], params: Params) -> Maps:
    """Scores of every position's surroundings, from a run of the tail each."""
    count, channels, *grid = probe.activations.shape
    cells = math.prod(grid)
    vectors, of = probe.activations.reshape(count, channels, cells), np.repeat(np.arange(count), cells)

    def rows(positions: Index) -> Maps:
        inputs, cell = of[positions], positions % cells
        share = _share(bands, cell)[:, None]  # (B, 1, *grid)
        if params.gaussian:
            return vectors[inputs, :, cell].reshape(len(cell), channels, *(1,) * len(grid)) * share
        return np.where(share > 0, probe.activations[inputs] * share, np.float32(0))

    scores = probe.tail_scores(rows, of, probability=params.score == "probability")
    return scores.reshape(count, *grid).astype(np.float32)


def _closed(probe: Probe, bands: Sequence[Maps], params: Params) -> Maps | None:
    """Scores from channel means alone; None where the tail isn't linear."""
    count, channels, *grid = probe.activations.shape
    cells, shape = math.prod(grid), (count, *grid)
    if params.score == "logit" and (weights := probe.linear_weights()) is not None:
        own = np.einsum("nk,nk...->n...", weights, probe.activations, dtype=np.float64)  # CAM
        bias = probe.base_scores() - own.reshape(count, -1).mean(axis=1)
        return np.asarray(_kept(own, bands, params) / cells + bias.reshape(-1, *(1,) * len(grid)), np.float32)
    means = np.moveaxis(_kept(probe.activations, bands, params), 1, -1).reshape(-1, channels) / np.float32(cells)
    of = np.repeat(np.arange(count), cells)
    scores = probe.pooled_scores(np.ascontiguousarray(means), of, probability=params.score == "probability")
    return None if scores is None else np.asarray(scores.reshape(shape), np.float32)


def _kept(values: Maps, bands: Sequence[Maps], params: Params) -> Maps:
    """Sum of what is kept for each position, of values (..., *grid)."""
    first = values.ndim - len(bands)
    if params.gaussian:
        total = reduce(np.multiply.outer, [band.sum(axis=1) for band in bands])
        return np.asarray(values * total, values.dtype)
    for axis, band in enumerate(bands, first):
        if len(band) > 1:
            values = np.moveaxis(np.einsum("ij,...j->...i", band, np.moveaxis(values, axis, -1)), -1, axis)
    return values


def window(extent: int, width: int) -> Maps:
    """Share of every place along an axis that is kept for each one (rows): all of its own, evenly less beside it."""
    places, reach = np.arange(extent), (width + 1) // 2
    return np.maximum(0, 1 - np.abs(places[:, None] - places) / reach).astype(np.float32)


def _gaussian(extent: int) -> Maps:
    """Share that each place along an axis (rows) gives to every place: what would leave the map is lost."""
    ones = np.ones(extent, np.float32)
    return np.asarray((np.diag(2 * ones) + np.diag(ones[1:], 1) + np.diag(ones[1:], -1)) / 4)


def _share(bands: Sequence[Maps], cell: Index) -> Maps:
    """Shares of all cells that belong to some, (B, *grid)."""
    places = np.unravel_index(cell, [len(band) for band in bands])
    share = np.ones(len(cell), np.float32)
    for band, place in zip(bands, places, strict=True):
        share = share[..., None] * band[place].reshape(len(cell), *(1,) * (share.ndim - 1), -1)
    return share
