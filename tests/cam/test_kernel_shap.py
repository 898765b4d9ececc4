"""KernelSHAP: exact additivity, exact Shapley values where all coalitions are run, exact on additive models."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from math import comb

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.cam import kernel_shap
from onnx_inspect.cam._cells import segment
from onnx_inspect.cam._probe import Probe
from onnx_inspect.cam.kernel_shap import Params, coalitions, solve

MakeProbe = Callable[..., Probe]
Array = NDArray[np.float64]

SIZE = (12, 18)


def inputs() -> Array:
    return np.random.default_rng(1).normal(0.3, 1, (2, 3, *SIZE)).astype(np.float32)


def crooked(x: Array) -> Array:
    """Neither additive nor monotone in the superpixels."""
    return np.stack(
        [np.tanh(x.sum(axis=(1, 2, 3)) / 9) * 5, x.max(axis=(1, 2, 3)) * x.mean(axis=(1, 2, 3)) * 30], axis=1
    )


def total(values: Array, cells: Array) -> float:
    """Sum over superpixels of the value that their pixels show."""
    return sum(float(values[cells == c][0]) for c in range(cells.max() + 1))


@pytest.mark.parametrize("fill", ["zero", "mean", "0.7"])
@pytest.mark.parametrize("score", ["logit", "probability"])
def test_values_sum_to_what_the_superpixels_add(make_probe: MakeProbe, fill: str, score: str) -> None:
    """Exactly f(x) - f(x_0), whatever the model and however few the samples; the map is in float32."""
    from onnx_inspect.cam._masking import background
    from onnx_inspect.ops import softmax

    x = inputs()
    found = kernel_shap.attribute(
        make_probe(crooked, x, classes=1), Params(samples=25, segments=15, fill=fill, score=score)
    )
    hidden = background(x, fill)
    empty = np.zeros_like(x) if hidden is None else np.broadcast_to(hidden, x.shape)
    read = softmax if score == "probability" else np.asarray
    gain = read(crooked(x.astype(float)))[:, 1] - read(crooked(empty.astype(float)))[:, 1]
    for n, cells in enumerate(segment(x, "slic", 15, 0.5)):
        assert total(found[n], cells) == pytest.approx(gain[n], rel=1e-5, abs=1e-5)


def test_with_all_coalitions_it_is_the_shapley_value(make_probe: MakeProbe) -> None:
    """The definition: a player's gain, averaged over all orders in which the players come in."""
    x = inputs()
    found = kernel_shap.attribute(
        make_probe(crooked, x, classes=1), Params(samples=62, segments=6, segmentation="grid")
    )
    for n, cells in enumerate(segment(x, "grid", 6, 0.5)):
        assert cells.max() == 5
        worth = {}
        for code in range(64):
            mask = np.array([(code >> c) & 1 for c in range(6)])[cells]
            worth[code] = crooked((x[n] * mask)[None].astype(float))[0, 1]
        value = np.zeros(6)
        for order in permutations(range(6)):
            code = 0
            for player in order:
                value[player] += worth[code | 1 << player] - worth[code]
                code |= 1 << player
        np.testing.assert_allclose(found[n], (value / 720)[cells], rtol=1e-4, atol=1e-5)


def test_an_additive_model_is_exact_with_few_samples(make_probe: MakeProbe) -> None:
    weights = np.random.default_rng(2).normal(size=(3, *SIZE))
    x = inputs()
    params = Params(samples=120, segments=20)
    found = kernel_shap.attribute(make_probe(lambda v: (v * weights).sum(axis=(1, 2, 3))[:, None] - 4, x), params)
    for n, cells in enumerate(segment(x, "slic", 20, 0.5)):
        expected = np.bincount(cells.ravel(), (weights * x[n]).sum(axis=0).ravel())
        np.testing.assert_allclose(found[n], expected[cells], rtol=1e-3, atol=1e-3)


def test_weights_are_the_shapley_kernel() -> None:
    z, weights = coalitions(np.random.default_rng(0), 7, 126)
    assert len(z) == 126
    assert len(np.unique(z, axis=0)) == 126
    sizes = z.sum(axis=1).astype(int)
    kernel = np.array([6 / (comb(7, s) * s * (7 - s)) for s in sizes])
    np.testing.assert_allclose(weights, kernel)


def test_outer_sizes_are_taken_whole_and_the_rest_keeps_its_mass() -> None:
    z, weights = coalitions(np.random.default_rng(0), 20, 300)
    assert len(z) <= 300
    sizes = z.sum(axis=1).astype(int)
    assert (np.bincount(sizes, minlength=20)[[1, 19]] == 20).all()
    assert sizes.min() >= 1
    assert sizes.max() <= 19
    assert weights.sum() == pytest.approx(sum(19 / (s * (20 - s)) for s in range(1, 20)))
    for row in z[-10:]:  # drawn, each with its complement
        assert (z == 1 - row).all(axis=1).any()


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_few_superpixels_work(make_probe: MakeProbe, cells: int) -> None:
    z, weights = coalitions(np.random.default_rng(0), cells, 1000)
    truth = np.arange(1.0, cells + 1)
    np.testing.assert_allclose(solve(z, weights, z @ truth, truth.sum()), truth)
