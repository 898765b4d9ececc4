"""How a model's class scores become a matrix, probabilities and names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.graph.classifier import Classifier
from onnx_inspect.ops import softmax

TOLERANCE = 2e-2  # of a row's sum from 1, for probabilities that were rounded to 8 bits


def matrix(values: NDArray[Any]) -> NDArray[np.float64]:
    """Class scores as (N, classes), whatever axes of length 1 the model keeps."""
    return np.asarray(values, np.float64).reshape(len(values), -1)


def dequantised(classifier: Classifier, values: NDArray[Any]) -> NDArray[np.float64]:
    """Output values as real scores, (N, classes)."""
    return (matrix(values) - classifier.zero_point) * classifier.scale


def probabilities(classifier: Classifier, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Class probabilities (N, classes) of an output's real scores: as they are where they sum to 1, else their softmax.

    LogSoftmax is undone; scores of independent classes (Sigmoid) and a single score are left alone.
    """
    if classifier.squash == "LogSoftmax":
        return np.exp(scores)
    if classifier.squash or scores.shape[1] == 1 or are_probabilities(scores):
        return scores
    return softmax(scores)


def are_probabilities(scores: NDArray[np.float64]) -> bool:
    """Whether every row is non-negative and sums to 1."""
    inside = bool((scores >= -1e-6).all() and (scores <= 1 + 1e-6).all())
    return inside and bool((np.abs(scores.sum(axis=1) - 1) < TOLERANCE).all())


def label(labels: Sequence[str] | None, index: int) -> str:
    """Name of a class, its number when it has none."""
    return labels[index] if labels is not None and 0 <= index < len(labels) else str(index)
