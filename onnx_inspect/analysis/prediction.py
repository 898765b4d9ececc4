"""Which classes a model answers with, and how sure it is; or what its outputs hold when they are no class scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.graph.classifier import Classifier
from onnx_inspect.targets import dequantised, label, probabilities


@dataclass(frozen=True)
class Ranked:
    """One class of one input's answer."""

    index: int
    label: str
    score: float


@dataclass(frozen=True)
class OutputStatistics:
    """One output of one input: its shape and range."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    minimum: float
    maximum: float
    mean: float


@dataclass(frozen=True)
class Prediction:
    """A model's answers to a batch.

    Attributes
    ----------
    top : tuple per input of Ranked
        Best first; `score` is the probability where one can be had (softmax of logits), else the raw score. Empty for
        models without class scores.
    outputs : tuple per input of OutputStatistics
    flat : tuple of bool
        Whether an input's scores are all alike or not finite, so that its first class means nothing.
    """

    model: str
    provider: str
    sources: tuple[str, ...]
    top: tuple[tuple[Ranked, ...], ...]
    outputs: tuple[tuple[OutputStatistics, ...], ...]
    flat: tuple[bool, ...]

    def to_json(self) -> dict[str, Any]:
        """What ``predict --json`` prints."""
        inputs = []
        for source, ranked, outputs, flat in zip(self.sources, self.top, self.outputs, self.flat, strict=True):
            inputs.append(
                {
                    "source": source,
                    "top": [{"index": r.index, "label": r.label, "score": r.score} for r in ranked],
                    "flat": flat,
                    "outputs": [
                        {"name": o.name, "dtype": o.dtype, "shape": list(o.shape)}
                        | {"min": o.minimum, "max": o.maximum, "mean": o.mean}
                        for o in outputs
                    ],
                }
            )
        return {"model": self.model, "provider": self.provider, "inputs": inputs}


def predict(
    outputs: Mapping[str, NDArray[Any]],
    classifier: Classifier | None,
    *,
    model: str,
    provider: str,
    sources: Sequence[str],
    labels: Sequence[str] | None = None,
    top: int = 5,
) -> Prediction:
    """Rank the classes of each input.

    Parameters
    ----------
    outputs : mapping of output name to ndarray, (N, ...)
    classifier : Classifier or None
        Where the class scores are; None when there are none.
    top : int
        Classes to give per input.
    """
    count = len(sources)
    ranked: list[tuple[Ranked, ...]] = [()] * count
    flat = [False] * count
    if classifier is not None:
        scores = probabilities(classifier, dequantised(classifier, outputs[classifier.output]))
        for n, row in enumerate(scores):
            best = np.argsort(-np.nan_to_num(row, nan=-np.inf), kind="stable")[:top]
            ranked[n] = tuple(Ranked(int(i), label(labels, int(i)), float(row[i])) for i in best)
            flat[n] = not bool(np.isfinite(row).all()) or (len(row) > 1 and float(np.ptp(row)) <= 1e-12)
    statistics = [tuple(_statistics(name, array, n, count) for name, array in outputs.items()) for n in range(count)]
    return Prediction(model, provider, tuple(sources), tuple(ranked), tuple(statistics), tuple(flat))


def _statistics(name: str, array: NDArray[Any], index: int, count: int) -> OutputStatistics:
    values = array[index] if array.ndim and len(array) == count else array
    if values.dtype.kind not in "fiub" or not values.size:
        return OutputStatistics(name, str(array.dtype), values.shape, np.nan, np.nan, np.nan)
    real = values.astype(np.float64)
    return OutputStatistics(
        name, str(array.dtype), values.shape, float(real.min()), float(real.max()), float(real.mean())
    )
