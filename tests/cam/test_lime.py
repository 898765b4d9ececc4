"""LIME: a linear model of superpixels is recovered, and the fit equals scikit-learn's weighted ridge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from onnx_inspect.cam import lime
from onnx_inspect.cam._cells import segment
from onnx_inspect.cam._probe import Probe
from onnx_inspect.cam.lime import Params

MakeProbe = Callable[..., Probe]
Array = NDArray[np.float64]

SIZE = (16, 26)


def inputs() -> Array:
    return np.random.default_rng(1).normal(0.3, 1, (2, 3, *SIZE)).astype(np.float32)


def crooked(x: Array) -> Array:
    return np.stack([np.tanh(x).mean(axis=(1, 2, 3)) * 20, np.maximum(x.sum(axis=1), 0).max(axis=(1, 2))], axis=1)


@pytest.mark.parametrize("segmentation", ["slic", "grid"])
@pytest.mark.parametrize("fill", ["zero", "1.5"])
def test_a_linear_model_is_recovered(make_probe: MakeProbe, segmentation: str, fill: str) -> None:
    """Without a ridge the weight of a superpixel is the sum over it of weight times (pixel less fill)."""
    weights = np.random.default_rng(2).normal(size=(3, *SIZE))
    x = inputs()
    params = Params(samples=120, segments=12, segmentation=segmentation, ridge=0, fill=fill)
    found = lime.attribute(make_probe(lambda v: (v * weights).sum(axis=(1, 2, 3))[:, None] + 3, x), params)
    for n, cells in enumerate(segment(x, segmentation, 12, 0.5)):
        terms = (weights * (x[n] - (0 if fill == "zero" else float(fill)))).sum(axis=0)
        expected = np.bincount(cells.ravel(), terms.ravel())[cells]
        np.testing.assert_allclose(found[n], expected, rtol=1e-4, atol=1e-4)


def test_the_fit_equals_scikit_learns_weighted_ridge(make_probe: MakeProbe) -> None:
    params = Params(samples=150, segments=10, ridge=2.5, width=0.3)
    x = inputs()
    found = lime.attribute(make_probe(crooked, x, classes=1), params)
    seed = int(np.random.default_rng(0).integers(2**63))
    for n, cells in enumerate(segment(x, "slic", 10, 0.5)):
        z = np.random.default_rng(seed).integers(0, 2, (150, cells.max() + 1)).astype(float)
        z[0] = 1
        y = np.array([crooked((x[n] * row[cells])[None].astype(float))[0, 1] for row in z])
        distance = 1 - (z / np.linalg.norm(z, axis=1, keepdims=True)).sum(axis=1) / np.sqrt(z.shape[1])
        near = np.sqrt(np.exp(-(distance**2) / 0.3**2))
        expected = Ridge(alpha=2.5).fit(z, y, sample_weight=near).coef_
        np.testing.assert_allclose(found[n], expected[cells], rtol=1e-4, atol=1e-5)


def test_every_superpixel_has_one_value(make_probe: MakeProbe) -> None:
    x = inputs()
    found = lime.attribute(make_probe(crooked, x), Params(samples=60, segments=9))
    for n, cells in enumerate(segment(x, "slic", 9, 0.5)):
        for value in range(cells.max() + 1):
            assert np.ptp(found[n][cells == value]) == 0


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="segmentation is 'slic' or 'grid'"):
        Params(segmentation="quickshift")
    with pytest.raises(ValueError, match="ridge is at least 0"):
        Params(ridge=-1)
