"""What is being explained: which class's score."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import TargetError
from onnx_inspect.graph.classifier import Classifier
from onnx_inspect.ops import softmax

TOLERANCE = 2e-2  # of a row's sum from 1, for probabilities that were rounded to 8 bits


@dataclass(frozen=True)
class Target:
    """A class by its index, or each input's own best one (`index` None)."""

    index: int | None = None

    def indices(self, scores: NDArray[np.float64]) -> NDArray[np.intp]:
        """Class of each row of `scores`, (N, classes), as (N,).

        Raises
        ------
        TargetError
            The class is not among the scores.
        """
        if self.index is None:
            return np.argmax(scores, axis=1)
        if not 0 <= self.index < scores.shape[1]:
            raise TargetError(f"class {self.index} doesn't exist: the model scores classes 0 to {scores.shape[1] - 1}")
        return np.full(len(scores), self.index, np.intp)


def parse(text: str | int | None, labels: Sequence[str] | None) -> Target:
    """Read a target: None or ``top-1``, a class index, or a label (whole, one of its synonyms, or a unique part).

    Raises
    ------
    TargetError
        The label is unknown or fits several classes, or there are no labels to look it up in.
    """
    if text is None or text in ("top-1", "top1"):
        return Target()
    if isinstance(text, int) or text.lstrip("-").isdigit():
        index = int(text)
        if index < 0 or (labels is not None and index >= len(labels)):
            raise TargetError(f"class {index} doesn't exist" + (f": there are {len(labels)} labels" if labels else ""))
        return Target(index)
    if not labels:
        raise TargetError(f"target {text!r} is a label, but no labels are known: give --labels FILE or a class index")
    wanted = text.strip().lower()
    whole = [i for i, label in enumerate(labels) if label.lower() == wanted]
    synonym = [i for i, label in enumerate(labels) if wanted in [part.strip().lower() for part in label.split(",")]]
    part = [i for i, label in enumerate(labels) if wanted in label.lower()]
    for found in (whole, synonym, part):
        if len(found) == 1:
            return Target(found[0])
        if found:
            several = ", ".join(f"{i} {labels[i]!r}" for i in found[:4])
            raise TargetError(
                f"target {text!r} fits {len(found)} classes ({several}, ...): name one, or give its index"
            )
    near = difflib.get_close_matches(text, labels, n=3, cutoff=0.5)
    hint = f"; closest: {', '.join(map(repr, near))}" if near else ""
    raise TargetError(f"target {text!r} is none of the {len(labels)} labels{hint}")


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
