"""DETR: logits (N, queries, classes + 1), the last class "no object", and centres with sizes (N, queries, 4) in [0, 1].

The classes' probabilities are a softmax. (Its successors with independent classes are read alike but for that.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.ops import softmax
from onnx_inspect.targets.decoders import Arrays, Detections, Picked, Shapes, Size
from onnx_inspect.targets.decoders._grids import from_centres, softmax_slopes, to_centres
from onnx_inspect.targets.decoders._pairs import FEWEST, pair


def fits(outputs: Shapes, size: Size, strict: bool) -> tuple[str, ...] | None:
    """Name logits and boxes: two outputs with the same few queries, one of them four wide."""
    found = pair(outputs)
    return found if found is not None and (outputs[found[1]][1] <= FEWEST or not strict) else None


def decode(arrays: Arrays, size: Size) -> Detections:
    """Read boxes and scores."""
    scores = softmax(arrays[0])
    return Detections(from_centres(np.asarray(arrays[1], np.float64)), scores[..., :-1], 1 - scores[..., -1])


def slopes(arrays: Arrays, size: Size, picked: Picked) -> list[NDArray[np.float64]]:
    """Bring slopes by the boxes and scores of one proposal of each sample to the tensors they were read from."""
    shares = softmax(arrays[0][picked.at])  # (B, classes + 1)
    wanted = np.concatenate([picked.scores, np.zeros((len(shares), 1))], axis=1)
    found = [np.zeros(array.shape) for array in arrays]
    found[0][picked.at] = softmax_slopes(shares, wanted)
    found[1][picked.at] = to_centres(picked.boxes)
    return found
