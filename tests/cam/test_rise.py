"""RISE: a loop over the masks it drew, the closed form on a linear model, and what each estimator estimates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.cam import rise
from onnx_inspect.cam._grids import draw
from onnx_inspect.cam._probe import Probe
from onnx_inspect.cam.rise import Params
from onnx_inspect.ops import resize

MakeProbe = Callable[..., Probe]
Array = NDArray[np.float64]

SIZE = (13, 22)


def inputs(count: int = 2) -> Array:
    return np.random.default_rng(1).uniform(0.2, 1, (count, 3, *SIZE)).astype(np.float32)


def crooked(x: Array) -> Array:
    return np.stack([np.tanh(x.mean(axis=(1, 2, 3)) * 4), x.max(axis=(1, 2, 3)), (x**2).mean(axis=(1, 2, 3))], axis=1)


def drawn(params: Params) -> Array:
    masks = draw(np.random.default_rng(0), params.masks, params.cells, params.keep, SIZE)
    return masks.make(np.arange(params.masks)).astype(float)


@pytest.mark.parametrize("estimator", ["plain", "centred", "coverage"])
def test_it_equals_its_definition_on_the_masks_drawn(make_probe: MakeProbe, estimator: str) -> None:
    params = Params(masks=30, cells=4, keep=0.4, score="logit", estimator=estimator)
    x = inputs()
    found = rise.attribute(make_probe(crooked, x, classes=2), params)
    masks = drawn(params)
    for n in range(2):
        scores = [crooked((x[n] * m)[None].astype(np.float32).astype(float))[0, 2] for m in masks]
        mean = np.mean(scores) if estimator == "centred" else 0.0
        total = sum((s - mean) * m for s, m in zip(scores, masks, strict=True))
        expected = total / masks.sum(axis=0) if estimator == "coverage" else mean + total / (30 * 0.4)
        np.testing.assert_allclose(found[n], expected, rtol=1e-4, atol=1e-6)


def test_on_a_linear_model_it_is_the_weights_seen_through_the_masks_covariance(make_probe: MakeProbe) -> None:
    """Exact: centred, ``S - mean(f) = sum_j w_j x_j cov(m_j, m) / p``, with the covariance of the masks drawn."""
    weights = np.random.default_rng(3).normal(size=(3, *SIZE))
    params = Params(masks=200, cells=5, score="logit")
    x = inputs(1)
    found = rise.attribute(make_probe(lambda v: (v * weights).sum(axis=(1, 2, 3))[:, None], x), params)[0]
    masks = drawn(params).reshape(200, -1)
    centred = masks - masks.mean(axis=0)
    covariance = centred.T @ centred / 200
    terms = (weights * x[0]).sum(axis=0).ravel()
    expected = masks.mean(axis=0) @ terms + covariance @ terms / 0.5
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-3, atol=1e-3 * np.ptp(expected))


def test_it_converges_to_the_weights_of_blocks(make_probe: MakeProbe) -> None:
    """Weights constant over blocks as large as a cell come back up to scale and to a cell's blur."""
    blocks = np.random.default_rng(4).normal(size=(3, 4))
    weights = np.kron(blocks, np.ones((8, 8)))
    x = np.ones((1, 1, 24, 32), np.float32)
    params = Params(masks=1500, cells=6, score="logit")
    found = rise.attribute(make_probe(lambda v: (v * weights).sum(axis=(1, 2, 3))[:, None], x), params)[0]
    middles = found[4::8, 4::8]  # of the blocks
    # 1500 masks leave a standard error of about 1 / sqrt(1500) of the map's range; the blur costs more.
    assert np.corrcoef(middles.ravel(), blocks.ravel())[0, 1] > 0.9


def test_estimators_agree_in_the_mean_and_centring_takes_the_noise_out(make_probe: MakeProbe) -> None:
    """A model of a large constant and a little evidence: the plain sum shows how often pixels were covered."""
    x = inputs(1)
    score = lambda v: 10 + v[:, :, :6, :6].mean(axis=(1, 2, 3))[:, None]  # noqa: E731
    kinds = {}
    for kind in ("plain", "centred"):
        params = Params(masks=200, score="logit", estimator=kind)
        kinds[kind] = np.stack([rise.attribute(make_probe(score, x, seed=s), params)[0] for s in range(12)])
    spread = {kind: maps.std(axis=0).mean() for kind, maps in kinds.items()}
    assert spread["centred"] < 0.1 * spread["plain"]
    standard_error = np.hypot(*(maps.std(axis=0) / np.sqrt(12) for maps in kinds.values()))
    away = np.abs(kinds["plain"].mean(axis=0) - kinds["centred"].mean(axis=0)) / standard_error
    assert away.mean() < 2  # standard errors; 12 runs of correlated pixels stay well below


def test_masks_are_smooth_kept_with_their_probability_and_never_whole_in_memory() -> None:
    masks = draw(np.random.default_rng(5), 400, 7, 0.3, (30, 50))
    large = masks.make(np.arange(400))
    assert large.shape == (400, 30, 50)
    assert large.min() >= 0
    assert large.max() <= 1
    assert abs(large.mean() - 0.3) < 0.02  # 400 x 49 cells: a standard error of 0.003
    cell = 50 / 7
    assert np.abs(np.diff(large, axis=2)).max() <= 1.05 / cell  # no step is steeper than from 0 to 1 over a cell
    weights = np.random.default_rng(6).normal(size=(2, 400))
    np.testing.assert_allclose(masks.weighted_sum(weights), np.tensordot(weights, large, 1), atol=1e-4)
    assert masks.grids.nbytes + masks.places.nbytes < large.nbytes / 10


def test_a_mask_is_the_crop_of_its_enlarged_grid() -> None:
    masks = draw(np.random.default_rng(8), 20, 5, 0.5, (20, 34))
    for which, ((top, left), mask) in enumerate(zip(masks.places, masks.make(np.arange(20)), strict=True)):
        large = resize(masks.grids[which], (6 * 4, 6 * 7))  # s + 1 cells of ceil(20 / 5) and ceil(34 / 5) pixels
        np.testing.assert_allclose(mask, large[top : top + 20, left : left + 34], atol=1e-6)


def test_every_place_of_the_crop_is_drawn() -> None:
    masks = draw(np.random.default_rng(7), 500, 5, 0.5, (20, 34))
    assert set(masks.places[:, 0]) == set(range(4))
    assert set(masks.places[:, 1]) == set(range(7))


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="keep lies between 0 and 1"):
        Params(keep=1.0)
    with pytest.raises(ValueError, match="masks is at least 2"):
        Params(masks=1)
