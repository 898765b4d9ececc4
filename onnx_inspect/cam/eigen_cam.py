"""Eigen-CAM: the first principal component of the maps (Muhammad and Yeasin 2020, arXiv:2008.00299).

``L = A v1`` with A as (positions, channels) and v1 its first right singular vector, uncentred as in the paper
(pytorch-grad-cam centres each channel first: ``centre=true``). The vector's sign is arbitrary. It is chosen so that the
map's largest magnitude is positive (Seg-Eigen-CAM's Eq. 13), which leaves the map of non-negative activations
non-negative; a centred map, which has values of both signs, correlates positively with the mean activation. The method
looks at no class: the map is the same for every target.
Cost: one pass up to the layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._probe import Maps, Probe
from onnx_inspect.ops import one_blas_thread

Matrix = NDArray[np.float64]
CLASS_AWARE = False
STEPS = 60  # of power iteration: a full decomposition costs about as much
PRECISION = 1e-9  # angle to the first eigenvector: far below float32's


@dataclass(frozen=True)
class Params:
    """Whether each channel's mean is taken off first."""

    centre: bool = False


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, *grid), signed. A zero activation gives a zero map."""
    with one_blas_thread():
        return np.stack([_component(a, params.centre) for a in probe.activations])


def _component(activation: Maps, centre: bool) -> Maps:
    channels, *grid = activation.shape
    matrix = activation.reshape(channels, -1).astype(np.float64)  # (K, cells)
    mean = matrix.mean(axis=0)
    if centre:
        matrix = matrix - matrix.mean(axis=1, keepdims=True)
    if not np.isfinite(mean).all():  # a channel that isn't finite anywhere shows in its cell's mean
        return np.full(grid, np.nan, np.float32)
    if matrix.shape[1] <= channels:  # the smaller Gram matrix: L = sqrt(lambda) u
        value, vector = first_eigenpair(matrix.T @ matrix)
        scores = vector * np.sqrt(max(value, 0.0))
    else:
        scores = first_eigenpair(matrix @ matrix.T)[1] @ matrix
    agreement = np.dot(scores - scores.mean(), mean - mean.mean()) if centre else scores.max() + scores.min()
    scores = scores * (-1 if agreement < 0 else 1)
    return scores.reshape(grid).astype(np.float32)


def first_eigenpair(gram: Matrix) -> tuple[float, Matrix]:
    """Largest eigenvalue of a positive semi-definite matrix and its eigenvector.

    By power iteration, where that is proved.

    For a unit vector v with ``q = v' G v`` and residual ``r = |G v - q v|``, the second eigenvalue is at most that of G
    on the complement of v, and so at most ``sqrt(|G|^2 - q^2)`` in the Frobenius norm; where q exceeds that, v is
    within ``r / gap`` of the first eigenvector. Maps of positive activations get there in a few steps. Otherwise all
    eigenvectors are computed.
    """
    squares = float(np.einsum("ij,ij->", gram, gram))
    vector = gram @ np.ones(len(gram))
    for _ in range(STEPS):
        length = float(np.linalg.norm(vector))
        if length == 0.0:
            break
        vector = vector / length
        moved = gram @ vector
        value = float(vector @ moved)
        residual = float(np.linalg.norm(moved - value * vector))
        gap = value - np.sqrt(max(squares - value**2, 0.0))
        if gap > 0 and residual <= PRECISION * gap:
            return value, vector
        vector = moved
    values, vectors = np.linalg.eigh(gram)
    return float(values[-1]), vectors[:, -1]
