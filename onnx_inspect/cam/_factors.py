"""How a matrix without negative values is split into a few parts without negative values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.ops import one_blas_thread

Floats = NDArray[np.float64]
TOLERANCE = 1e-5  # of the error: what a round must win to be followed by another
LEAST = 1e-12  # keeps a part that has died from dividing by zero


def factorise(matrix: Floats, parts: int, rounds: int) -> tuple[Floats, Floats]:
    """Find W (P, R) and H (R, K), both >= 0, that make ``|V - W H|^2`` small (non-negative matrix factorisation).

    Hierarchical alternating least squares (Cichocki and Phan 2009) from the singular vectors (NNDSVDa: Boutsidis and
    Gallopoulos 2008), so that nothing is random.

    Parameters
    ----------
    matrix : ndarray, (P, K), float64
        V, non-negative.
    parts : int
        R; fewer where the matrix is smaller.
    rounds : int
        At most.

    Returns
    -------
    W, H
        Rows of H have length 1, so that W is in V's unit; the parts with the most in them first.
    """
    parts = min(parts, *matrix.shape)
    with one_blas_thread():
        weights, basis = _start(matrix, parts)
        before = np.inf
        total = float((matrix**2).sum())
        for _ in range(rounds):
            _improve(basis.T, matrix.T @ weights, weights.T @ weights)
            products, gram = matrix @ basis.T, basis @ basis.T
            _improve(weights, products, gram)
            error = total - 2 * float((weights * products).sum()) + float(((weights.T @ weights) * gram).sum())
            if before - error <= TOLERANCE * total:
                break
            before = error
    lengths = np.linalg.norm(basis, axis=1)
    weights, basis = weights * lengths, basis / np.maximum(lengths, LEAST)[:, None]
    order = np.argsort(-weights.sum(axis=0), kind="stable")
    return weights[:, order], basis[order]


def _improve(factor: Floats, products: Floats, gram: Floats) -> None:
    """Set each column of a factor in turn to what fits best beside the others, in place."""
    for part in range(factor.shape[1]):
        change = (products[:, part] - factor @ gram[:, part]) / max(gram[part, part], LEAST)
        factor[:, part] = np.maximum(factor[:, part] + change, 0)


def _start(matrix: Floats, parts: int) -> tuple[Floats, Floats]:
    """Positive parts of the leading singular vectors, the larger side of each; zeros filled with the mean."""
    left, values, right = _leading(matrix, parts)
    weights, basis = np.zeros_like(left), np.zeros_like(right)
    for part, (u, value, v) in enumerate(zip(left.T, values, right, strict=True)):
        sides = [(np.maximum(sign * u, 0), np.maximum(sign * v, 0)) for sign in (1, -1)]
        sizes = [float(np.linalg.norm(a) * np.linalg.norm(b)) for a, b in sides]
        (a, b), size = (sides[0], sizes[0]) if sizes[0] >= sizes[1] else (sides[1], sizes[1])
        scale = np.sqrt(value * size)
        weights[:, part] = scale * a / (np.linalg.norm(a) or 1.0)
        basis[part] = scale * b / (np.linalg.norm(b) or 1.0)
    mean = float(matrix.mean())
    return np.where(weights > 0, weights, mean), np.where(basis > 0, basis, mean)


def _leading(matrix: Floats, parts: int) -> tuple[Floats, Floats, Floats]:
    """The leading singular vectors and values, from the smaller of the two Gram matrices."""
    from scipy.linalg import eigh

    wide = matrix.shape[0] < matrix.shape[1]
    own = matrix.T if wide else matrix
    last = own.shape[1] - 1
    values, vectors = eigh(own.T @ own, subset_by_index=[last - parts + 1, last])
    singular, vectors = np.sqrt(np.maximum(values[::-1], 0)), vectors[:, ::-1]
    others = own @ vectors / np.maximum(singular, LEAST)
    return (vectors, singular, others.T) if wide else (others, singular, vectors.T)
