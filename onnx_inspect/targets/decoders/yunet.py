"""YuNet: for each stride classes (N, cells, C), an objectness (N, cells, 1) and boxes (N, cells, 4).

A score is the geometric mean of class and objectness. A box is its centre's offset from the cell's corner, in strides,
and the logarithm of its size in strides. Outputs are told by their names: cls_8, obj_8, bbox_8, and so on.
"""

from __future__ import annotations

import numpy as np

from onnx_inspect.targets.decoders import Arrays, Detections, Shapes, Size
from onnx_inspect.targets.decoders._grids import STRIDES, corners, count, from_centres, normalised


def fits(outputs: Shapes, size: Size, strict: bool) -> tuple[str, ...] | None:
    """Name classes, objectness and boxes, stride by stride."""
    names = [f"{part}_{stride}" for stride in STRIDES for part in ("cls", "obj", "bbox")]
    if not all(name in outputs for name in names):
        return None
    lengths = [outputs[f"bbox_{stride}"][1] == count(size, stride) for stride in STRIDES]
    return tuple(names) if all(lengths) else None


def decode(arrays: Arrays, size: Size) -> Detections:
    """Read boxes and scores."""
    boxes, scores, found = [], [], []
    for stride, classes, objects, values in zip(STRIDES, arrays[::3], arrays[1::3], arrays[2::3], strict=True):
        inside = np.asarray(values, np.float64)
        centres = corners(size, stride) + inside[..., :2] * stride
        boxes.append(from_centres(np.concatenate([centres, np.exp(inside[..., 2:]) * stride], axis=-1)))
        found.append(np.clip(objects, 0, 1)[..., 0])
        scores.append(np.sqrt(np.clip(classes, 0, 1).astype(np.float64) * np.clip(objects, 0, 1)))
    places, likely, present = (np.concatenate(parts, axis=1) for parts in (boxes, scores, found))
    return Detections(normalised(places, size), likely, present)
