"""Where a box that was given on the original picture lies in a model's input plane, and how much boxes overlap."""

from __future__ import annotations

import math

import numpy as np

from onnx_inspect.errors import TargetError
from onnx_inspect.targets._base import Box, Context, Floats


def parse_box(text: str, what: str) -> Box:
    """Read ``x0,y0,x1,y1``.

    Raises
    ------
    TargetError
        Not four numbers, or no area between them.
    """
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise TargetError(f"{what} needs x0,y0,x1,y1 in the picture's pixels, found {text!r}") from None
    if not (math.isfinite(x0 + y0 + x1 + y1) and x0 < x1 and y0 < y1):
        raise TargetError(f"{what}:{text} has no area: x0 < x1 and y0 < y1 are needed")
    return x0, y0, x1, y1


def to_plane(box: Box, context: Context, index: int) -> Box:
    """Bring a box from the original's pixels of an input into [0, 1] of the model's plane, cut at its borders.

    Raises
    ------
    TargetError
        It lies outside what the network sees of the picture.
    """
    placement = context.batch.placements[index]
    height, width = context.size
    if placement is not None:
        (x0, y0), (x1, y1) = placement.locate(*box[:2]), placement.locate(*box[2:])
    else:
        x0, y0, x1, y1 = box[0] / width, box[1] / height, box[2] / width, box[3] / height
    inside = (max(x0, 0.0), max(y0, 0.0), min(x1, 1.0), min(y1, 1.0))
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        numbers = ",".join(f"{v:g}" for v in box)
        raise TargetError(f"the box {numbers} lies outside what the network sees of {context.batch.sources[index]}")
    return inside


def to_picture(box: Box, context: Context, index: int) -> Box:
    """Bring a box from [0, 1] of the model's plane to the original's pixels."""
    placement = context.batch.placements[index]
    height, width = context.size
    if placement is None:
        return box[0] * width, box[1] * height, box[2] * width, box[3] * height
    return *placement.point(*box[:2]), *placement.point(*box[2:])


def mirrored_box(box: Box) -> Box:
    """Flip a box in [0, 1] from left to right."""
    return 1 - box[2], box[1], 1 - box[0], box[3]


def overlap(box: Floats, boxes: Floats) -> Floats:
    """Intersection over union of boxes (B, n, 4) with one box each, (B, 4): (B, n), in [0, 1]; 0 for empty boxes."""
    low = np.maximum(box[:, None, :2], boxes[..., :2])
    high = np.minimum(box[:, None, 2:], boxes[..., 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    total = _area(box)[:, None] + _area(boxes) - shared
    return np.divide(shared, total, out=np.zeros_like(shared), where=total > 0)


def overlap_slopes(box: Floats, other: Floats) -> Floats:
    """Derivatives of the overlap of boxes (B, 4) with one box each by the second one's corners, (B, 4).

    0 where they don't touch; where an edge of both lies at the same place, as if the second one's lay further out.
    """
    inner_low, inner_high = np.maximum(box[:, :2], other[:, :2]), np.minimum(box[:, 2:], other[:, 2:])
    sides, own = np.maximum(inner_high - inner_low, 0), np.maximum(other[:, 2:] - other[:, :2], 0)
    shared = sides.prod(axis=1, keepdims=True)  # (B, 1)
    total = (_area(box) + _area(other))[:, None] - shared
    deciding = np.concatenate([-(other[:, :2] > box[:, :2]).astype(float), other[:, 2:] < box[:, 2:]], axis=1)
    by_shared = deciding * np.tile(sides[:, ::-1], 2) * (shared > 0)
    by_own = np.tile(own[:, ::-1], 2) * (-1, -1, 1, 1)
    by_total = by_own - by_shared
    above = by_shared * total - shared * by_total
    return np.divide(above, total**2, out=np.zeros_like(above), where=total > 0)


def _area(boxes: Floats) -> Floats:
    return np.asarray(np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1))
