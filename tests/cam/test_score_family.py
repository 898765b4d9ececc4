"""SS-CAM and IS-CAM against slow loops from their definitions, and against Score-CAM where they coincide."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.cam import is_cam, score_cam, ss_cam
from onnx_inspect.cam._probe import Probe
from onnx_inspect.ops import normalise, resize, softmax

MakeProbe = Callable[..., Probe]
Array = NDArray[np.float64]

SIZE = (9, 14)


def crooked(x: Array) -> Array:
    return np.stack([np.tanh(x.sum(axis=1)).mean(axis=(1, 2)) * 9, (x**2).mean(axis=(1, 2, 3))], axis=1)


def setting(make_probe: MakeProbe, seed: int = 0) -> Probe:
    rng = np.random.default_rng(1)
    activations = (rng.uniform(0, 1, (2, 5, 3, 4)) ** 2).astype(np.float32)
    activations[:, 3] = 0.7  # a constant channel masks everything
    x = rng.normal(size=(2, 3, *SIZE)).astype(np.float32)
    return make_probe(crooked, x, activations=activations, classes=1, seed=seed)


def masks(activation: Array) -> Array:
    return normalise(resize(activation, SIZE))[0] * (np.ptp(activation, axis=(1, 2)) > 0)[:, None, None]


def combined(scores: list[float], activation: Array) -> Array:
    return np.tensordot(softmax(np.array(scores)), activation.astype(float), 1)


@pytest.mark.parametrize("noise", ["mask", "input"])
def test_ss_cam_equals_its_definition(make_probe: MakeProbe, noise: str) -> None:
    probe = setting(make_probe)
    found = ss_cam.attribute(probe, ss_cam.Params(samples=4, sigma=1.5, noise=noise))
    seed = int(np.random.default_rng(0).integers(2**63))
    for n in range(2):
        scores = []
        for mask in masks(probe.activations[n]):
            draws = []
            for i in range(4):
                shape = (1, *SIZE) if noise == "mask" else (3, *SIZE)
                e = 1.5 * np.random.default_rng([seed, i]).standard_normal(shape, np.float32)
                x = probe.inputs[n]
                variant = x * (mask + e) if noise == "mask" else x * mask + x.std() * e
                draws.append(crooked(variant[None].astype(float))[0, 1])
            scores.append(np.mean(draws))
        np.testing.assert_allclose(found[n], combined(scores, probe.activations[n]), rtol=1e-4)


@pytest.mark.parametrize("path", ["cumulative", "linear"])
def test_is_cam_equals_its_definition(make_probe: MakeProbe, path: str) -> None:
    probe = setting(make_probe)
    found = is_cam.attribute(probe, is_cam.Params(steps=5, path=path))
    for n in range(2):
        scores = []
        for mask in masks(probe.activations[n]):
            scale, along = 0.0, []
            for i in range(1, 6):
                scale = scale + i / 5 if path == "cumulative" else i / 5
                along.append(crooked((scale * probe.inputs[n] * mask)[None].astype(float))[0, 1])
            scores.append(np.mean(along))
        np.testing.assert_allclose(found[n], combined(scores, probe.activations[n]), rtol=1e-4)


def test_without_noise_or_steps_they_are_score_cam(make_probe: MakeProbe) -> None:
    expected = score_cam.attribute(setting(make_probe), score_cam.Params())
    np.testing.assert_allclose(
        ss_cam.attribute(setting(make_probe), ss_cam.Params(samples=2, sigma=0)), expected, rtol=1e-5
    )
    np.testing.assert_allclose(is_cam.attribute(setting(make_probe), is_cam.Params(steps=1)), expected, rtol=1e-5)


def test_noise_has_the_asked_spread_and_its_seed(make_probe: MakeProbe) -> None:
    """With an empty mask the input shows x times the noise: 4 draws of 378 pixels keep sigma within 10 %."""
    seen = []

    def watch(x):
        seen.append(x)
        return crooked(x)

    x = np.ones((1, 3, *SIZE), np.float32)
    probe = make_probe(watch, x, activations=np.full((1, 2, 3, 4), 0.5, np.float32))
    seen.clear()
    ss_cam.attribute(probe, ss_cam.Params(samples=4))
    values = np.concatenate(seen)
    assert values.shape[0] == 4  # two constant channels share one mask
    assert 1.8 < values.std() < 2.2
    np.testing.assert_array_equal(values[:, 0], values[:, 2])  # one value a pixel, whatever the channel
    other = ss_cam.attribute(setting(make_probe, seed=5), ss_cam.Params(samples=1))
    assert not np.array_equal(other, ss_cam.attribute(setting(make_probe, seed=6), ss_cam.Params(samples=1)))


def test_constant_channels_cost_one_pass_for_all(make_probe: MakeProbe) -> None:
    counted = []
    activations = np.full((1, 6, 3, 4), 0.5, np.float32)
    activations[0, 2, 1, 1] = 2
    score = lambda x: (counted.append(len(x)), crooked(x))[1]  # noqa: E731
    probe = make_probe(score, np.ones((1, 3, *SIZE), np.float32), activations=activations)
    counted.clear()
    is_cam.attribute(probe, is_cam.Params())
    assert sum(counted) == 10 * 2


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="'mask' or 'input'"):
        ss_cam.Params(noise="both")
    with pytest.raises(ValueError, match="'cumulative' or 'linear'"):
        is_cam.Params(path="winding")
    with pytest.raises(ValueError, match="samples is at least 1"):
        ss_cam.Params(samples=0)
