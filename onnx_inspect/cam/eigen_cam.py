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
from threadpoolctl import threadpool_limits

from onnx_inspect.cam._probe import Maps, Probe

CLASS_AWARE = False


@dataclass(frozen=True)
class Params:
    """Whether each channel's mean is taken off first."""

    centre: bool = False


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w), signed. A zero activation gives a zero map."""
    # Matrices this small gain nothing from more threads, and beside a busy runtime they lose: 324 ms became 6.
    with threadpool_limits(1, user_api="blas"):
        return np.stack([_component(a, params.centre) for a in probe.activations])


def _component(activation: Maps, centre: bool) -> Maps:
    channels, height, width = activation.shape
    matrix = activation.reshape(channels, -1).T.astype(np.float64)  # (h*w, K)
    mean = matrix.mean(axis=1)
    if centre:
        matrix = matrix - matrix.mean(axis=0)
    if not np.isfinite(matrix).all():
        return np.full((height, width), np.nan, np.float32)
    if matrix.shape[0] <= matrix.shape[1]:  # the smaller Gram matrix: L = sqrt(lambda) u
        values, vectors = np.linalg.eigh(matrix @ matrix.T)
        scores = vectors[:, -1] * np.sqrt(max(values[-1], 0.0))
    else:
        scores = matrix @ np.linalg.eigh(matrix.T @ matrix)[1][:, -1]
    agreement = np.dot(scores - scores.mean(), mean - mean.mean()) if centre else scores.max() + scores.min()
    scores = scores * (-1 if agreement < 0 else 1)
    return scores.reshape(height, width).astype(np.float32)
