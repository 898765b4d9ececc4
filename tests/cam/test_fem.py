"""FEM against a plain loop over channels, in the paper's and in pytorch-grad-cam's form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnx_inspect.cam import fem
from onnx_inspect.cam._probe import Probe
from onnx_inspect.cam.fem import Params

MakeProbe = Callable[..., Probe]


def peaked(make_probe: MakeProbe) -> Probe:
    activations = (np.random.default_rng(1).uniform(0, 1, (2, 7, 5, 6)) ** 6).astype(np.float32)
    return make_probe(
        lambda x: x.sum(axis=(1, 2, 3))[:, None], np.ones((2, 3, 6, 8), np.float32), activations=activations
    )


@pytest.mark.parametrize("variant", ["paper", "grad-cam"])
@pytest.mark.parametrize("sigmas", [1.0, 2.0])
def test_it_equals_its_definition(make_probe: MakeProbe, variant: str, sigmas: float) -> None:
    probe = peaked(make_probe)
    found = fem.attribute(probe, Params(sigmas=sigmas, variant=variant))
    for n in range(2):
        expected = np.zeros((5, 6))
        for channel in probe.activations[n].astype(float):
            strong = channel >= channel.mean() + sigmas * channel.std()
            expected += channel.mean() * strong if variant == "paper" else strong.mean() * channel
        np.testing.assert_allclose(found[n], expected, rtol=1e-5)
        assert np.ptp(expected) > 0


def test_channels_without_a_strong_position_give_zeros(make_probe: MakeProbe) -> None:
    """Two values in equal shares lie one standard deviation from their mean."""
    checks = np.indices((4, 4)).sum(axis=0)[None, None].astype(np.float32) % 2
    probe = make_probe(lambda x: x.sum(axis=(1, 2, 3))[:, None], np.ones((1, 3, 6, 8), np.float32), activations=checks)
    np.testing.assert_array_equal(fem.attribute(probe, Params()), 0)


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="variant is 'paper' or 'grad-cam'"):
        Params(variant="mine")
    with pytest.raises(ValueError, match="sigmas is at least 0"):
        Params(sigmas=-1)
