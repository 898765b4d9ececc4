"""KernelSHAP: Shapley values of superpixels, by a weighted regression (Lundberg and Lee 2017, arXiv:1705.07874).

``f(x_z) ~ f(x_0) + sum_j phi_j z_j`` over coalitions z of M superpixels, weighted by
``(M - 1) / (C(M, |z|) |z| (M - |z|))``, under ``sum_j phi_j = f(x) - f(x_0)``, which holds exactly; x_0 has all
superpixels hidden. As in the authors' code, sizes of coalitions are taken whole from the outside (1 and M - 1 first)
while the samples suffice, and the rest is drawn by weight, each with its complement. With 2^M - 2 samples or more the
values are exact for any model; on a model that is additive over superpixels they are exact once every superpixel is
told apart. Each pixel gets its superpixel's value; superpixels are numbered from 0.
Cost: samples + 1 full passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._cells import check_segmentation, dimmed, paint, segment
from onnx_inspect.cam._masking import check_fill
from onnx_inspect.cam._params import at_least, between, score_kind
from onnx_inspect.cam._probe import Maps, Probe

CLASS_AWARE = True
RESOLUTION = "input"
USES_LAYER = False
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Params:
    """Coalitions, about how many superpixels of which kind, fill and score."""

    samples: int = 1000
    segments: int = 50
    segmentation: str = "slic"
    compactness: float = 0.5
    fill: str = "zero"
    score: str = "logit"

    def __post_init__(self) -> None:
        """Check the values."""
        at_least("samples", self.samples, 2)
        at_least("segments", self.segments, 1)
        check_segmentation(self.segmentation)
        between("compactness", self.compactness, 0, np.inf)
        check_fill(self.fill)
        score_kind(self.score)


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, H, W), signed: each superpixel's share of ``f(x) - f(x_0)``, in the score's unit."""
    labels = probe.cells or segment(probe.inputs, params.segmentation, params.segments, params.compactness)
    seed = int(probe.rng.integers(2**63))  # every input draws the same stream, however many there are
    drawn = [coalitions(np.random.default_rng(seed), int(cells.max()) + 1, params.samples) for cells in labels]
    designs = [np.concatenate([np.zeros_like(z[:1]), z]) for z, _ in drawn]
    probability = params.score == "probability"
    full = probe.base_scores(probability=probability)

    def made(scores: list[Floats]) -> Maps:
        each = zip(drawn, scores, full, strict=True)
        return paint(labels, [solve(z, w, y[1:] - y[0], f - y[0]) for (z, w), y, f in each])

    return dimmed(probe, labels, designs, made, fill=params.fill, probability=probability, first=1)


def coalitions(rng: np.random.Generator, cells: int, samples: int) -> tuple[Maps, Floats]:
    """Coalitions (R, M) of 0 and 1, none of them empty or whole, and their weights (R,)."""
    if cells < 2:
        return np.ones((1, cells), np.float32), np.ones(1)
    sizes = np.arange(1, cells // 2 + 1)  # with their complements: M - size
    mass = (cells - 1) / (sizes * (cells - sizes)) * np.where(2 * sizes == cells, 1, 2)  # of all coalitions of a size
    chosen: list[Maps] = []
    weights: list[Floats] = []
    left, taken = samples, 0
    for size in sizes:
        number = comb(cells, int(size)) * (1 if 2 * size == cells else 2)
        if left * mass[taken] / mass[taken:].sum() < number * (1 - 1e-8):
            break  # drawing would meet each coalition of this size less than once
        chosen.append(_all_of(cells, int(size)))
        weights.append(np.full(number, mass[taken] / number))
        left, taken = left - number, taken + 1
    if taken < len(sizes):
        drawn = _draw(rng, cells, sizes[taken:], mass[taken:], max(left, 2))
        unique, repeats = np.unique(drawn, axis=0, return_counts=True)
        chosen.append(unique)
        weights.append(mass[taken:].sum() * repeats / repeats.sum())
    return np.concatenate(chosen).astype(np.float32), np.concatenate(weights)


def _all_of(cells: int, size: int) -> Maps:
    """All coalitions of a size and, where they differ, their complements."""
    members = np.array(list(combinations(range(cells), size)))
    shown = np.zeros((len(members), cells), np.float32)
    np.put_along_axis(shown, members, 1, axis=1)
    return shown if 2 * size == cells else np.concatenate([shown, 1 - shown])


def _draw(rng: np.random.Generator, cells: int, sizes: NDArray[np.intp], mass: Floats, count: int) -> Maps:
    """Random coalitions, sizes by their mass, each followed by its complement."""
    drawn = rng.choice(sizes, (count + 1) // 2, p=mass / mass.sum())
    ranks = rng.permuted(np.tile(np.arange(cells), (len(drawn), 1)), axis=1)
    shown = (ranks < drawn[:, None]).astype(np.float32)
    return np.stack([shown, 1 - shown], axis=1).reshape(-1, cells)[:count]


def solve(z: Maps, weights: Floats, gains: Floats, total: float) -> Floats:
    """Values (M,) that sum to `total` and fit the coalitions' gains over the empty one best."""
    cells = z.shape[1]
    even = total / cells
    roots = np.sqrt(weights)[:, None]
    free = np.eye(cells) - 1.0 / cells  # directions that leave the sum alone
    matrix = z.astype(np.float64)
    rest = gains - matrix.sum(axis=1) * even
    return even + free @ np.linalg.lstsq(roots * (matrix @ free), roots[:, 0] * rest, rcond=None)[0]
