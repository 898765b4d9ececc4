"""ViT-CX against a slow loop over masks of full size, clustered by scikit-learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics.pairwise import cosine_distances

from onnx_inspect.cam import vit_cx
from onnx_inspect.cam._probe import Probe
from onnx_inspect.cam.vit_cx import Params, clusters
from onnx_inspect.ops import resize, softmax

MakeProbe = Callable[..., Probe]
Array = NDArray[np.float64]

SIZE = (11, 18)


def crooked(x: Array) -> Array:
    return np.stack(
        [np.tanh(x.sum(axis=1)).mean(axis=(1, 2)) * 9, (x**2).mean(axis=(1, 2, 3)), -x[:, 0].max(axis=(1, 2))], axis=1
    )


def activations() -> Array:
    """Four patterns, each in several channels with a little noise, and one dead channel."""
    rng = np.random.default_rng(1)
    patterns = rng.uniform(0, 1, (2, 4, 4, 6)) ** 3
    maps = np.repeat(patterns, 3, axis=1) + rng.normal(0, 0.02, (2, 12, 4, 6))
    return np.concatenate([maps, np.full((2, 1, 4, 6), 0.3)], axis=1).astype(np.float32)


def scaled(flat: Array) -> Array:
    low, high = flat.min(axis=1, keepdims=True), flat.max(axis=1, keepdims=True)
    return (flat - low) / (high - low)


def slow_masks(activation: Array, distance: float) -> Array:
    large = resize(activation[np.ptp(activation, axis=(1, 2)) > 0], SIZE).reshape(-1, SIZE[0] * SIZE[1]).astype(float)
    masks = scaled(large)
    fit = AgglomerativeClustering(None, distance_threshold=distance, metric="precomputed", linkage="complete")
    labels = fit.fit_predict(cosine_distances(masks))
    merged = np.stack([masks[labels == v].sum(axis=0) for v in range(labels.max() + 1)])
    return scaled(merged).reshape(-1, *SIZE)


@pytest.mark.parametrize("distance", [0.02, 0.1, 0.5])
def test_masks_are_scikit_learns_clusters(distance: float) -> None:
    for activation in activations():
        expected = slow_masks(activation, distance)
        found = resize(clusters(activation, SIZE, distance), SIZE)
        assert len(found) == len(expected)
        order = [int(np.argmin([np.abs(f - e).sum() for e in expected])) for f in found]
        assert sorted(order) == list(range(len(expected)))
        np.testing.assert_allclose(found, expected[order], atol=1e-4)
    assert 4 <= len(clusters(activations()[0], SIZE, 0.05)) < 12


@pytest.mark.parametrize("score", ["probability", "logit"])
def test_it_equals_its_definition(make_probe: MakeProbe, score: str) -> None:
    maps = activations()
    x = np.random.default_rng(2).normal(0.2, 2, (2, 3, *SIZE)).astype(np.float32)
    found = vit_cx.attribute(make_probe(crooked, x, activations=maps, classes=2), Params(score=score))
    seed = int(np.random.default_rng(0).integers(2**63))

    def p(variant: Array) -> float:
        values = crooked(variant[None].astype(float))[0]
        return float((softmax(values) if score == "probability" else values)[2])

    for n in range(2):
        masks = resize(clusters(maps[n], SIZE, 0.1), SIZE)
        total = np.zeros(SIZE)
        for i, mask in enumerate(masks):
            noise = 0.1 * x[n].std() * np.random.default_rng([seed, i]).standard_normal(x[n].shape, np.float32)
            hidden = noise * (1 - mask)
            total += (p(x[n] * mask + hidden) - p(x[n] + hidden) + p(x[n])) * mask
        expected = total / (len(masks) * masks.sum(axis=0))
        np.testing.assert_allclose(found[n], expected, rtol=1e-3, atol=1e-6)


def test_it_finds_the_cluster_that_matters(make_probe: MakeProbe) -> None:
    """Channels light up the left and the right half; the model reads the right one."""
    halves = np.zeros((1, 2, 4, 6), np.float32)
    halves[0, 0, :, :3] = halves[0, 1, :, 3:] = 1
    x = np.ones((1, 3, *SIZE), np.float32)
    score = lambda v: np.stack([8 * v[..., 12:].mean(axis=(1, 2, 3)) - 4, np.zeros(len(v))], axis=1)  # noqa: E731
    found = vit_cx.attribute(make_probe(score, x, activations=halves), Params())[0]
    assert found[:, 12:].min() > found[:, :6].max()


def test_constant_channels_give_zeros(make_probe: MakeProbe) -> None:
    probe = make_probe(crooked, np.ones((2, 3, *SIZE), np.float32), activations=np.full((2, 5, 4, 6), 0.4, np.float32))
    np.testing.assert_array_equal(vit_cx.attribute(probe, Params()), 0)
