"""How several maps become one: maps of several layers, or the weighted channels of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect import ops
from onnx_inspect.analysis.saliency import to_unit
from onnx_inspect.cam._probe import Attribution, Maps
from onnx_inspect.errors import MethodError

WAYS: Mapping[str, Callable[[Maps], Maps]] = {
    "mean": lambda stack: stack.mean(axis=0),
    "max": lambda stack: stack.max(axis=0),
    "product": lambda stack: stack.prod(axis=0),
}


def combine(attributions: Sequence[Attribution], how: str) -> Attribution:
    """Make one Attribution of a method's maps at several layers.

    Each map is cut at 0 and scaled to [0, 1] first, then resized to the finest of the grids; a flat one counts as 0.

    Parameters
    ----------
    how : {'mean', 'max', 'product'}

    Returns
    -------
    Attribution
        Values in [0, 1]; passes and seconds are the sums.

    Raises
    ------
    MethodError
        An unknown way.
    """
    if how not in WAYS:
        raise MethodError(f"unknown way to combine layers {how!r}; there are: {', '.join(WAYS)}")
    first = attributions[0]
    if len(attributions) == 1:
        return first
    grids = [a.values.shape[1:] for a in attributions]
    size = (max(g[0] for g in grids), max(g[1] for g in grids))
    stack = np.stack([ops.resize(np.stack([to_unit(m) for m in a.values]), size) for a in attributions])
    return replace(
        first,
        values=np.asarray(WAYS[how](stack), np.float32),
        layer=" + ".join(a.layer for a in attributions),
        params={**first.params, "combine": how},
        passes=sum(a.passes for a in attributions),
        tail_passes=sum(a.tail_passes for a in attributions),
        seconds=sum(a.seconds for a in attributions),
    )


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
    channels, height, width = activation.shape
    matrix = (activation.reshape(channels, -1) * np.asarray(weights, np.float64)[:, None]).T  # (h*w, K)
    if not np.isfinite(matrix).all():
        return np.full((height, width), np.nan, np.float32)
    total = matrix.sum(axis=1)
    matrix = matrix - matrix.mean(axis=0)
    scores = matrix @ np.linalg.svd(matrix, full_matrices=False)[2][0]
    sign = -1 if np.dot(scores, total - total.mean()) < 0 else 1
    return (sign * scores).reshape(height, width).astype(np.float32)
