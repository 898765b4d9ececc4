"""AISE: Gaussian windows placed where they help most, by a direct search (adaptive input sampling, OpenVINO XAI 2024).

For each of a few widths, DIRECT looks for the window k (a Gaussian with peak 1) with the largest
``s = f(x * k) - f(x * (1 - k))``: what the window keeps alive less what its absence leaves. All windows tried are
summed, ``sum s k``, divided by the sum's largest magnitude and added over the widths (OpenVINO divides by the maximum,
which is next to nothing where almost all gains are negative, and blows the map up).
OpenVINO XAI's settings: 50 windows for each of 3 widths from 0.1 to 0.25 of the sides, epsilon 0.1, probabilities. It
asks for one window at a time; here all inputs and widths, and all rectangles that a round divides, run together.

The sum counts places that were tried often as strong where s is positive and as weak where it is negative, so it needs
scores that are near 0 without evidence. For logits take ``estimate=mean``, ``sum s k / sum k``, which doesn't ask how
often a place was tried.
Cost: two full passes a window: 300 with the defaults. A budget makes the search shorter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._anytime import COARSE, ENOUGH, rank_correlation
from onnx_inspect.cam._budget import Estimate, Meter
from onnx_inspect.cam._direct import Direct
from onnx_inspect.cam._masking import background, check_fill, masked
from onnx_inspect.cam._params import at_least, one_of, score_kind
from onnx_inspect.cam._probe import Index, Maps, Probe

CLASS_AWARE = True
PLANES_ONLY = True
RESOLUTION = "input"
USES_LAYER = False
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Params:
    """Windows for each width; the widths, as shares of the sides; search epsilon; estimate; fill; score."""

    windows: int = 50
    widths: int = 3
    narrowest: float = 0.1
    widest: float = 0.25
    epsilon: float = 0.1
    estimate: str = "sum"
    fill: str = "zero"
    score: str = "probability"

    def __post_init__(self) -> None:
        """Check the values."""
        at_least("windows", self.windows, 1)
        at_least("widths", self.widths, 1)
        at_least("narrowest", self.narrowest, 1e-3)
        at_least("widest", self.widest, self.narrowest)
        at_least("epsilon", self.epsilon, 0)
        one_of("estimate", self.estimate, "mean", "sum")
        check_fill(self.fill)
        score_kind(self.score)


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, H, W), signed: for sums at most the number of widths, for means in the score's unit."""
    widths = np.linspace(params.narrowest, params.widest, params.widths)
    windows = params.windows
    if probe.meter is not None and probe.meter.passes is not None:
        windows = min(windows, max(1, probe.meter.passes // (2 * len(widths))))
    inputs = [[Direct(windows, params.epsilon) for _ in widths] for _ in probe.inputs]
    hidden = background(probe.inputs, params.fill)
    over: set[int] = set()
    while pending := [
        (n, w, search)
        for n, searches in enumerate(inputs)
        for w, search in enumerate(searches)
        if n not in over and len(search.ask())
    ]:
        counts = [len(search.ask()) for _, _, search in pending]
        owners = np.repeat([n for n, _, _ in pending], counts)
        sizes = np.repeat([widths[w] for _, w, _ in pending], counts)
        points = np.concatenate([search.ask() for _, _, search in pending])
        gains = _gains(probe, params, hidden, owners, points, sizes)
        for (_, _, search), own in zip(pending, np.split(gains, np.cumsum(counts)[:-1]), strict=True):
            search.tell(own)
        if probe.meter is not None:
            late = probe.meter.late
            over |= {n for n, s in enumerate(inputs) if late or _stability(s, widths, params) >= probe.meter.stable}
    if probe.meter is not None:
        whole = windows == params.windows and not over
        probe.meter.note(_estimate(inputs, widths, params, probe.meter, whole=whole))
    size = (probe.inputs.shape[2], probe.inputs.shape[3])
    return np.stack([_map(searches, widths, params, size) for searches in inputs])


def _map(
    searches: list[Direct], widths: Floats, params: Params, size: tuple[int, int], half: int | None = None
) -> Maps:
    """One input's map, (H, W): of all windows, or of one of two random halves."""
    combine = _mean if params.estimate == "mean" else _sum
    maps = []
    for search, width in zip(searches, widths, strict=True):
        windows = np.arange(len(search.values))
        if half is not None:
            windows = np.random.default_rng(0).permutation(windows)[half::2]
        maps.append(combine(search.points[windows], search.values[windows], width, size))
    return np.sum(maps, axis=0).astype(np.float32)


def _stability(searches: list[Direct], widths: Floats, params: Params) -> float:
    """Rank correlation of the maps of every second window and of the others; NaN of too few."""
    if sum(len(search.values) for search in searches) < ENOUGH or min(len(s.values) for s in searches) < 2:
        return float("nan")
    one, other = (_map(searches, widths, params, (COARSE, COARSE), half) for half in (0, 1))
    return rank_correlation(one, other)


def _estimate(inputs: list[list[Direct]], widths: Floats, params: Params, meter: Meter, *, whole: bool) -> Estimate:
    """What was spent; `whole` where no search was cut short."""
    spent = tuple(2 * sum(len(search.values) for search in searches) for searches in inputs)
    return Estimate(
        meter.budget.describe(),
        spent,
        spent if whole else (2 * params.windows * params.widths,) * len(inputs),
        tuple(_stability(searches, widths, params) for searches in inputs),
        meter.stable,
    )


def _gains(probe: Probe, params: Params, hidden: Maps | None, inputs: Index, points: Floats, widths: Floats) -> Floats:
    """``f(x * k) - f(x * (1 - k))`` of windows (P,), each on its own input."""
    of = np.repeat(inputs, 2)

    def rows(positions: Index) -> Maps:
        windows, inverse = np.divmod(positions, 2)
        down, across = _profiles(points[windows], widths[windows], probe.inputs.shape[2:])
        masks = (down[:, :, None] * across[:, None]).astype(np.float32)
        masks = np.where(inverse[:, None, None] == 1, 1 - masks, masks)
        return masked(probe.inputs, hidden, of[positions], masks)

    kept, lost = probe.scores(rows, of, probability=params.score == "probability").reshape(-1, 2).T
    return np.asarray(kept - lost)


def _profiles(points: Floats, widths: Floats, size: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Each window's fall along the rows (P, H) and the columns (P, W); their outer product is the window."""
    axes = [np.linspace(0, 1, side) if side > 1 else np.array([0.5]) for side in size]
    falls = [
        np.exp(-((axis - point[:, None]) ** 2) / (2 * widths[:, None] ** 2))
        for axis, point in zip(axes, points.T, strict=True)
    ]
    return falls[0], falls[1]


def _sum(points: Floats, gains: Floats, width: float, size: tuple[int, int]) -> Floats:
    """All windows of one search, weighted by their gains, in [-1, 1]."""
    down, across = _profiles(points, np.full(len(points), width), size)
    total = (down * gains[:, None]).T @ across
    top = float(np.abs(total).max())
    return np.asarray(total / top if top > 0 else total)


def _mean(points: Floats, gains: Floats, width: float, size: tuple[int, int]) -> Floats:
    """Gain of a window centred at each pixel, interpolated between those tried: ``sum s k / sum k``."""
    down, across = _profiles(points, np.full(len(points), width), size)
    return np.asarray((down * gains[:, None]).T @ across / np.maximum(down.T @ across, 1e-12))
