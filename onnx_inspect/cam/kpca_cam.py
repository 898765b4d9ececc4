"""KPCA-CAM: the first kernel principal component of the positions (Karmani et al. 2024, arXiv:2410.00267).

Positions are points of K channels, centred per channel. With ``k(x, y) = tanh(gamma x.y + 1)``, ``gamma = 1/K``
(``kernel=sigmoid``, the paper's; also ``rbf``, ``exp(-gamma |x - y|^2)``, and ``linear``, which is Eigen-CAM centred),
the kernel matrix is centred and ``L = sqrt(lambda_1) u_1``. The eigenvector's sign is arbitrary: it is chosen so that
the map correlates positively with the mean activation. It looks at no class: the map is the same for every target.
Cost: one pass up to the layer, and a kernel matrix of (h * w)^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from onnx_inspect.cam._params import at_least, one_of
from onnx_inspect.cam._probe import Maps, Probe
from onnx_inspect.errors import MethodError

CLASS_AWARE = False
SMALL = 1024  # positions
LARGEST = 8192  # positions: a kernel matrix of half a gigabyte
NOTHING = 1e-12  # of the kernel's own size: less variance than that is rounding


@dataclass(frozen=True)
class Params:
    """Which kernel, and its scale; 0 stands for one over the number of channels."""

    kernel: str = "sigmoid"
    gamma: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        one_of("kernel", self.kernel, "sigmoid", "rbf", "linear")
        at_least("gamma", self.gamma, 0)


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w), signed. Positions that don't differ give a zero map.

    Raises
    ------
    MethodError
        The layer has so many positions that the kernel matrix would not fit.
    """
    grid = probe.activations.shape[2:]
    if math.prod(grid) > LARGEST:
        raise MethodError(
            f"kpca-cam needs a kernel matrix of (h*w)^2, and this layer has {'x'.join(map(str, grid))} positions (at"
            f" most {LARGEST}): choose a later layer, or eigen-cam"
        )
    return np.stack([_component(a, params) for a in probe.activations])


def _component(activation: Maps, params: Params) -> Maps:
    from scipy.linalg import eigh

    channels, *grid = activation.shape
    points = activation.reshape(channels, -1).T.astype(np.float64)  # (h*w, K)
    mean = points.mean(axis=1)
    if not np.isfinite(points).all():
        return np.full(grid, np.nan, np.float32)
    # Matrices this small gain nothing from more threads, and beside a busy runtime they lose.
    with threadpool_limits(1 if len(points) <= SMALL else None, user_api="blas"):
        matrix = _kernel(points - points.mean(axis=0), params.kernel, params.gamma or 1.0 / channels)
        rows = matrix.mean(axis=0)
        centred = matrix - rows - rows[:, None] + rows.mean()
        values, vectors = eigh(centred, subset_by_index=[len(centred) - 1, len(centred) - 1])
    if not values[0] > NOTHING * float(np.abs(matrix).max()) * len(centred):
        return np.zeros(grid, np.float32)
    scores = vectors[:, 0] * np.sqrt(values[0])
    if np.dot(scores - scores.mean(), mean - mean.mean()) < 0:
        scores = -scores
    return scores.reshape(grid).astype(np.float32)


def _kernel(points: NDArray[np.float64], kind: str, gamma: float) -> NDArray[np.float64]:
    products = points @ points.T
    if kind == "linear":
        return products
    if kind == "sigmoid":
        return np.tanh(gamma * products + 1.0)
    squares = np.diag(products)
    return np.exp(-gamma * np.maximum(squares[:, None] + squares - 2 * products, 0.0))
