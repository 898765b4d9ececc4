"""NanoDet: for each stride class probabilities (N, cells, classes) and distributions of four distances (N, cells, 4 b).

A distance to a side is the mean of its b bins under their softmax, in strides, from the centre of the cell.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.ops import softmax
from onnx_inspect.targets.decoders import Arrays, Detections, Picked, Shapes, Size
from onnx_inspect.targets.decoders._grids import corners, count, normalised, softmax_slopes

STRIDES = (8, 16, 32, 64)
BINS = (8, 11, 16, 17)  # of a distance, as the families of this loss have them


def fits(outputs: Shapes, size: Size, strict: bool) -> tuple[str, ...] | None:
    """Name scores and distances, stride by stride: pairs of outputs as long as the stride's grid."""
    names: list[str] = []
    for stride in STRIDES:
        pair = [n for n, shape in outputs.items() if len(shape) == 3 and shape[1] == count(size, stride)]
        if not pair and stride == STRIDES[-1]:
            continue
        wide = [n for n in pair if outputs[n][2] in [4 * b for b in BINS]]
        if len(pair) != 2 or not wide:
            return None
        distances = wide[-1]
        names += [next(n for n in pair if n != distances), distances]
    return tuple(names)


def decode(arrays: Arrays, size: Size) -> Detections:
    """Read boxes and scores."""
    boxes, scores = [], []
    for stride, one, values in zip(STRIDES, arrays[::2], arrays[1::2], strict=False):
        bins = values.shape[2] // 4
        logits = values.reshape(*values.shape[:2], 4, bins)
        shares = np.exp(logits - logits.max(axis=-1, keepdims=True))  # float32: a thousandth of a pixel, half the time
        distances = shares @ np.arange(bins, dtype=np.float32) / shares.sum(axis=-1) * stride  # (B, n, 4)
        centres = corners(size, stride) + 0.5 * (stride - 1)
        boxes.append(np.concatenate([centres - distances[..., :2], centres + distances[..., 2:]], axis=-1))
        scores.append(one)
    return Detections(normalised(np.concatenate(boxes, axis=1), size), np.concatenate(scores, axis=1))


def slopes(arrays: Arrays, size: Size, picked: Picked) -> list[NDArray[np.float64]]:
    """Bring slopes by the boxes and scores of one proposal of each sample to the tensors they were read from."""
    found = [np.zeros(array.shape) for array in arrays]
    first = 0
    for level, (stride, values) in enumerate(zip(STRIDES, arrays[1::2], strict=False)):
        here = (picked.which >= first) & (picked.which < first + values.shape[1])
        at = picked.rows[here], picked.which[here] - first
        first += values.shape[1]
        found[2 * level][at] = picked.scores[here]
        bins = values.shape[2] // 4
        shares = softmax(values[at].reshape(-1, 4, bins))
        sides = normalised(picked.boxes[here], size) * (-stride, -stride, stride, stride)  # left and upper ones go down
        wanted = sides[..., None] * np.arange(bins)
        found[2 * level + 1][at] = softmax_slopes(shares, wanted).reshape(-1, 4 * bins)
    return found
