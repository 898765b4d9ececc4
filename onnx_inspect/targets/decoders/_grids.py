"""Where a detector's cells lie: the centres of its grids, one grid for each stride."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STRIDES = (8, 16, 32)


def cells(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Rows and columns of a grid over a plane (h, w); a cell that is cut at the border counts."""
    return -(-size[0] // stride), -(-size[1] // stride)


def count(size: tuple[int, int], stride: int) -> int:
    """Cells of a grid."""
    rows, columns = cells(size, stride)
    return rows * columns


def corners(size: tuple[int, int], stride: int) -> NDArray[np.float64]:
    """Upper left corners (x, y) of a grid's cells in pixels, row by row, (cells, 2)."""
    rows, columns = cells(size, stride)
    y, x = np.divmod(np.arange(rows * columns), columns)
    return np.stack([x, y], axis=1) * float(stride)


def normalised(boxes: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Boxes (..., 4) from pixels to [0, 1] of the plane."""
    return boxes / np.array([size[1], size[0], size[1], size[0]], np.float64)


def from_centres(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Boxes (..., 4) from centre, width and height to corners."""
    half = boxes[..., 2:] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def to_centres(slopes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slopes by corners (..., 4) as those by centre, width and height."""
    low, high = slopes[..., :2], slopes[..., 2:]
    return np.concatenate([low + high, (high - low) / 2], axis=-1)


def softmax_slopes(shares: NDArray[np.float64], slopes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slopes by the shares of a softmax over the last axis as those by what it was taken of."""
    return np.asarray(shares * (slopes - (shares * slopes).sum(axis=-1, keepdims=True)))
