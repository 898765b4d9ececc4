"""A linear probe is scikit-learn's pipeline on stratified folds, and finds what is linear and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_inspect.analysis.probe import COMPONENTS, folds, probe, probes
from onnx_inspect.errors import InputError


@pytest.mark.parametrize("classifier", ["logistic", "ridge"])
def test_a_probe_equals_a_pipeline_written_out(classifier: str) -> None:
    from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    points = (rng.normal(size=(3, 8))[labels] + rng.normal(size=(90, 8))).astype(np.float32)
    last = {
        "logistic": LogisticRegression(max_iter=300, random_state=1),
        "ridge": RidgeClassifierCV(alphas=np.logspace(-2, 4, 7)),
    }[classifier]
    split = StratifiedKFold(5, shuffle=True, random_state=1)
    expected = cross_val_score(make_pipeline(StandardScaler(), last), points, labels, cv=split)
    used, scores = probe(points, folds(labels, seed=1), classifier=classifier, seed=1)
    assert used == 8
    np.testing.assert_allclose(scores, expected, atol=1e-12)


@pytest.mark.parametrize("classifier", ["logistic", "ridge"])
def test_a_probe_finds_a_line_and_no_ring(classifier: str) -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(400, 2)).astype(np.float32)
    line = (points @ [3, -1] > 0).astype(np.int64)
    ring = ((points**2).sum(axis=1) > 1.39).astype(np.int64)  # the median: halves
    assert np.mean(probe(points, folds(line), classifier=classifier)[1]) > 0.95
    assert np.mean(probe(points, folds(ring), classifier=classifier)[1]) < 0.65


def test_noise_is_read_at_chance() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    _, scores = probe(rng.normal(size=(400, 6)).astype(np.float32), folds(labels))
    assert abs(np.mean(scores) - 0.25) < 0.08  # three standard deviations of 400 guesses


def test_wide_features_are_narrowed_on_the_training_folds_alone() -> None:
    """With more features than samples a leak would show as accuracy on labels that mean nothing."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    used, scores = probe(rng.normal(size=(200, 1000)).astype(np.float32), folds(labels))
    assert used == min(COMPONENTS, 200 * 4 // 5 - 1)
    assert abs(np.mean(scores) - 0.5) < 0.15


def test_features_that_are_all_alike_are_read_at_chance() -> None:
    labels = np.arange(60) % 3
    assert probe(np.ones((60, 5), np.float32), folds(labels))[1] == pytest.approx([1 / 3] * 5)


def test_folds_are_seeded_and_leave_rare_classes_out() -> None:
    labels = np.array([0] * 20 + [1] * 20 + [2] * 3 + [-1] * 10)
    one, two = folds(labels, seed=1), folds(labels, seed=1)
    assert one.left_out == (2,) and len(one.chosen) == 40 and one.chance == 0.5
    for (train, test), (again, _) in zip(one.parts, two.parts, strict=True):
        np.testing.assert_array_equal(train, again)
        assert not set(train) & set(test) and len(train) + len(test) == 40
    assert any((a[1] != b[1]).any() for a, b in zip(one.parts, folds(labels, seed=2).parts, strict=True))


@pytest.mark.parametrize("labels", [[-1] * 30, [0] * 30, [0] * 28 + [1] * 2])
def test_too_little_to_learn_from_is_refused(labels: list[int]) -> None:
    with pytest.raises(InputError, match="two classes with 5 samples each"):
        folds(np.array(labels))


def test_the_models_own_accuracy_is_of_the_same_samples() -> None:
    labels = np.array([0] * 10 + [1] * 10 + [2] * 2)
    right = np.arange(22) % 2 == 0
    features = np.random.default_rng(0).normal(size=(22, 3)).astype(np.float32)
    found = probes(
        lambda layer: features, {"a": 3}, labels, names=("x", "y", "z"), own=right, pool="mean", model="net.onnx"
    )
    assert found.own == right[:20].mean() and found.left_out == ("z",) and found.samples == 20
    assert found.to_json()["layers"][0]["accuracy"] == found.layers[0].accuracy
