"""YOLO: one output with all boxes, centres and sizes in pixels.

(N, n, 5 + classes) with an objectness at 4 (v5, v7), its scores multiplied by it; or (N, 4 + classes, n) without one
(v8 and later). n is the number of cells of strides 8, 16 and 32, once or for three anchors each.
"""

from __future__ import annotations

import numpy as np

from onnx_inspect.targets.decoders import Arrays, Detections, Shapes, Size
from onnx_inspect.targets.decoders._grids import STRIDES, count, from_centres, normalised


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
