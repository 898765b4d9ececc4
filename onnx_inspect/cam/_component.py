"""How weighted channels become one map by their first principal component, instead of their sum."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._probe import Maps


def principal_component(weights: NDArray[Any], activations: Maps) -> Maps:
    """Project each input's weighted channels on their first principal component, over positions (eigen smoothing).

    ``w_k A_k``, centred over positions, is (h w, K); the map is its projection on the first right singular vector, as
    pytorch-grad-cam's eigen_smooth. The vector's sign is arbitrary: it is chosen so that the map goes with the sum.

    Parameters
    ----------
    weights : ndarray, (N, K)
    activations : ndarray, (N, K, h, w), float32

    Returns
    -------
    ndarray, (N, h, w), float32
        Signed; 0 where nothing varies, NaN where something isn't finite.
    """
    return np.stack([_component(w, a) for w, a in zip(weights, activations, strict=True)])


def _component(weights: NDArray[Any], activation: Maps) -> Maps:
    channels, *grid = activation.shape
    matrix = (activation.reshape(channels, -1) * np.asarray(weights, np.float64)[:, None]).T  # (h*w, K)
    if not np.isfinite(matrix).all():
        return np.full(grid, np.nan, np.float32)
    total = matrix.sum(axis=1)
    matrix = matrix - matrix.mean(axis=0)
    scores = matrix @ np.linalg.svd(matrix, full_matrices=False)[2][0]
    sign = -1 if np.dot(scores, total - total.mean()) < 0 else 1
    return (sign * scores).reshape(grid).astype(np.float32)
