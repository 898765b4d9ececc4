"""SSD with its priors applied: scores (N, n, classes), class 0 the background, and corners (N, n, 4) in [0, 1].

Scores that are no probabilities get a softmax. Offsets from priors that are not in the file can't be read.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.ops import softmax
from onnx_inspect.targets._scores import TOLERANCE
from onnx_inspect.targets.decoders import Arrays, Detections, Picked, Shapes, Size
from onnx_inspect.targets.decoders._grids import softmax_slopes
from onnx_inspect.targets.decoders._pairs import FEWEST, pair


def fits(outputs: Shapes, size: Size, strict: bool) -> tuple[str, ...] | None:
    """Name scores and boxes: two outputs of the same length, one of them four wide."""
    found = pair(outputs)
    return found if found is not None and (outputs[found[1]][1] > FEWEST or not strict) else None


def decode(arrays: Arrays, size: Size) -> Detections:
    """Read boxes and scores."""
    scores = np.asarray(arrays[0], np.float64)
    if not _probabilities(scores):
        scores = softmax(scores)
    scores, objects = scores.copy(), 1 - scores[..., 0]
    scores[..., 0] = 0
    return Detections(np.asarray(arrays[1], np.float64), scores, objects)


def slopes(arrays: Arrays, size: Size, picked: Picked) -> list[NDArray[np.float64]]:
    """Bring slopes by the boxes and scores of one proposal of each sample to the tensors they were read from."""
    found = [np.zeros(array.shape) for array in arrays]
    wanted = picked.scores * (np.arange(picked.scores.shape[1]) > 0)
    found[0][picked.at] = wanted
    if not _probabilities(np.asarray(arrays[0], np.float64)):
        found[0][picked.at] = softmax_slopes(softmax(arrays[0][picked.at]), wanted)
    found[1][picked.at] = picked.boxes
    return found


def _probabilities(scores: NDArray[np.float64]) -> bool:
    return bool(scores.min() >= -TOLERANCE and np.abs(scores.sum(axis=-1) - 1).max() <= TOLERANCE)
