"""SSD with its priors applied: scores (N, n, classes), class 0 the background, and corners (N, n, 4) in [0, 1].

Scores that are no probabilities get a softmax. Offsets from priors that are not in the file can't be read.
"""

from __future__ import annotations

import numpy as np

from onnx_inspect.ops import softmax
from onnx_inspect.targets._scores import TOLERANCE
from onnx_inspect.targets.decoders import Arrays, Detections, Shapes, Size
from onnx_inspect.targets.decoders._pairs import FEWEST, pair


def fits(outputs: Shapes, size: Size, strict: bool) -> tuple[str, ...] | None:
    """Name scores and boxes: two outputs of the same length, one of them four wide."""
    found = pair(outputs)
    return found if found is not None and (outputs[found[1]][1] > FEWEST or not strict) else None


def decode(arrays: Arrays, size: Size) -> Detections:
    """Read boxes and scores."""
    scores = np.asarray(arrays[0], np.float64)
    sums = scores.sum(axis=-1)
    if scores.min() < -TOLERANCE or np.abs(sums - 1).max() > TOLERANCE:
        scores = softmax(scores)
    scores, objects = scores.copy(), 1 - scores[..., 0]
    scores[..., 0] = 0
    return Detections(np.asarray(arrays[1], np.float64), scores, objects)
