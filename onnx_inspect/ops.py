"""Which numpy operations several methods share."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController


def resize(maps: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Enlarge or shrink maps linearly along each axis, with half-pixel centres (edges repeat, no antialiasing).

    Parameters
    ----------
    maps : ndarray, (..., h, w), float32
        Also volumes, (..., d, h, w).
    size : tuple of int
        Height and width wanted; depth, height and width of volumes.

    Returns
    -------
    ndarray, (..., *size), float32
        Within the range of `maps`; linear in them.
    """
    if len(size) > 2:
        axis = maps.ndim - len(size)
        depth = _weights(maps.shape[axis], size[0])
        return np.moveaxis(np.tensordot(resize(maps, size[1:]), depth, (axis, 1)), -1, axis)
    rows, columns = (_weights(n, m) for n, m in zip(maps.shape[-2:], size, strict=True))
    with one_blas_thread():
        return np.asarray(rows @ maps @ columns.T, dtype=np.float32)


def _weights(before: int, after: int) -> NDArray[np.float32]:
    """Matrix (after, before) of linear interpolation."""
    centres = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    low = np.floor(centres).astype(np.intp)
    high = np.minimum(low + 1, before - 1)
    share = (centres - low).astype(np.float32)
    matrix = np.zeros((after, before), np.float32)
    np.add.at(matrix, (np.arange(after), low), 1 - share)
    np.add.at(matrix, (np.arange(after), high), share)
    return matrix


def normalise(
    maps: NDArray[Any], epsilon: float = 1e-8, *, axes: int = 2
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Scale each map to [0, 1]: ``(x - min) / (max - min + epsilon)``.

    Parameters
    ----------
    maps : ndarray, (..., h, w)
    axes : int
        How many of the last axes are a map's: 3 for volumes.

    Returns
    -------
    scaled : ndarray, (..., h, w), float32
        A constant map becomes 0.
    constant : ndarray, (...), bool
        Which maps are constant.
    """
    own = tuple(range(-axes, 0))
    low = maps.min(axis=own, keepdims=True)
    span = maps.max(axis=own, keepdims=True) - low
    scaled = np.asarray((maps - low) / (span + epsilon), dtype=np.float32)
    return scaled, np.asarray(span.reshape(span.shape[:-axes]) == 0)


def softmax(logits: NDArray[Any], axis: int = -1) -> NDArray[np.float64]:
    """Exponentials that sum to 1 along an axis, in float64; large logits don't overflow."""
    shifted = np.asarray(logits, np.float64) - np.max(logits, axis=axis, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=axis, keepdims=True))


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    """``1 / (1 + exp(-x))`` in float64; large logits don't overflow."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * np.asarray(logits, np.float64)))


def one_blas_thread() -> AbstractContextManager[object]:
    """Keep matrix products within it to one thread.

    Small ones gain nothing from more, and BLAS's threads spin on beside a runtime's and slow its next forward pass.
    """
    return _blas().limit(limits=1, user_api="blas")


@cache
def _blas() -> ThreadpoolController:
    """Numpy's own BLAS; finding the library takes a millisecond, so it is done once."""
    return ThreadpoolController()
