"""How clouds of points are laid on each other: their plane of largest spread, turned and scaled onto a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Plane:
    """Points in the plane of their largest spread.

    Attributes
    ----------
    points : ndarray, (N, 2), float64
        Centred.
    share : float
        Of all the spread that the plane holds, in [0, 1]; 0 where there is none.
    """

    points: Floats
    share: float


def principal_plane(points: NDArray[Any]) -> Plane:
    """Project (N, ...) on its first two principal components; the largest coordinate of each axis is positive.

    Fewer than three points or features leave axes that are 0.
    """
    flat = points.reshape(len(points), -1).astype(np.float64)
    centred = flat - flat.mean(axis=0)
    if min(centred.shape) < 1:
        return Plane(np.zeros((len(flat), 2)), 0.0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    axes = left[:, :2] * sizes[:2]
    axes = axes * np.where(np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], 0)[0] < 0, -1, 1)
    total = float((sizes**2).sum())
    found = np.zeros((len(flat), 2))
    found[:, : axes.shape[1]] = axes
    return Plane(found, float((sizes[:2] ** 2).sum()) / total if total else 0.0)


def align(points: NDArray[Any], reference: NDArray[Any]) -> tuple[Floats, float]:
    """Move, turn, mirror and scale points (N, k) onto a reference (N, k) in the least-squares sense.

    Orthogonal Procrustes analysis (P. Schonemann, Psychometrika 1966) with a scale.

    Returns
    -------
    aligned : ndarray, (N, k), float64
    disparity : float
        What is left of the squared distances, as a share of the reference's spread, in [0, 1]; 1 where the points have
        no spread, and 0 where neither has.
    """
    target = np.asarray(reference, np.float64)
    middle = target.mean(axis=0)
    source = np.asarray(points, np.float64)
    source = source - source.mean(axis=0)
    spread, own = float(((target - middle) ** 2).sum()), float((source**2).sum())
    if not own or not spread:
        return np.broadcast_to(middle, target.shape).copy(), float(bool(spread) != bool(own))
    left, sizes, right = np.linalg.svd(source.T @ (target - middle))
    scale = float(sizes.sum()) / own
    aligned = scale * source @ left @ right + middle
    return aligned, float(((aligned - target) ** 2).sum()) / spread
