"""How wide features are narrowed before anything that looks at distances: by principal components."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-6
IN_MEMORY = 2**30  # bytes of features that are decomposed at once; more are read in parts


def narrowed(points: Any, most: int, seed: int) -> NDArray[np.float32]:
    """The first `most` principal components; the points themselves where they have no more than that.

    Parameters
    ----------
    points : array_like, (N, D)
        In memory, or in shards on disk: too many to hold are read a part at a time (scikit-learn's IncrementalPCA).
    most : int
        Components to keep, fewer where there are fewer samples; 0 keeps all features.

    Returns
    -------
    ndarray, (N, min(most, D, N - 1)), float32
        Deterministic, signs included.
    """
    count, width = points.shape
    if not most or width <= most or count < 3:
        return np.asarray(points, np.float32)
    kept = min(most, count - 1)
    if points.nbytes > IN_MEMORY:
        return _in_parts(points, kept)
    from sklearn.decomposition import PCA

    return np.asarray(PCA(kept, random_state=seed).fit_transform(np.asarray(points, np.float32)), np.float32)


def constant(points: NDArray[np.float32]) -> bool:
    """Whether all points coincide, up to float32's rounding."""
    return bool(np.ptp(points, axis=0).max(initial=0.0) <= ROUNDING * np.abs(points).max(initial=0.0))


def components(points: NDArray[np.float32], count: int, seed: int) -> NDArray[np.float32]:
    """Exactly `count` principal components; zeros where the points have fewer dimensions.

    Points that all coincide give zeros.
    """
    found = np.zeros((len(points), count), np.float32)
    rank = min(count, *points.shape)
    if rank and not constant(points):
        from sklearn.decomposition import PCA

        found[:, :rank] = PCA(rank, random_state=seed).fit_transform(points)
    return found


def _in_parts(points: Any, kept: int) -> NDArray[np.float32]:
    from sklearn.decomposition import IncrementalPCA

    rows = max(5 * kept, IN_MEMORY // 4 // (4 * points.shape[1]))
    model = IncrementalPCA(kept)
    # A part must not have fewer rows than components: the last takes the rest.
    starts = list(range(0, max(len(points) - rows, 1), rows))
    ends = [*starts[1:], len(points)]
    for start, end in zip(starts, ends, strict=True):
        model.partial_fit(np.asarray(points[start:end], np.float32))
    parts = [model.transform(np.asarray(points[s:e], np.float32)) for s, e in zip(starts, ends, strict=True)]
    return np.concatenate(parts).astype(np.float32)
