"""Occlusion: what the score loses when a window of the input is covered (Zeiler and Fergus 2014, arXiv:1311.2901).

``L(p) = mean over the windows w that hold p of f(x) - f(x with w covered)``. Windows start every `stride`, the last
ones are cut at the border; overlaps are averaged, as Captum does. Lengths below 1 are shares of each side, so that a
picture's size doesn't matter; from 1 on they are pixels, or the tokens of a text, one of them by default. On a model
that is linear in the pixels each window's loss is exactly the sum of weight times (pixel less fill) inside it.
Cost: one full pass a window: 81 with the defaults.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._anytime import Plan, maps
from onnx_inspect.cam._masking import background, check_fill
from onnx_inspect.cam._params import between, score_kind
from onnx_inspect.cam._probe import Index, Maps, Probe

CLASS_AWARE = True
RESOLUTION = "input"
USES_LAYER = False
TEXT = {"window": "1", "stride": "1"}  # each token (or word) by itself


@dataclass(frozen=True)
class Params:
    """Window and stride (shares of each side below 1, else pixels), what covers the window, and which score is read."""

    window: float = 2 / 7
    stride: float = 2 / 21
    fill: str = "zero"
    score: str = "logit"

    def __post_init__(self) -> None:
        """Check the values."""
        between("window", self.window, 0, np.inf)
        between("stride", self.stride, 0, np.inf)
        check_fill(self.fill)
        score_kind(self.score)


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, H, W) or (N, D, H, W), signed: the score's loss, in its own unit."""
    count, size = len(probe.inputs), probe.inputs.shape[2:]
    sides = [spans(length, params.window, params.stride) for length in size]  # starts and ends along each
    lattice = tuple(len(starts) for starts, _ in sides)
    windows = math.prod(lattice)
    of = np.repeat(np.arange(count), windows)
    hidden = background(probe.inputs, params.fill)

    def rows(positions: Index) -> Maps:
        inputs, places = of[positions], np.unravel_index(positions % windows, lattice)
        variants = probe.inputs[inputs]
        filled = None if hidden is None else np.broadcast_to(hidden, probe.inputs.shape)
        for row, n in enumerate(inputs):
            cuts = (slice(s[at[row]], e[at[row]]) for (s, e), at in zip(sides, places, strict=True))
            window = (slice(None), *cuts)
            variants[row][window] = 0.0 if filled is None else filled[n][window]
        return variants

    probability = params.score == "probability"
    base = probe.base_scores(probability=probability)
    inside = [_inside(starts, ends, length) for (starts, ends), length in zip(sides, size, strict=True)]
    overlaps = reduce(np.multiply.outer, [one.sum(axis=0) for one in inside])

    def made(scores: NDArray[np.float64]) -> Maps:
        total = (base[:, None] - scores.reshape(count, windows)).reshape(count, *lattice)
        for one in inside:  # each turn takes the first of the windows' axes and puts the pixels' behind the others
            total = np.tensordot(total, one, (1, 0))
        return np.asarray(total / overlaps, np.float32)

    centres = [(starts + ends) / length for (starts, ends), length in zip(sides, size, strict=True)]
    places = np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1)
    plan = Plan(
        rows=rows,
        of=of,
        make=made,
        masks=list(np.arange(len(of)).reshape(count, windows, 1)),
        features=lambda n: places.reshape(windows, len(size)),
        probability=probability,
    )
    return maps(probe, plan)


def spans(length: int, window: float, stride: float) -> tuple[Index, Index]:
    """Starts and ends of the windows along a side; together they cover it. A stride never exceeds the window."""
    size = min(length, max(1, round(window * length if window < 1 else window)))
    step = min(size, max(1, round(stride * length if stride < 1 else stride)))
    starts = np.arange(0, length - size + step, step)
    return starts, np.minimum(starts + size, length)


def _inside(starts: Index, ends: Index, length: int) -> NDArray[np.float64]:
    """Whether each window (rows) holds each pixel (columns)."""
    pixels = np.arange(length)
    return ((starts[:, None] <= pixels) & (pixels < ends[:, None])).astype(np.float64)
