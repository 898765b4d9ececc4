"""YuNet: for each stride classes (N, cells, C), an objectness (N, cells, 1) and boxes (N, cells, 4).

A score is the geometric mean of class and objectness. A box is its centre's offset from the cell's corner, in strides,
and the logarithm of its size in strides. Outputs are told by their names: cls_8, obj_8, bbox_8, and so on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.targets.decoders import Arrays, Detections, Picked, Shapes, Size
from onnx_inspect.targets.decoders._grids import STRIDES, corners, count, from_centres, normalised, to_centres


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


def slopes(arrays: Arrays, size: Size, picked: Picked) -> list[NDArray[np.float64]]:
    """Bring slopes by the boxes and scores of one proposal of each sample to the tensors they were read from."""
    found = [np.zeros(array.shape) for array in arrays]
    first = 0
    for level, stride in enumerate(STRIDES):
        classes, objects, values = (np.asarray(a, np.float64) for a in arrays[3 * level : 3 * level + 3])
        here = (picked.which >= first) & (picked.which < first + values.shape[1])
        at = picked.rows[here], picked.which[here] - first
        first += values.shape[1]
        raw = classes[at], objects[at]  # (b, classes), (b, 1)
        held = np.clip(raw[0], 0, 1), np.clip(raw[1], 0, 1)
        score = np.sqrt(held[0] * held[1])
        rising = picked.scores[here] * score / 2
        for part, (own, kept) in enumerate(zip(raw, held, strict=True)):
            slope = np.divide(rising, kept, out=np.zeros_like(rising), where=kept > 0) * ((own >= 0) & (own <= 1))
            found[3 * level + part][at] = slope if part == 0 else slope.sum(axis=1, keepdims=True)
        boxes = to_centres(normalised(picked.boxes[here], size)) * stride
        boxes[:, 2:] *= np.exp(values[at][:, 2:])
        found[3 * level + 2][at] = boxes
    return found
