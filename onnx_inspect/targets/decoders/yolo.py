"""YOLO: one output with all boxes, centres and sizes in pixels.

(N, n, 5 + classes) with an objectness at 4 (v5, v7), its scores multiplied by it; or (N, 4 + classes, n) without one
(v8 and later). n is the number of cells of strides 8, 16 and 32, once or for three anchors each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.targets.decoders import Arrays, Detections, Picked, Shapes, Size
from onnx_inspect.targets.decoders._grids import STRIDES, count, from_centres, normalised, to_centres


def fits(outputs: Shapes, size: Size, strict: bool) -> tuple[str, ...] | None:
    """Name the output."""
    grid = sum(count(size, stride) for stride in STRIDES)
    for name, shape in outputs.items():
        if len(shape) != 3 or min(shape[1:]) < 5:
            continue
        if not strict or (max(shape[1:]) in (grid, 3 * grid) and min(shape[1:]) < max(shape[1:])):
            return (name,)
    return None


def decode(arrays: Arrays, size: Size) -> Detections:
    """Read boxes and scores."""
    values = np.asarray(arrays[0], np.float64)
    if values.shape[1] < values.shape[2]:  # the boxes lie along the last axis
        values = values.transpose(0, 2, 1)
        scores = values[..., 4:]
        return Detections(normalised(from_centres(values[..., :4]), size), scores)
    scores = values[..., 5:] * values[..., 4:5] if values.shape[2] > 5 else values[..., 4:]
    return Detections(normalised(from_centres(values[..., :4]), size), scores, values[..., 4])


def slopes(arrays: Arrays, size: Size, picked: Picked) -> list[NDArray[np.float64]]:
    """Bring slopes by the boxes and scores of one proposal of each sample to the tensors they were read from."""
    turned = arrays[0].shape[1] < arrays[0].shape[2]
    values = np.asarray(arrays[0], np.float64)
    values = values.transpose(0, 2, 1) if turned else values
    found = np.zeros(values.shape)
    one = np.zeros((len(values), values.shape[2]))
    one[:, :4] = to_centres(normalised(picked.boxes, size))
    if turned or values.shape[2] == 5:
        one[:, 4:] = picked.scores
    else:
        own = values[picked.at]  # (B, 5 + classes)
        one[:, 4] = (own[:, 5:] * picked.scores).sum(axis=1)
        one[:, 5:] = own[:, 4:5] * picked.scores
    found[picked.at] = one
    return [found.transpose(0, 2, 1) if turned else found]
