"""Principal components: the directions in which the features vary most; linear, and axes mean something."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.embed._wide import components

AXES = ("PC1", "PC2", "PC3")  # what the axes are; projections without it have axes that mean nothing


@dataclass(frozen=True)
class Params:
    """Dimensions wanted; the seed serves randomised solvers."""

    dim: int = 2
    seed: int = 0


def fit(points: NDArray[np.float32], params: Params) -> NDArray[np.float32]:
    """Project to the first principal components (Pearson 1901), as scikit-learn's PCA does.

    Parameters
    ----------
    points : ndarray, (N, D), float32, finite

    Returns
    -------
    ndarray, (N, dim), float32
        Centred; further axes are 0 where the features have fewer dimensions. Deterministic, signs included.
    """
    return components(points, params.dim, params.seed)
