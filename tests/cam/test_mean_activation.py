"""Mean activation against a plain loop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnx_inspect.cam import mean_activation
from onnx_inspect.cam._probe import Probe
from onnx_inspect.cam.mean_activation import Params

MakeProbe = Callable[..., Probe]


def test_it_is_the_mean_over_channels(make_probe: MakeProbe) -> None:
    activations = np.random.default_rng(0).normal(size=(2, 5, 3, 4)).astype(np.float32)
    probe = make_probe(
        lambda x: x.sum(axis=(1, 2, 3))[:, None], np.ones((2, 3, 6, 8), np.float32), activations=activations
    )
    signed = mean_activation.attribute(probe, Params())
    unsigned = mean_activation.attribute(probe, Params(absolute=True))
    for n in range(2):
        total, size = np.zeros((3, 4)), np.zeros((3, 4))
        for channel in activations[n].astype(float):
            total += channel
            size += abs(channel)
        np.testing.assert_allclose(signed[n], total / 5, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(unsigned[n], size / 5, rtol=1e-6)
