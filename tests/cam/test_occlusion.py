"""Occlusion: the closed form on a linear model, a slow loop on another, and every fill."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.cam import occlusion
from onnx_inspect.cam._probe import Probe
from onnx_inspect.cam.occlusion import Params, spans

MakeProbe = Callable[..., Probe]
Array = NDArray[np.float64]

SHAPE = (2, 3, 11, 17)  # neither square nor divisible by anything below


def linear(seed: int = 0) -> tuple[Array, Callable[[Array], Array]]:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(4, *SHAPE[1:]))
    return weights, lambda x: np.tensordot(x, weights, ((1, 2, 3), (1, 2, 3))) - 7.0


def crooked(x: Array) -> Array:
    return np.stack(
        [np.tanh(x.sum(axis=1)).max(axis=(1, 2)), (x**2).mean(axis=(1, 2, 3)), x[:, 0].min(axis=(1, 2))], axis=1
    )


def inputs() -> Array:
    return np.random.default_rng(1).normal(0.5, 1, SHAPE).astype(np.float32)


def slow(
    score: Callable[[Array], Array],
    x: Array,
    window: tuple[int, int],
    stride: tuple[int, int],
    hidden: Array,
    target: int,
) -> Array:
    """Cover one window after the other, and average at every pixel what the windows over it cost."""
    total, times = np.zeros(x.shape[1:]), np.zeros(x.shape[1:])
    whole = score(x[None])[0, target]
    for top in range(0, x.shape[1] - window[0] + stride[0], stride[0]):
        for left in range(0, x.shape[2] - window[1] + stride[1], stride[1]):
            covered = x.copy()
            place = np.s_[top : top + window[0], left : left + window[1]]
            covered[:, *place] = hidden[:, *place]
            total[place] += whole - score(covered[None])[0, target]
            times[place] += 1
    assert times.min() > 0
    return total / times


def test_single_pixels_of_a_linear_model_give_its_terms(make_probe: MakeProbe) -> None:
    """The closed form: what a pixel adds to the score is its weight times its value. Scores are in float64."""
    weights, score = linear()
    x = inputs()
    found = occlusion.attribute(make_probe(score, x, classes=2), Params(window=1, stride=1))
    np.testing.assert_allclose(found, (weights[2] * x).sum(axis=1), rtol=1e-4, atol=1e-5)


def test_windows_of_a_linear_model_cost_the_sum_inside(make_probe: MakeProbe) -> None:
    weights, score = linear()
    x = inputs()
    found = occlusion.attribute(make_probe(score, x, classes=1), Params(window=11, stride=11))
    inside = (weights[1] * x).sum(axis=1)
    np.testing.assert_allclose(found[:, 3, 4], inside[:, :11, :11].sum(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found[:, 10, 12], inside[:, :, 11:].sum(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize("fill", ["zero", "mean", "blur", "-1.5"])
@pytest.mark.parametrize(("window", "stride"), [(4, 3), (5, 5), (0.4, 0.15)])
def test_it_equals_its_definition(make_probe: MakeProbe, window: float, stride: float, fill: str) -> None:
    from onnx_inspect.cam._masking import background

    x = inputs()
    found = occlusion.attribute(make_probe(crooked, x, classes=1), Params(window=window, stride=stride, fill=fill))
    sizes = [(round(window * n), round(stride * n)) if window < 1 else (int(window), int(stride)) for n in SHAPE[2:]]
    hidden = background(x, fill)
    hidden = np.zeros_like(x) if hidden is None else np.broadcast_to(hidden, x.shape)
    for n in range(2):
        expected = slow(crooked, x[n].astype(float), *zip(*sizes, strict=True), hidden[n], 1)
        np.testing.assert_allclose(found[n], expected, rtol=1e-4, atol=1e-6)


def test_probabilities_are_read_when_asked_for(make_probe: MakeProbe) -> None:
    x = inputs()
    as_logit = occlusion.attribute(make_probe(crooked, x), Params(window=5, stride=4))
    as_share = occlusion.attribute(make_probe(crooked, x), Params(window=5, stride=4, score="probability"))
    assert np.abs(as_share).max() <= 1
    assert not np.allclose(as_logit, as_share)


def test_windows_cover_every_side_whatever_its_length() -> None:
    for length in range(1, 40):
        for window, stride in ((2 / 7, 2 / 21), (0.5, 0.5), (3, 2), (0.1, 0.9), (100, 7)):
            starts, ends = spans(length, window, stride)
            covered = np.zeros(length, bool)
            for start, end in zip(starts, ends, strict=True):
                assert 0 <= start < end <= length
                covered[start:end] = True
            assert covered.all()


def test_the_default_costs_81_passes(make_probe: MakeProbe) -> None:
    rows = []
    probe = make_probe(
        lambda x: (rows.append(len(x)), x.sum(axis=(1, 2, 3))[:, None])[1], np.ones((1, 1, 224, 224), np.float32)
    )
    occlusion.attribute(probe, Params())
    assert sum(rows) == 81 + 1  # and the input itself, which the fake runs to know its score
