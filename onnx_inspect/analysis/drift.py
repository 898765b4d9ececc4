"""Whether two models give the same reasons for the same pictures: how their saliency maps rank the picture's places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect import ops
from onnx_inspect.cam._probe import Attribution, is_flat
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.inputs.placement import Placement
from onnx_inspect.targets import label

Floats = NDArray[np.float64]
Map = NDArray[np.float32]
TOP = 0.1  # of a map's cells: the strongest, which overlap or don't
GRID = 64  # cells along the longer side of what maps of different resolutions are compared on

SAME, REASON, PREDICTION, NOTHING = "same", "reason changed", "prediction changed", "no evidence"


@dataclass(frozen=True)
class Limits:
    """From when on a reason counts as changed, and how many changed classes are let through.

    Attributes
    ----------
    rank_correlation, overlap : float
        Less than this is another reason.
    flips : int
    """

    rank_correlation: float = 0.5
    overlap: float = 0.0
    flips: int = 0


@dataclass(frozen=True)
class Reasons:
    """What two models say of one picture, and why.

    Attributes
    ----------
    source : str
    target : tuple of str
        What was explained in A and in B.
    scores : tuple of float or None
        Of the target.
    predicted : tuple of str or None
        The best class of A and of B; None without class scores.
    rank_correlation : float or None
        Spearman's of the two maps' cells, in [-1, 1]; None where a map is flat.
    overlap : float or None
        Share of the picture's tenth that is strongest in one map and in the other, too, in [0, 1]; 0.1 by chance.
    verdict : str
        ``same``, ``reason changed`` (though the prediction is the same), ``prediction changed``, ``no evidence``.
    """

    source: str
    target: tuple[str, str]
    scores: tuple[float | None, float | None]
    predicted: tuple[str | None, str | None]
    rank_correlation: float | None
    overlap: float | None
    verdict: str

    @property
    def agree(self) -> bool:
        """Whether both models predict the same class, or neither any."""
        return self.predicted[0] == self.predicted[1]

    def to_json(self) -> dict[str, Any]:
        """One entry of ``compare --cam --json``."""
        return {
            "source": self.source,
            "verdict": self.verdict,
            "rank_correlation": self.rank_correlation,
            "overlap": self.overlap,
            "predicted_a": self.predicted[0],
            "predicted_b": self.predicted[1],
            "target_a": self.target[0],
            "target_b": self.target[1],
            "score_a": self.scores[0],
            "score_b": self.scores[1],
        }


@dataclass(frozen=True)
class Drift:
    """How the reasons of two models differ over some pictures.

    Attributes
    ----------
    method : str
    layers : tuple of str
        Where A and B were looked at; "" where the method looks at no layer.
    pictures : tuple of Reasons
        In the order of the inputs.
    limits : Limits
    """

    method: str
    layers: tuple[str, str]
    pictures: tuple[Reasons, ...]
    limits: Limits

    @property
    def order(self) -> tuple[int, ...]:
        """The pictures' numbers, the most changed first: by rank correlation, those without evidence last."""
        known = [math.inf if p.rank_correlation is None else p.rank_correlation for p in self.pictures]
        return tuple(int(i) for i in np.argsort(known, kind="stable"))

    @property
    def flips(self) -> int:
        """How many pictures are of another class."""
        return sum(not p.agree for p in self.pictures)

    @property
    def changed(self) -> int:
        """How many have another reason though the class is the same."""
        return sum(p.verdict == REASON for p in self.pictures)

    @property
    def median(self) -> float | None:
        """Median rank correlation; None where no picture has one."""
        found = [p.rank_correlation for p in self.pictures if p.rank_correlation is not None]
        return float(np.median(found)) if found else None

    @property
    def compared(self) -> bool:
        """Whether any picture's maps could be compared."""
        return self.median is not None

    @property
    def agree(self) -> bool:
        """Whether no reason changed and no more classes than are let through."""
        return self.changed == 0 and self.flips <= self.limits.flips

    def to_json(self) -> dict[str, Any]:
        """What ``compare --cam --json`` prints, the most changed picture first."""
        return {
            "agree": self.agree,
            "method": self.method,
            "layer_a": self.layers[0] or None,
            "layer_b": self.layers[1] or None,
            "median_rank_correlation": self.median,
            "reason_changed": self.changed,
            "flips": self.flips,
            "limits": {"rank_correlation": self.limits.rank_correlation, "overlap": self.limits.overlap},
            "pictures": [self.pictures[i].to_json() for i in self.order],
        }


def drift(
    a: Attribution,
    inputs_a: Batch,
    classes_a: NDArray[np.intp] | None,
    b: Attribution,
    inputs_b: Batch,
    classes_b: NDArray[np.intp] | None,
    limits: Limits,
) -> Drift:
    """Compare the maps of two models for the same pictures.

    Parameters
    ----------
    classes_a, classes_b : ndarray, (N,), int, or None
        Each model's best class of each picture.
    """
    names_a, names_b = inputs_a.labels or inputs_b.labels, inputs_b.labels or inputs_a.labels
    pictures = []
    for n, source in enumerate(inputs_a.sources):
        places = inputs_a.placements[n], inputs_b.placements[n]
        maps = a.values[n], b.values[n]
        flat = is_flat(maps[0]) or is_flat(maps[1])
        rho = None if flat else rank_correlation(*on_one_grid(maps, places))
        shared = None if flat else overlap(*on_one_grid(maps, places, fine=True))
        predicted = (_named(classes_a, n, names_a), _named(classes_b, n, names_b))
        pictures.append(
            Reasons(
                source=source,
                target=(a.targets[n], b.targets[n]),
                scores=(_number(a.scores[n]), _number(b.scores[n])),
                predicted=predicted,
                rank_correlation=rho,
                overlap=shared,
                verdict=_verdict(rho, shared, predicted[0] == predicted[1], limits),
            )
        )
    return Drift(a.method, (a.layer, b.layer), tuple(pictures), limits)


def on_one_grid(
    maps: Sequence[Map], places: Sequence[Placement | None], *, fine: bool = False
) -> tuple[Floats, Floats]:
    """Bring two raw maps over the same cells of the picture, (cells,) each, only where both networks saw it.

    Maps of one resolution over the same plane are compared as they are, unless `fine`. Others go onto the picture,
    between the cells as they are drawn, at 64 cells along its longer side; without a picture, onto a grid as fine.
    """
    one, other = maps
    alike = one.shape == other.shape and (places[0] == places[1] or None in places)
    if fine or not alike:
        first, second = places
        if first is not None and second is not None:
            one, other = (_on_picture(values, place) for values, place in zip(maps, (first, second), strict=True))
        else:
            rows, columns = (max(one.shape[axis], other.shape[axis]) for axis in (0, 1))
            size = GRID if rows > 1 else 1, GRID if columns > 1 else 1
            one, other = ops.resize(one, size), ops.resize(other, size)
    seen = np.isfinite(one) & np.isfinite(other)
    return one[seen].astype(np.float64), other[seen].astype(np.float64)


def _on_picture(values: Map, place: Placement) -> Map:
    factor = GRID / max(place.original)
    size = max(1, round(place.original[0] * factor)), max(1, round(place.original[1] * factor))
    return replace(place, original=size).to_original(values)


def rank_correlation(a: Floats, b: Floats) -> float | None:
    """Spearman's rank correlation, ties sharing their mean rank; None where one side is constant or empty."""
    if not a.size:
        return None
    ranks = [_ranks(values) for values in (a, b)]
    one, other = (rank - rank.mean() for rank in ranks)
    scale = math.sqrt(float(one @ one) * float(other @ other))
    return float(np.clip(one @ other / scale, -1, 1)) if scale else None


def overlap(a: Floats, b: Floats, share: float = TOP) -> float | None:
    """Share of the strongest cells of a map that are among the other's strongest, in [0, 1]; None without cells.

    Cells tied for the last places share them, so that a plateau counts by how much of it fits.
    """
    if not a.size:
        return None
    count = max(1, round(share * a.size))
    return float(np.minimum(_membership(a, count), _membership(b, count)).sum() / count)


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], np.float64)


def _membership(values: Floats, count: int) -> Floats:
    """How much of each cell is among the `count` strongest, in [0, 1]."""
    cutoff = np.partition(values, -count)[-count]
    above, tied = values > cutoff, values == cutoff
    return above + tied * ((count - above.sum()) / tied.sum())


def _verdict(rho: float | None, shared: float | None, agree: bool, limits: Limits) -> str:
    if not agree:
        return PREDICTION
    if rho is None or shared is None:
        return NOTHING
    return REASON if rho < limits.rank_correlation or shared < limits.overlap else SAME


def _named(classes: NDArray[np.intp] | None, index: int, labels: Sequence[str] | None) -> str | None:
    return None if classes is None else label(labels, int(classes[index]))


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
