"""Recipro-CAM: positions weighted by the score they reach alone (Byun and Lee 2022, arXiv:2209.14074).

For each position (i, j) only A[:, i, j] is kept and the rest set to 0: ``S_ij = softmax(f)_c``. With ``gaussian=true``
the vector is spread over its 3x3 neighbourhood by [1 2 1; 2 4 2; 1 2 1] / 16 (off by default, as the authors have it).
``score=logit`` takes scores before the softmax (as OpenVINO does): for pooling and a linear layer without bias they
are CAM's divided by the number of positions. Tokens before the grid (class, registers) are kept in every run.
Cost: one pass and h * w passes of the tail only; one pass where the tail is pooling and one linear layer: the scores of
a vector on its own then follow from its channels' means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from onnx_inspect.cam._probe import Index, Maps, Probe

CLASS_AWARE = True


@dataclass(frozen=True)
class Params:
    """Which score a position gets (``probability`` or ``logit``), and whether it is spread over its neighbours."""

    score: str = "probability"
    gaussian: bool = False

    def __post_init__(self) -> None:
        """Check the choice."""
        if self.score not in ("logit", "probability"):
            raise ValueError(f"score is 'logit' or 'probability', got {self.score!r}")


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, *grid): probabilities in [0, 1], or logits."""
    count, channels, *grid = probe.activations.shape
    cells = math.prod(grid)
    vectors = probe.activations.reshape(count, channels, cells).transpose(0, 2, 1)  # (N, cells, K)
    bands = [_band(extent) for extent in grid]
    of = np.repeat(np.arange(count), cells)
    probability = params.score == "probability"

    def rows(positions: Index) -> Maps:
        cell = positions % cells
        vector = vectors[of[positions], cell]  # (B, K)
        if params.gaussian:
            return np.asarray(vector.reshape(*vector.shape, *(1,) * len(grid)) * _share(bands, cell)[:, None])
        variants = np.zeros((len(positions), channels, cells), np.float32)
        variants[np.arange(len(positions)), :, cell] = vector
        return variants.reshape(len(positions), channels, *grid)

    given = [band.sum(axis=1) if params.gaussian else np.ones(len(band)) for band in bands]
    total = reduce(np.multiply.outer, given).reshape(cells, 1)
    means = np.asarray(vectors * np.float32(1 / cells) * total, np.float32).reshape(-1, channels)
    scores = probe.pooled_scores(means, of, probability=probability)
    if scores is None:
        scores = probe.tail_scores(rows, of, probability=probability)
    return scores.reshape(count, *grid).astype(np.float32)


def _band(extent: int) -> Maps:
    """Share that each place along an axis (rows) gives to every place: what would leave the map is lost."""
    ones = np.ones(extent, np.float32)
    return np.asarray((np.diag(2 * ones) + np.diag(ones[1:], 1) + np.diag(ones[1:], -1)) / 4)


def _share(bands: Sequence[Maps], cell: Index) -> Maps:
    """Share that some cells give to every cell, (B, *grid)."""
    places = np.unravel_index(cell, [len(band) for band in bands])
    share = np.ones(len(cell), np.float32)
    for band, place in zip(bands, places, strict=True):
        share = share[..., None] * band[place].reshape(len(cell), *(1,) * (share.ndim - 1), -1)
    return share
