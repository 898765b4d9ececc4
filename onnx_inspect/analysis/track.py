"""What changed along a training run: weights, activations, predictions and embeddings, checkpoint by checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.checkpoints import Checkpoint
from onnx_inspect.analysis.statistics import LayerStatistics
from onnx_inspect.targets import label

Floats = NDArray[np.float64]
Row = tuple[float | None, ...]  # one number for each checkpoint; None where nothing can be said


@dataclass(frozen=True)
class WeightTrack:
    """One weight over the checkpoints; each row has a number for each.

    Attributes
    ----------
    name : str
        The layer's, and the role where it is no main weight.
    shape : tuple of int
    norm, mean, std : row
    zeros : row
        Share of the numbers that are exactly 0.
    from_first, from_previous : row
        Length of the change as a part of the length before it.
    cosine_last : row
        To the last checkpoint's.
    """

    name: str
    shape: tuple[int, ...]
    norm: Row
    mean: Row
    std: Row
    zeros: Row
    from_first: Row
    from_previous: Row
    cosine_last: Row

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = ("norm", "mean", "std", "zeros", "from_first", "from_previous", "cosine_last")
        return {"weight": self.name, "shape": list(self.shape)} | {row: list(getattr(self, row)) for row in rows}


@dataclass(frozen=True)
class LayerTrack:
    """One layer's activations over the checkpoints.

    Attributes
    ----------
    name, op_type : str
    statistics : tuple of LayerStatistics
        One for each checkpoint.
    cka_first, cka_last : row
        Likeness to the layer in the first and in the last checkpoint; None with fewer than 4 inputs, and where it says
        the same of all.
    """

    name: str
    op_type: str
    statistics: tuple[LayerStatistics, ...]
    cka_first: Row
    cka_last: Row

    @property
    def mean(self) -> Row:
        """Mean activation."""
        return tuple(s.mean for s in self.statistics)

    @property
    def std(self) -> Row:
        """Deviation of the activations."""
        return tuple(s.std for s in self.statistics)

    @property
    def zeros(self) -> Row:
        """Share of activations that are exactly 0."""
        return tuple(s.zeros for s in self.statistics)

    @property
    def dead(self) -> Row:
        """Share of channels that are 0 for every input."""
        return tuple(len(s.dead) / s.channels if s.dead is not None and s.channels else None for s in self.statistics)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        dead = [None if s.dead is None else list(s.dead) for s in self.statistics]
        return {
            "layer": self.name,
            "op_type": self.op_type,
            "mean": list(self.mean),
            "std": list(self.std),
            "zeros": list(self.zeros),
            "dead": dead,
            "nan": [s.nan for s in self.statistics],
            "inf": [s.inf for s in self.statistics],
            "cka_first": list(self.cka_first),
            "cka_last": list(self.cka_last),
        }


@dataclass(frozen=True)
class Predictions:
    """Best class of each input at each checkpoint.

    Attributes
    ----------
    classes : ndarray, (T, N), int
    confidence : ndarray, (T, N), float64
        Probability where it can be had, else the raw score.
    labels : tuple of str or None
    """

    classes: NDArray[np.intp]
    confidence: Floats
    labels: tuple[str, ...] | None

    @property
    def flips(self) -> tuple[int, ...]:
        """How many inputs changed their class since the checkpoint before; 0 at the first."""
        changed = (self.classes[1:] != self.classes[:-1]).sum(axis=1)
        return (0, *(int(c) for c in changed))

    @property
    def unlike_last(self) -> tuple[int, ...]:
        """How many inputs are of another class than at the last checkpoint."""
        return tuple(int(c) for c in (self.classes != self.classes[-1]).sum(axis=1))

    @property
    def settled(self) -> tuple[int, ...]:
        """From which checkpoint on each input's class is the last one's."""
        same = self.classes == self.classes[-1]
        return tuple(int(len(column) - np.argmin(column[::-1])) if not column.all() else 0 for column in same.T)

    def name(self, index: int) -> str:
        """What a class is called."""
        return label(self.labels, index)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "flips": list(self.flips),
            "unlike_last": list(self.unlike_last),
            "settled": list(self.settled),
            "classes": self.classes.tolist(),
            "labels": [[self.name(int(c)) for c in row] for row in self.classes],
            "confidence": self.confidence.tolist(),
        }


@dataclass(frozen=True)
class Embeddings:
    """The inputs before the last linear layer, in the plane of their largest spread, laid onto the last checkpoint's.

    Attributes
    ----------
    layer : str
        Tensor that they are.
    points : ndarray, (T, N, 2), float64
    share : tuple of float
        Of the spread, that each plane holds.
    disparity : tuple of float
        What no turning and scaling takes away, in [0, 1].
    spread : tuple of float
        Root mean squared distance from the middle, in the layer's own unit.
    """

    layer: str
    points: Floats
    share: tuple[float, ...]
    disparity: tuple[float, ...]
    spread: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "layer": self.layer,
            "share": list(self.share),
            "disparity": list(self.disparity),
            "spread": list(self.spread),
            "points": self.points.tolist(),
        }


@dataclass(frozen=True)
class Track:
    """A training run.

    Attributes
    ----------
    steps : tuple of Checkpoint
    sources : tuple of str
        The inputs; empty where only weights were looked at.
    weights : tuple of WeightTrack
    layers : tuple of LayerTrack
    predictions : Predictions or None
    embeddings : Embeddings or None
    notes : tuple of str
    """

    steps: tuple[Checkpoint, ...]
    sources: tuple[str, ...]
    weights: tuple[WeightTrack, ...]
    layers: tuple[LayerTrack, ...]
    predictions: Predictions | None
    embeddings: Embeddings | None
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the checkpoints."""
        return tuple(step.label for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """What ``track --json`` prints."""
        return {
            "checkpoints": [{"model": s.path, "label": s.label, "step": s.step} for s in self.steps],
            "inputs": list(self.sources),
            "weights": [weight.to_json() for weight in self.weights],
            "layers": [layer.to_json() for layer in self.layers],
            "predictions": self.predictions.to_json() if self.predictions is not None else None,
            "embeddings": self.embeddings.to_json() if self.embeddings is not None else None,
            "notes": list(self.notes),
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What ``--save`` writes: a row for each weight or layer, a column for each checkpoint; NaN for None."""
        stored: dict[str, NDArray[Any]] = {"labels": np.array(self.labels)}
        stored["steps"] = np.array([step.step for step in self.steps])
        groups: Mapping[str, tuple[Sequence[Any], Sequence[str]]] = {
            "weights": (self.weights, ("norm", "from_first", "from_previous", "cosine_last")),
            "layers": (self.layers, ("mean", "std", "zeros", "dead", "cka_first", "cka_last")),
        }
        for group, (tracks, rows) in groups.items():
            if tracks:
                stored[group] = np.array([track.name for track in tracks])
                stored |= {f"{group}/{row}": table([getattr(track, row) for track in tracks]) for row in rows}
        if self.predictions is not None:
            stored |= {"classes": self.predictions.classes, "confidence": self.predictions.confidence}
        if self.embeddings is not None:
            stored["embeddings"] = self.embeddings.points
        return stored


def table(rows: Sequence[Row]) -> Floats:
    """Rows as an array (rows, T), float64, NaN where nothing can be said."""
    return np.array([[math.nan if value is None else value for value in row] for row in rows], np.float64)


def change(now: NDArray[Any], before: NDArray[Any]) -> float | None:
    """Length of ``now - before`` as a part of the length of `before`, in float64; None where that is 0."""
    old = before.astype(np.float64)
    length = float(np.linalg.norm(old))
    return float(np.linalg.norm(now.astype(np.float64) - old)) / length if length else None


def cosine(a: NDArray[Any], b: NDArray[Any]) -> float | None:
    """Cosine of two arrays, in float64; None where one is 0 throughout."""
    one, other = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.clip(one @ other / scale, -1, 1)) if scale else None
