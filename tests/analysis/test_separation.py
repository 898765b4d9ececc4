"""Quality figures equal scikit-learn's, or a slow loop from their definition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.analysis.separation import knn_accuracy, quality, silhouette, trustworthiness

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def clouds() -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Features (80, 6), a picture of them (80, 2), and four classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 4
    features = (rng.normal(0, 1.5, (4, 6))[labels] + rng.normal(size=(80, 6))).astype(np.float32)
    return features, features[:, :2] + rng.normal(0, 0.5, (80, 2)).astype(np.float32), labels


def test_knn_accuracy_is_a_vote_of_the_nearest_others(clouds: tuple[Floats, Floats, NDArray[np.int64]]) -> None:
    features, _, labels = clouds
    for count in (1, 3, 10):
        right = 0
        for n in range(80):
            far = ((features - features[n]).astype(np.float64) ** 2).sum(axis=1)
            far[n] = np.inf
            near = labels[np.argsort(far, kind="stable")[:count]].tolist()
            votes = {c: near.count(c) for c in near}
            winner = next(c for c in near if votes[c] == max(votes.values()))  # the nearest among equals
            right += winner == labels[n]
        assert knn_accuracy(features, labels, count) == right / 80


def test_silhouette_and_trustworthiness_equal_scikit_learn(clouds: tuple[Floats, Floats, NDArray[np.int64]]) -> None:
    from sklearn.manifold import trustworthiness as theirs
    from sklearn.metrics import silhouette_score

    features, points, labels = clouds
    assert silhouette(features, labels) == silhouette_score(features, labels)
    assert trustworthiness(features, points, 10) == theirs(features, points, n_neighbors=10)


def test_trustworthiness_is_its_definition(clouds: tuple[Floats, Floats, NDArray[np.int64]]) -> None:
    features, points, _ = clouds
    count, total = 7, 80
    penalty = 0
    for n in range(total):
        ranks = np.argsort(np.argsort(((features - features[n]).astype(np.float64) ** 2).sum(axis=1)))  # itself: 0
        near = np.argsort(((points - points[n]).astype(np.float64) ** 2).sum(axis=1))[1 : count + 1]
        penalty += sum(max(0, int(ranks[other]) - count) for other in near)
    expected = 1 - 2 / (total * count * (2 * total - 3 * count - 1)) * penalty
    assert trustworthiness(features, points, count) == pytest.approx(expected, abs=1e-12)


def test_samples_without_a_class_do_not_vote(clouds: tuple[Floats, Floats, NDArray[np.int64]]) -> None:
    features, _, labels = clouds
    known = np.arange(80) < 60
    partly = np.where(known, labels, -1)
    assert knn_accuracy(features, partly, 5) == knn_accuracy(features[known], labels[known], 5)
    assert silhouette(features, partly) == silhouette(features[known], labels[known])


def test_what_can_not_be_had_is_nan(clouds: tuple[Floats, Floats, NDArray[np.int64]]) -> None:
    features, points, labels = clouds
    alone = quality(features, points, np.full(80, -1), seed=0)
    assert np.isnan([alone.knn, alone.knn_features, alone.silhouette, alone.silhouette_features]).all()
    assert alone.trustworthiness > 0
    one_class = quality(features, points, np.zeros(80, np.int64), seed=0)
    assert np.isnan([one_class.knn, one_class.silhouette]).all()
    still = quality(features, np.zeros((80, 2), np.float32), labels, seed=0)
    assert np.isnan([still.knn, still.silhouette, still.trustworthiness]).all()
    assert np.isnan(quality(features[:2], points[:2], labels[:2], seed=0).trustworthiness)


def test_of_many_samples_a_seeded_part_is_measured(clouds: tuple[Floats, Floats, NDArray[np.int64]]) -> None:
    features, points, labels = clouds
    some = quality(features, points, labels, seed=3, most=50)
    assert some.sampled == 50
    assert some == quality(features, points, labels, seed=3, most=50)
    assert some != quality(features, points, labels, seed=4, most=50)
