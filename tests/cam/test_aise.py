"""AISE: its search against scipy's DIRECT, its sum against a loop, and a model that looks at one spot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import direct

from onnx_inspect.cam import aise
from onnx_inspect.cam._direct import Direct
from onnx_inspect.cam._probe import Probe
from onnx_inspect.cam.aise import Params

MakeProbe = Callable[..., Probe]
Array = NDArray[np.float64]


def hills(p: Array) -> float:
    """Three hills of different heights, none of them at a symmetric place."""
    places, heights = [(0.21, 0.83), (0.72, 0.31), (0.9, 0.77)], [0.7, 1.0, 0.8]
    near = [h * np.exp(-((p[0] - a) ** 2 + (p[1] - b) ** 2) / 0.02) for (a, b), h in zip(places, heights, strict=True)]
    return float(sum(near) + 0.1 * p[0] + 0.03 * p[1])


def search(budget: int, epsilon: float) -> Direct:
    found = Direct(budget, epsilon)
    while len(points := found.ask()):
        found.tell(np.array([hills(p) for p in points]))
    return found


@pytest.mark.parametrize("epsilon", [1e-4, 0.1])
def test_it_visits_the_points_that_scipys_direct_visits(epsilon: float) -> None:
    """Exactly the same rectangles are divided in the same rounds; only within a round the order differs."""
    theirs: list[tuple[float, float]] = []

    def watch(p: NDArray[np.float64]) -> float:
        theirs.append((round(float(p[0]), 9), round(float(p[1]), 9)))
        return -hills(p)

    direct(watch, [(0, 1), (0, 1)], eps=epsilon, maxfun=500, locally_biased=False, vol_tol=0)
    ours = [(round(float(a), 9), round(float(b), 9)) for a, b in search(500, epsilon).points]
    assert set(ours[:200]) <= set(theirs)
    assert set(theirs[:200]) <= set(ours)


def test_the_search_finds_the_highest_hill_within_its_budget() -> None:
    found = search(150, 1e-4)
    assert len(found.points) <= 150
    best = found.points[found.values.argmax()]
    np.testing.assert_allclose(best, [0.72, 0.31], atol=0.03)


def test_points_are_distinct_and_inside() -> None:
    points = search(200, 0.1).points
    assert len(np.unique(points.round(9), axis=0)) == len(points)
    assert points.min() > 0
    assert points.max() < 1


def spot(x: Array) -> Array:
    """Reads the mean of one spot, through a curve."""
    return np.stack([3 * np.tanh(2 * x[:, :, 5:9, 20:25].mean(axis=(1, 2, 3))), np.zeros(len(x))], axis=1)


@pytest.mark.parametrize(("estimate", "score"), [("sum", "probability"), ("mean", "logit")])
def test_the_peak_is_where_the_model_looks(make_probe: MakeProbe, estimate: str, score: str) -> None:
    x = np.random.default_rng(0).uniform(0.5, 1, (2, 3, 18, 30)).astype(np.float32)
    found = aise.attribute(make_probe(spot, x), Params(estimate=estimate, score=score))
    for values in found:
        row, column = np.unravel_index(values.argmax(), values.shape)
        assert abs(row - 6.5) <= 2.5
        assert abs(column - 22) <= 3.5


@pytest.mark.parametrize("estimate", ["sum", "mean"])
def test_the_map_is_the_windows_tried_weighted_by_their_gains(make_probe: MakeProbe, estimate: str) -> None:
    """One width, and the windows that a search with the same gains tries, laid out pixel by pixel."""
    x = np.random.default_rng(1).uniform(0.5, 1, (1, 3, 9, 14)).astype(np.float32)
    params = Params(windows=20, widths=1, narrowest=0.2, widest=0.2, estimate=estimate, score="logit")
    found = aise.attribute(make_probe(lambda v: v[:, 0, 2:5, 3:7].sum(axis=(1, 2))[:, None], x), params)[0]
    rows, columns = np.mgrid[0:1:9j, 0:1:14j]
    tried = Direct(20, 0.1)
    windows, gains = [], []
    while len(points := tried.ask()):
        values = []
        for a, b in points:
            window = np.exp(-((rows - a) ** 2 + (columns - b) ** 2) / (2 * 0.2**2))
            gain = (x[0, 0] * window - x[0, 0] * (1 - window))[2:5, 3:7].sum()
            windows.append(window)
            values.append(gain)
        gains += values
        tried.tell(np.array(values))
    total = sum(g * w for g, w in zip(gains, windows, strict=True))
    expected = total / np.abs(total).max() if estimate == "sum" else total
    if estimate == "mean":
        expected = total / sum(windows)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_the_budget_is_two_passes_a_window(make_probe: MakeProbe) -> None:
    counted = []
    x = np.random.default_rng(2).uniform(0.5, 1, (1, 3, 18, 30)).astype(np.float32)
    probe = make_probe(lambda v: (counted.append(len(v)), spot(v))[1], x)
    counted.clear()
    aise.attribute(probe, Params())
    assert 2 * 3 * 40 <= sum(counted) <= 2 * 3 * 50


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"widest is at least 0\.3"):
        Params(narrowest=0.3, widest=0.2)
    with pytest.raises(ValueError, match="'mean' or 'sum'"):
        Params(estimate="median")
