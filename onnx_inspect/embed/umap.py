"""UMAP: who is near whom, with more of the large shape kept than t-SNE does."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.embed._wide import components, constant, narrowed
from onnx_inspect.errors import MissingExtra


@dataclass(frozen=True)
class Params:
    """How it is fitted.

    Attributes
    ----------
    dim, seed : int
    pca : int
        Principal components that wide features are narrowed to first; 0 for none.
    neighbours : int
        How many neighbours a point has: few show small structure, many the large.
    spacing : float
        How close points may lie together (UMAP's `min_dist`).
    """

    dim: int = 2
    seed: int = 0
    pca: int = 50
    neighbours: int = 15
    spacing: float = 0.1

    def __post_init__(self) -> None:
        if self.neighbours < 2:
            raise ValueError(f"neighbours are at least 2, got {self.neighbours}")
        if not 0 <= self.spacing <= 1:
            raise ValueError(f"spacing lies between 0 and 1, got {self.spacing:g}")


def fit(points: NDArray[np.float32], params: Params) -> NDArray[np.float32]:
    """Project by UMAP (McInnes, Healy and Melville 2018), on one thread, as its seed asks for.

    Parameters
    ----------
    points : ndarray, (N, D), float32, finite

    Returns
    -------
    ndarray, (N, dim), float32
        The same for the same seed. Too few points for a neighbourhood graph (dim + 2), or points that all coincide,
        give their principal components.

    Raises
    ------
    MissingExtra
        umap-learn isn't installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that parts of it which aren't asked for are missing
            from umap import UMAP
    except ModuleNotFoundError as error:
        raise MissingExtra("projecting by umap needs umap-learn: pip install 'onnx-inspect[umap]'") from error
    points = narrowed(points, params.pca, params.seed)
    if len(points) < params.dim + 3 or constant(points):
        return components(points, params.dim, params.seed)
    model = UMAP(
        n_components=params.dim,
        n_neighbors=settled(params, len(points)).neighbours,
        min_dist=params.spacing,
        random_state=params.seed,
        n_jobs=1,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of graphs that fall into pieces, which is what they do
        return np.asarray(model.fit_transform(points), np.float32)


def settled(params: Params, count: int) -> Params:
    """What is really done with this many points: how many neighbours."""
    return replace(params, neighbours=max(2, min(params.neighbours, count - 1)))
