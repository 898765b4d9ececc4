"""HSIC: the trace formula written out, independence, and the cell that decides alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnx_inspect.cam import hsic
from onnx_inspect.cam._probe import Probe
from onnx_inspect.cam.hsic import Params, _balanced, dependence

MakeProbe = Callable[..., Probe]


@pytest.mark.parametrize("width", ["distance", "median"])
def test_it_equals_the_trace_of_centred_kernels(width: str) -> None:
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 2, (40, 5)).astype(np.float32)
    y = rng.normal(2, 1, 40) + masks[:, 1]
    n = len(y)
    pairs = [abs(a - b) for a in y for b in y]
    w = np.median(pairs) if width == "distance" else np.median(y)
    centring = np.eye(n) - 1 / n
    outer = np.array([[np.exp(-((a - b) ** 2) / (2 * w**2)) for b in y] for a in y])
    for i, value in enumerate(dependence(masks, y, width)):
        inner = np.array([[0.5 + (a == b) for b in masks[:, i]] for a in masks[:, i]])
        expected = np.trace(inner @ centring @ outer @ centring) / (n - 1) ** 2
        assert value == pytest.approx(expected, rel=1e-9)


def test_an_independent_cell_scores_near_nothing() -> None:
    """Under independence the expected value is about (1/4) E[1 - L] / n: a hundredth of full dependence at n = 400."""
    masks = _balanced(np.random.default_rng(1), 400, 6)
    y = 3 * masks[:, 2].astype(float) + np.random.default_rng(2).normal(0, 0.3, 400)
    values = dependence(masks, y)
    assert values.argmax() == 2
    assert np.delete(values, 2).max() < 0.05 * values[2]


def test_the_design_shows_every_cell_half_the_time() -> None:
    masks = _balanced(np.random.default_rng(3), 50, 9)
    np.testing.assert_array_equal(masks.sum(axis=0), 25)
    assert np.abs(np.corrcoef(masks.T) - np.eye(9)).max() < 0.5


def test_the_cell_that_decides_stands_out(make_probe: MakeProbe) -> None:
    """Only one cell is read, and its sign doesn't matter."""
    x = np.random.default_rng(4).uniform(0.5, 1, (1, 3, 16, 24)).astype(np.float32)
    for sign in (1, -1):
        score = lambda v, s=sign: s * 5 * v[:, :, 4:8, 12:18].mean(axis=(1, 2, 3))[:, None]  # noqa: E731
        found = hsic.attribute(make_probe(score, x), Params(cells=4, masks=200))[0]
        row, column = np.unravel_index(found.argmax(), found.shape)
        assert 4 <= row < 8
        assert 12 <= column < 18
        assert np.median(found) < 0.05 * found.max()


def test_a_score_that_never_moves_gives_zeros() -> None:
    masks = _balanced(np.random.default_rng(5), 20, 3)
    np.testing.assert_array_equal(dependence(masks, np.full(20, -1.5)), 0)
