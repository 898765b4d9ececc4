"""Which non-negative parts a layer's activations are sums of: concepts, by matrix factorisation (DFF, CRAFT).

Each position's activations (K,) are taken as ``u V`` with few concepts: V (J, K) >= 0 holds what each concept is made
of, u (J,) >= 0 how much of each is there. Collins et al. 2018 (Deep Feature Factorization, arXiv:1806.10206), Fel et
al. 2023 (CRAFT, arXiv:2211.10154), who also measure by Sobol indices how much each concept decides a class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.channels import Channels
from onnx_inspect.errors import LayerError

Floats = NDArray[np.float64]
ITERATIONS = 400
BLOCK = 20_000  # positions that are expressed at one time


@dataclass(frozen=True)
class Concepts:
    """J concepts of one layer.

    Attributes
    ----------
    basis : ndarray, (J, K), float32
        What each is made of: unit vectors over the layer's channels.
    shares : ndarray, (J,), float64
        Part of what all concepts together make up (the sum of ``U V`` over positions, channels and samples).
    explained : float
        ``1 - |A - U V|^2 / |A - mean|^2`` over all positions.
    channels : Channels
        The concepts' amounts, looked at as channels.
    importance : ndarray, (C, J), float64
        How much each decides each class (of `channels.groups`); empty where no class scores are known.
    measure : str
        How that was measured.
    """

    basis: NDArray[np.float32]
    shares: Floats
    explained: float
    channels: Channels
    importance: Floats
    measure: str

    def describe(self) -> str:
        """One line."""
        return (
            f"{len(self.basis)} concepts by NMF of {self.basis.shape[1]:,} channels explain {self.explained:.0%} of the"
            " layer's variance"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        classes = [self.channels.name(int(g)) for g in self.channels.groups]
        return {
            "explained": self.explained,
            "shares": self.shares.tolist(),
            "measure": self.measure or None,
            "importance": {c: row.tolist() for c, row in zip(classes, self.importance, strict=False)},
        }


def factorise(rows: NDArray[np.float32], count: int, seed: int) -> NDArray[np.float32]:
    """Find the concepts of some positions.

    Parameters
    ----------
    rows : ndarray, (n, K), >= 0
    count : int
        Concepts wanted, at most min(n, K).
    seed : int

    Returns
    -------
    ndarray, (count, K), float32, >= 0
        Unit vectors, those that make up most first.

    Raises
    ------
    LayerError
        A value is negative, or all are 0.
    """
    import warnings

    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    if rows.min() < 0:
        raise LayerError("concepts are parts of sums, but the layer holds negative values: choose one behind a Relu")
    if not rows.any():
        raise LayerError("the layer is 0 everywhere: there is nothing to make concepts of")
    if count > min(rows.shape):
        raise LayerError(
            f"{rows.shape[0]:,} positions of {rows.shape[1]} channels have no {count} concepts: ask for fewer"
        )
    scale = float(rows.mean())
    model = NMF(count, init="nndsvda", max_iter=ITERATIONS, random_state=seed, tol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a last digit more changes no picture
        amounts = model.fit_transform(rows.astype(np.float64) / scale)
    basis = np.asarray(model.components_, np.float64)
    length = np.linalg.norm(basis, axis=1)
    order = np.argsort(-(amounts.sum(axis=0) * basis.sum(axis=1)), kind="stable")
    unit = np.divide(basis, length[:, None], out=np.zeros_like(basis), where=length[:, None] > 0)
    return np.asarray(unit[order], np.float32)


def amounts(rows: NDArray[np.float32], basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much of each concept is in each position: non-negative least squares, (n, J), float32.

    By coordinate descent to convergence, for all positions at once; the result for a position doesn't depend on others.
    """
    gram = basis.astype(np.float64) @ basis.T.astype(np.float64)  # (J, J)
    found = np.empty((len(rows), len(basis)), np.float32)
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        found[part] = _descend(rows[part].astype(np.float64) @ basis.T.astype(np.float64), gram)
    return found


def _descend(target: Floats, gram: Floats) -> Floats:
    """Minimise ``u G u / 2 - u t`` over u >= 0 for each row."""
    found = np.zeros_like(target)
    scale = np.maximum(target.max(axis=1, initial=0.0), 1e-30)
    for _ in range(ITERATIONS):
        moved = 0.0
        for j in range(len(gram)):
            if gram[j, j] <= 0:
                continue
            new = np.maximum(0.0, found[:, j] + (target[:, j] - found @ gram[j]) / gram[j, j])
            moved = max(moved, float((np.abs(new - found[:, j]) / scale).max()))
            found[:, j] = new
        if moved < 1e-6:
            break
    return found


def correlations(amount: Floats, scores: Floats) -> Floats:
    """Correlation of each sample's mean amounts (N, J) with its scores (N, C), as (C, J); 0 where one is constant."""
    one, two = amount - amount.mean(axis=0), scores - scores.mean(axis=0)
    scale = np.outer(np.linalg.norm(two, axis=0), np.linalg.norm(one, axis=0))
    return np.divide(two.T @ one, scale, out=np.zeros_like(scale), where=scale > 1e-12)
