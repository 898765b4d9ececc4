"""How well classes separate in a set of points, and how well a projection keeps who is near whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 10
MOST = 5000  # points that distances are measured between; of more, a sample


@dataclass(frozen=True)
class Quality:
    """Figures of one layer's projection; NaN where there are no classes, too few points, or all in one place.

    Attributes
    ----------
    knn, knn_features : float
        Share of points whose class is that of most of their 10 nearest others, in the projection and in the layer.
    silhouette, silhouette_features : float
        -1 to 1: how much nearer points are to their own class than to the nearest other.
    trustworthiness : float
        0 to 1: how far the neighbours in the projection are neighbours in the layer.
    neighbours : int
        How many count as nearest.
    sampled : int
        Points that the figures were taken from.
    """

    knn: float
    knn_features: float
    silhouette: float
    silhouette_features: float
    trustworthiness: float
    neighbours: int
    sampled: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))


def quality(
    features: Any, points: NDArray[np.float32], labels: NDArray[np.int64], *, seed: int, most: int = MOST
) -> Quality:
    """Measure a projection.

    Parameters
    ----------
    features : array_like, (N, D)
        What was projected.
    points : ndarray, (N, 2 or 3)
    labels : ndarray, (N,), int
        -1 where there is none.
    seed : int
        Of the sample that is taken of more than `most` points.
    """
    chosen = np.arange(len(points))
    if len(chosen) > most:
        chosen = np.sort(np.random.default_rng(seed).choice(len(chosen), most, replace=False))
    near, far, classes = points[chosen], np.asarray(features[chosen], np.float32), labels[chosen]
    count = min(NEIGHBOURS, (len(chosen) - 1) // 2)
    if not np.ptp(near, axis=0).any():  # who is near whom can't be told
        nothing = float("nan")
        return Quality(nothing, nothing, nothing, nothing, nothing, count, len(chosen))
    return Quality(
        knn=knn_accuracy(near, classes, count),
        knn_features=knn_accuracy(far, classes, count),
        silhouette=silhouette(near, classes),
        silhouette_features=silhouette(far, classes),
        trustworthiness=trustworthiness(far, near, count),
        neighbours=count,
        sampled=len(chosen),
    )


def knn_accuracy(points: NDArray[np.float32], labels: NDArray[np.int64], neighbours: int) -> float:
    """Share of labelled points whose `neighbours` nearest labelled others are mostly of their class.

    Of classes that are equally frequent among them, the one whose member is nearest counts.
    """
    known = labels >= 0
    points, labels = points[known], labels[known]
    if neighbours < 1 or len(points) <= neighbours or len(np.unique(labels)) < 2:
        return float("nan")
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=neighbours).fit(points).kneighbors(return_distance=False)  # without itself
    votes = labels[found]  # (N, neighbours)
    counts = (votes[:, :, None] == votes[:, None, :]).sum(axis=2)
    winner = votes[np.arange(len(votes)), counts.argmax(axis=1)]  # argmax: the nearest among equals
    return float((winner == labels).mean())


def silhouette(points: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Mean silhouette of the labelled points (Rousseeuw 1987), as scikit-learn has it."""
    known = labels >= 0
    points, labels = points[known], labels[known]
    classes = len(np.unique(labels))
    if not 2 <= classes < len(labels):
        return float("nan")
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(points, labels))


def trustworthiness(features: NDArray[np.float32], points: NDArray[np.float32], neighbours: int) -> float:
    """Trustworthiness (Venna and Kaski 2001), as scikit-learn has it."""
    if neighbours < 1 or neighbours >= len(points) / 2:
        return float("nan")
    from sklearn.manifold import trustworthiness as measured

    return float(measured(features, points, n_neighbors=neighbours))
