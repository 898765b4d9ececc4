"""t-SNE: who is near whom, whatever the distances between clusters; for looking, not for measuring."""

from __future__ import annotations

import importlib.util
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from onnx_inspect.embed._wide import components, constant, narrowed
from onnx_inspect.errors import MissingExtra

FEW = 1000  # points up to which threads wait for each other longer than they work
LARGE = 5000  # points from which openTSNE is worth its own neighbour search
LIBRARIES = ("auto", "sklearn", "opentsne")


@dataclass(frozen=True)
class Params:
    """How it is fitted.

    Attributes
    ----------
    dim, seed : int
    pca : int
        Principal components that wide features are narrowed to first; 0 for none.
    perplexity : float
        About how many neighbours a point has; at most a third of the points.
    iterations : int
    library : {'auto', 'sklearn', 'opentsne'}
        scikit-learn's, or openTSNE's where it is installed and there are more than 5000 points.
    """

    dim: int = 2
    seed: int = 0
    pca: int = 50
    perplexity: float = 30.0
    iterations: int = 1000
    library: str = "auto"

    def __post_init__(self) -> None:
        if self.library not in LIBRARIES:
            raise ValueError(f"library is {', '.join(LIBRARIES)}, got {self.library!r}")
        if not self.perplexity > 0:
            raise ValueError(f"perplexity is above 0, got {self.perplexity:g}")
        if self.iterations < 250:
            raise ValueError(f"iterations are at least 250, got {self.iterations}")


def fit(points: NDArray[np.float32], params: Params) -> NDArray[np.float32]:
    """Project by t-SNE (van der Maaten and Hinton 2008), started from the principal components.

    Parameters
    ----------
    points : ndarray, (N, D), float32, finite

    Returns
    -------
    ndarray, (N, dim), float32
        The same for the same seed. Fewer than four points, or points that all coincide, give their principal
        components.

    Raises
    ------
    MissingExtra
        openTSNE was asked for and isn't installed.
    """
    points, params = narrowed(points, params.pca, params.seed), settled(params, len(points))
    if len(points) < 4 or constant(points):
        return components(points, params.dim, params.seed)
    if params.library == "opentsne":
        return _opentsne(points, params)
    from sklearn.manifold import TSNE

    model = TSNE(
        params.dim,
        perplexity=params.perplexity,
        max_iter=params.iterations,
        init="pca" if points.shape[1] >= params.dim else "random",
        random_state=params.seed,
    )
    with threadpool_limits(1) if len(points) < FEW else nullcontext():
        return np.asarray(model.fit_transform(points), np.float32)


def settled(params: Params, count: int) -> Params:
    """What is really done with this many points: which library, which perplexity."""
    there = importlib.util.find_spec("openTSNE") is not None
    auto = "opentsne" if there and count > LARGE else "sklearn"
    perplexity = min(params.perplexity, max(count - 1, 1) / 3)
    return replace(params, library=auto if params.library == "auto" else params.library, perplexity=perplexity)


def advice(params: Params, count: int) -> str:
    """What to know before it is run on this many points; "" where there is nothing."""
    if count <= LARGE or settled(params, count).library != "sklearn":
        return ""
    return (
        f"scikit-learn's t-SNE takes minutes for {count:,} points; openTSNE is faster: pip install"
        " 'onnx-inspect[opentsne]'"
    )


def _opentsne(points: NDArray[np.float32], params: Params) -> NDArray[np.float32]:
    try:
        from openTSNE import TSNE
    except ModuleNotFoundError as error:
        raise MissingExtra("library=opentsne needs openTSNE: pip install 'onnx-inspect[opentsne]'") from error
    model = TSNE(
        params.dim,
        perplexity=params.perplexity,
        n_iter=params.iterations - 250,  # it counts those of the early exaggeration apart
        initialization="pca",
        random_state=params.seed,
        negative_gradient_method="bh" if params.dim > 2 else "auto",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own use of scipy
        return np.asarray(model.fit(points), np.float32)
