"""What a data set looks like inside layers: points in two or three dimensions, their classes, what to make of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.separation import Quality

Picture = NDArray[np.uint8]
CELLS = 14  # of the grid, along each side, that thumbnails stand in
AROUND, CLEAR = 10, 0.5  # neighbours of a name, and how many of them must be of its group


@dataclass(frozen=True)
class Projection:
    """One layer's points.

    Attributes
    ----------
    layer : str
    width : int
        Features that were projected, after pooling.
    points : ndarray, (N, dim), float32
    quality : Quality
    axes : tuple of str
        What the axes are, where they mean something; empty otherwise.
    anchors : tuple of (group, sample)
        Where each group's name may stand: its sample with the most of its own kind around, where that is most of them.
    """

    layer: str
    width: int
    points: NDArray[np.float32]
    quality: Quality
    axes: tuple[str, ...] = ()
    anchors: tuple[tuple[int, int], ...] = ()

    @property
    def constant(self) -> bool:
        """Whether all points coincide."""
        return not np.ptp(self.points, axis=0).any()


@dataclass(frozen=True)
class Embedding:
    """Projections of several layers over the same samples.

    Attributes
    ----------
    projections : tuple of Projection
        In the order of depth, at least one.
    method, pool, model : str
    params : mapping
        The method's.
    labels, predictions : ndarray, (N,), int64
        -1 where there is none.
    groups : ndarray, (N,), int64
        What points are coloured by: the labels, or the predictions where no sample has one; -1 for none.
    names : tuple of str or None
        Names of the groups by number.
    by : str
        ``class``, ``predicted class``, or "" where neither is known.
    wrong : ndarray, (N,), bool
        Which samples are misclassified.
    sources : tuple of str
    classes : tuple of str or None
        Names of the labels.
    comparable : bool
        Whether predictions could be compared with labels.
    thumbnails : mapping of layer to mapping of sample to picture
        Pictures to be drawn at points.
    """

    projections: tuple[Projection, ...]
    method: str
    params: Mapping[str, Any]
    pool: str
    model: str
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    groups: NDArray[np.int64]
    names: tuple[str, ...] | None
    by: str
    wrong: NDArray[np.bool_]
    sources: tuple[str, ...]
    classes: tuple[str, ...] | None
    comparable: bool
    thumbnails: Mapping[str, Mapping[int, Picture]] = field(default_factory=dict, repr=False)

    @property
    def dim(self) -> int:
        """Two or three."""
        return self.projections[0].points.shape[1]

    def meta(self) -> dict[str, Any]:
        """What is known of the points: the deepest layer's figures, and each layer's."""
        last = self.projections[-1]
        known = self.labels >= 0
        compared = self.comparable and bool((known & (self.predictions >= 0)).any())
        return {
            "model": self.model,
            "layer": last.layer,
            "method": self.method,
            "params": dict(self.params),
            "pool": self.pool,
            "quality": last.quality.to_json(),
            "layers": {p.layer: {"width": p.width, "quality": p.quality.to_json()} for p in self.projections},
            "classes": list(self.classes) if self.classes is not None else None,
            "samples": len(self.sources),
            "misclassified": int(self.wrong.sum()) if compared else None,
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What ``embed --save`` writes.

        ``points`` (N, dim) are the deepest layer's; of several layers, each one's are ``points@LAYER`` too.
        """
        found: dict[str, NDArray[Any]] = {"points": self.projections[-1].points}
        if len(self.projections) > 1:
            found |= {f"points@{p.layer}": p.points for p in self.projections}
        return found | {
            "labels": self.labels,
            "predictions": self.predictions,
            "sources": np.array(self.sources, str),
            "meta": np.array(json.dumps(_finite(self.meta()), ensure_ascii=False)),
        }


def anchors(points: NDArray[np.float32], groups: NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    """Where names of groups may stand, the clearest first: (group, sample).

    A group's name stands at the sample among whose 10 nearest others most are of its group; at none where that is less
    than half of them, for a name would lie there among others' points.
    """
    count = min(AROUND, len(points) - 1)
    if count < 1:
        return ()
    from scipy.spatial import cKDTree

    far, near = cKDTree(points).query(points, count + 1)
    pure = (groups[near[:, 1:]] == groups[:, None]).mean(axis=1)
    order = np.lexsort((far[:, -1], -pure))  # pure first, dense among equals
    found: dict[int, int] = {}
    for sample in order[(pure[order] >= CLEAR) & (groups[order] >= 0)].tolist():
        found.setdefault(int(groups[sample]), sample)
    return tuple(found.items())


def spread(points: NDArray[np.float32], cells: int) -> NDArray[np.intp]:
    """Samples that lie spread out: the one nearest to the middle of each cell of a grid over the first two axes.

    Parameters
    ----------
    points : ndarray, (N, 2 or more)
    cells : int
        Cells along each side.

    Returns
    -------
    ndarray, (M,), int
        No two nearer than they can be in neighbouring cells; sorted.
    """
    plane = points[:, :2].astype(np.float64)
    span = float(np.ptp(plane, axis=0).max()) or 1.0
    places = (plane - plane.min(axis=0)) / span * (cells - 1e-6)  # [0, cells)
    cell = np.floor(places).astype(np.intp)
    off = ((places - cell - 0.5) ** 2).sum(axis=1)
    order = np.lexsort((off, cell[:, 1], cell[:, 0]))
    number = (cell[order, 0] * cells) + cell[order, 1]
    return np.sort(order[np.flatnonzero(np.diff(number, prepend=-1))])


def _finite(value: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
