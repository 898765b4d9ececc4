"""Anytime estimates: which masks come first, what stands in for the others, when it is enough, what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.cam import rise, score_cam
from onnx_inspect.cam._anytime import rank_correlation
from onnx_inspect.cam._budget import Budget, Estimate, Meter, parse_budget
from onnx_inspect.cam._probe import Probe
from onnx_inspect.cam._surrogate import centres, predict
from onnx_inspect.errors import MethodError

MakeProbe = Callable[..., Probe]
Array = NDArray[np.float64]


def cosine(a: Array, b: Array) -> float:
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))


# The surrogate


def test_the_prediction_is_a_gaussian_process(make_probe: MakeProbe) -> None:
    """Against the textbook's formulas with an explicit inverse, for the kernel that was chosen."""
    rng = np.random.default_rng(0)
    features = rng.uniform(size=(30, 4)).astype(np.float32)
    run = rng.permutation(30)[:12]
    scores = np.sin(3 * features[run].sum(axis=1).astype(float))[:, None]
    found = predict(features, run, scores)
    kernel = found.kernel
    centred = features - features.mean(axis=0, dtype=float)
    between = np.array([[_kernel(kernel, centred, a, b) for b in range(30)] for a in range(30)])
    inverse = np.linalg.inv(between[np.ix_(run, run)] + kernel.noise * np.eye(12))
    units = (scores - scores.mean()) / scores.std()
    mean = between[:, run] @ inverse @ units * scores.std() + scores.mean()
    rest = np.setdiff1d(np.arange(30), run)
    np.testing.assert_allclose(found.mean[rest], mean[rest], atol=1e-6)
    np.testing.assert_array_equal(found.mean[run], scores)
    amplitude = np.sqrt((units.T @ inverse @ units).item() / 12) * scores.std()
    variance = np.diag(between) - np.einsum("qn,nm,qm->q", between[:, run], inverse, between[:, run])
    np.testing.assert_allclose(found.spread[rest], amplitude * np.sqrt(variance[rest]), rtol=1e-5)
    assert not found.spread[run].any()


def _kernel(kernel, centred: Array, a: int, b: int) -> float:
    scale = (centred**2).sum(axis=1).mean()
    near = np.exp(-((centred[a] - centred[b]) ** 2).sum() / (2 * kernel.length))
    return kernel.share * centred[a] @ centred[b] / scale + (1 - kernel.share) * near


def test_picking_knows_what_earlier_picks_will_tell() -> None:
    """Two groups of all but equal masks: two picks never come from one group, whatever their order."""
    rng = np.random.default_rng(1)
    features = np.repeat(np.eye(3, 8), 6, axis=0) + 1e-4 * rng.normal(size=(18, 8))
    found = predict(features.astype(np.float32), np.array([0, 1]), np.array([[0.0], [1.0]]))
    picked = found.pick(2, np.ones(18))
    assert sorted(picked // 6) == [1, 2]
    again = predict(features.astype(np.float32), np.array([0, 1, *picked]), np.arange(4.0)[:, None])
    assert again.spread.max() < found.spread.max()


def test_a_score_that_never_moves_is_predicted_as_it_is() -> None:
    features = np.random.default_rng(2).uniform(size=(20, 5)).astype(np.float32)
    found = predict(features, np.arange(5), np.full((5, 2), 3.5))
    np.testing.assert_array_equal(found.mean, 3.5)
    assert not found.spread.any()


def test_centres_are_one_of_each_kind_the_commonest_first() -> None:
    kinds = np.repeat(np.eye(3, 5), [2, 7, 4], axis=0).astype(np.float32)
    assert [int(kinds[n].argmax()) for n in centres(kinds, 3, 0)] == [1, 2, 0]
    assert len(centres(kinds, 10, 0)) == 3  # the others only repeat these
    np.testing.assert_array_equal(centres(kinds, 3, 5), centres(kinds, 3, 5))


def test_rank_correlation_is_spearmans() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(3)
    one = np.round(rng.normal(size=(6, 9)), 1).astype(np.float32)  # with ties
    other = np.round(one + rng.normal(size=(6, 9)), 1).astype(np.float32)
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic)
    assert rank_correlation(one, np.zeros_like(one)) == 0
    assert rank_correlation(np.ones_like(one), np.zeros_like(one)) == 1


# Estimates


def channels(count: int = 60, seed: int = 4) -> NDArray[np.float32]:
    """Blobs at random places: a few are where the score looks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:7, :9]
    places = rng.uniform((0, 0), (7, 9), (count, 2))
    blobs = [np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 4) for cy, cx in places]
    return np.stack(blobs)[None].astype(np.float32)


def looking(x: Array) -> Array:
    """A score that wants one corner of the input, strongly."""
    return np.stack([40 * x[:, 0, :6, :8].mean(axis=(1, 2)) - 9 * x[:, 0, 6:].mean(axis=(1, 2))], axis=1)


def setting(make_probe: MakeProbe, passes: int | None = None, *, stable: float = 2.0, count: int = 60) -> Probe:
    probe = make_probe(looking, np.ones((1, 1, 14, 18), np.float32), activations=channels(count))
    return probe if passes is None else replace(probe, meter=Meter(Budget(passes=passes), stable=stable))


def test_the_masks_that_the_map_hangs_on_come_first(make_probe: MakeProbe) -> None:
    """With 30 of 181 masks, Score-CAM is nearer to its whole than the mean activation, and than any 30 at random."""
    full = score_cam.attribute(setting(make_probe, count=180), score_cam.Params())[0]
    few = score_cam.attribute(setting(make_probe, 30, count=180), score_cam.Params())[0]
    blind = channels(180)[0].mean(axis=0)
    assert cosine(few, full) > 0.99
    assert cosine(blind, full) < 0.9
    probe = setting(make_probe, count=180)
    for seed in range(5):
        some = np.random.default_rng(seed).permutation(180)[:30]
        part = replace(probe, activations=np.ascontiguousarray(probe.activations[:, some]))
        assert cosine(score_cam.attribute(part, score_cam.Params())[0], full) < cosine(few, full)


def test_a_stable_map_ends_it_and_a_useless_one_does_not(make_probe: MakeProbe) -> None:
    calm = setting(make_probe, 181, stable=0.97, count=180)
    values = score_cam.attribute(calm, score_cam.Params())[0]
    assert calm.meter is not None
    found = calm.meter.estimate()
    assert found is not None
    assert 16 <= found.passes[0] < 120
    assert found.stability[0] >= 0.97
    full = score_cam.attribute(setting(make_probe, count=180), score_cam.Params())[0]
    assert cosine(values, full) > 0.99

    def noise(x: Array) -> Array:  # a score that says nothing of where it looks
        return np.sin(1e6 * x.sum(axis=(1, 2, 3)))[:, None]

    wild = make_probe(noise, np.ones((1, 1, 14, 18), np.float32))
    wild = replace(wild, meter=Meter(Budget(passes=60)))
    rise.attribute(wild, rise.Params(masks=200, score="logit"))
    assert wild.meter is not None
    spent = wild.meter.estimate()
    assert spent is not None
    assert spent.passes == (60,)
    assert spent.stability[0] < 0.9


def test_an_unbiased_average_gains_from_the_prediction(make_probe: MakeProbe) -> None:
    """RISE with 100 of 1000 masks: nearer to the whole than the first 100 alone are."""
    x = np.ones((1, 1, 21, 21), np.float32)
    full = rise.attribute(make_probe(looking, x), rise.Params(score="logit"))[0]
    probe = replace(make_probe(looking, x), meter=Meter(Budget(passes=100), stable=2.0))
    few = rise.attribute(probe, rise.Params(score="logit"))[0]
    plain = rise.attribute(make_probe(looking, x), rise.Params(masks=100, score="logit"))[0]
    centred = full - full.mean()
    assert cosine(few - few.mean(), centred) > max(0.97, cosine(plain - plain.mean(), centred))


def test_seconds_end_it_too(make_probe: MakeProbe) -> None:
    """A clock that moves by a tenth of a second a pass: 3 s are at most 30 passes, and the budget is used."""
    now = [0.0]

    def slow(x: Array) -> Array:
        now[0] += 0.1 * len(x)
        return looking(x)

    probe = make_probe(slow, np.ones((1, 1, 14, 18), np.float32), activations=channels())
    now[0] = 0.0
    meter = Meter(Budget(seconds=3.0), clock=lambda: now[0], stable=2.0)
    score_cam.attribute(replace(probe, meter=meter), score_cam.Params())
    found = meter.estimate()
    assert found is not None
    assert 20 <= found.passes[0] <= 31
    short = Meter(Budget(seconds=0.01), clock=lambda: now[0])
    score_cam.attribute(replace(probe, meter=short), score_cam.Params())
    spent = short.estimate()
    assert spent is not None
    assert spent.passes == (1,)  # one mask in any case


# Budgets


def test_budgets_are_read_from_text() -> None:
    assert parse_budget("200") == Budget(passes=200)
    assert parse_budget("200 passes") == Budget(passes=200)
    assert parse_budget(" 5s") == Budget(seconds=5.0)
    assert parse_budget("250ms") == Budget(seconds=0.25)


@pytest.mark.parametrize("text", ["", "soon", "-3", "0", "0s", "-1s", "1.5", "infs", "5 apples"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(MethodError, match="a budget is a number of passes"):
        parse_budget(text)


def test_parts_of_a_meter_share_what_is_left() -> None:
    meter = Meter(Budget(passes=60))
    first = meter.part(3)
    assert first.passes == 20
    first.note(Estimate("60 passes", (5, 8), (100, 100), (0.9, 0.8)))
    assert meter.passes == 52
    meter.part(2).note(Estimate("60 passes", (26, 26), (100, 100), (0.7, 0.99)))
    found = meter.estimate()
    assert found is not None
    assert (found.passes, found.whole, found.stability) == ((31, 34), (200, 200), (0.7, 0.8))


def test_what_was_spent_is_said() -> None:
    found = Estimate("60 passes", (50, 80, 6), (80, 80, 80), (0.9312, 1.0, float("nan")))
    assert found.complete == (False, True, False)
    assert found.describe(0) == "estimate: 50 of 80 passes, stability 0.93"
    assert found.describe(1) == "all 80 passes: no estimate"
    assert found.describe(2) == "estimate: 6 of 80 passes, stability unknown"
