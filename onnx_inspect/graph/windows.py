"""Which positions along an axis a window operator reads for each position that it makes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_inspect.graph.constants import attribute

Taps = NDArray[np.int64]  # (made, taps): positions read, some of them outside the axis, where nothing is read
NOWHERE = -1


def convolution(node: onnx.NodeProto, kernel: Sequence[int], axis: int, read: int, made: int) -> Taps:
    """Taps of a convolution or pooling along its spatial axis number `axis`, (made, kernel).

    Parameters
    ----------
    kernel : sequence of int
        Along each spatial axis.
    read, made : int
        Extents before and after.
    """
    stride, dilation, before = _steps(node, kernel, axis, read, made)
    return np.arange(made)[:, None] * stride - before + np.arange(kernel[axis]) * dilation


def transposed(node: onnx.NodeProto, kernel: Sequence[int], axis: int, read: int, made: int) -> Taps:
    """Taps of a transposed convolution, (made, kernel); `NOWHERE` where a tap falls between two positions."""
    stride, dilation = _along(node, "strides", axis, 1), _along(node, "dilations", axis, 1)
    way = _text(node, "auto_pad")
    if attribute(node, "output_shape", None) is not None or way.startswith("SAME"):
        total = stride * (read - 1) + _along(node, "output_padding", axis, 0) + (kernel[axis] - 1) * dilation + 1 - made
        before = total // 2 if way == "SAME_UPPER" else total - total // 2
    else:
        before = 0 if way == "VALID" else _along(node, "pads", axis, 0)
    places = np.arange(made)[:, None] + before - np.arange(kernel[axis]) * dilation
    return np.where(places % stride == 0, places // stride, NOWHERE)


def resized(node: onnx.NodeProto, read: int, made: int, scale: float | None) -> Taps | None:
    """Taps of a Resize or Upsample along one axis; None where they can't be told.

    Parameters
    ----------
    scale : float or None
        As the node states it; else made / read.
    """
    scale = scale or made / read
    way = _text(node, "coordinate_transformation_mode") or (
        "asymmetric" if node.op_type == "Upsample" else "half_pixel"
    )
    centres = _centres(way, read, made, scale)
    if centres is None:
        return None
    mode = _text(node, "mode") or "nearest"
    if mode == "nearest":
        return _nearest(centres, _text(node, "nearest_mode") or "round_prefer_floor")[:, None].clip(0, read - 1)
    reach = 2.0 if mode == "cubic" else 1.0
    if attribute(node, "antialias", 0) and scale < 1:
        reach /= scale
    width = math.ceil(reach)
    places = np.floor(centres)[:, None].astype(np.int64) + np.arange(-width + 1, width + 1)
    touched = np.abs(places - centres[:, None]) < reach - 1e-9  # the kernel is 0 at its ends
    return np.where(touched, places.clip(0, read - 1), NOWHERE)


def padded(before: int, read: int, made: int, mode: str) -> Taps:
    """Taps of a Pad along one axis, (made, 1); a constant border reads nothing."""
    places = np.arange(made)[:, None] - before
    if mode == "edge":
        return places.clip(0, read - 1)
    if mode == "reflect" and read > 1:
        around = places % (2 * read - 2)
        return np.where(around < read, around, 2 * read - 2 - around)
    return places % read if mode == "wrap" else np.where((places >= 0) & (places < read), places, NOWHERE)


def kernel_of(node: onnx.NodeProto, weight: Sequence[int] | None) -> tuple[int, ...] | None:
    """Extent of the kernel along each spatial axis; None where nobody says it."""
    own = attribute(node, "kernel_shape", None)
    if own is not None:
        return tuple(int(k) for k in own)
    return tuple(weight[2:]) if weight is not None else None


def _steps(node: onnx.NodeProto, kernel: Sequence[int], axis: int, read: int, made: int) -> tuple[int, int, int]:
    """Stride, dilation, and padding before the first position."""
    stride, dilation = _along(node, "strides", axis, 1), _along(node, "dilations", axis, 1)
    way = _text(node, "auto_pad")
    if way.startswith("SAME"):
        total = max((made - 1) * stride + (kernel[axis] - 1) * dilation + 1 - read, 0)
        return stride, dilation, total // 2 if way == "SAME_UPPER" else total - total // 2
    return stride, dilation, 0 if way == "VALID" else _along(node, "pads", axis, 0)


def _centres(way: str, read: int, made: int, scale: float) -> NDArray[np.float64] | None:
    """Where each position made lies among those read."""
    places = np.arange(made, dtype=np.float64)
    if way == "half_pixel" or (way == "pytorch_half_pixel" and made > 1):
        return (places + 0.5) / scale - 0.5
    if way == "half_pixel_symmetric":
        return read / 2 * (1 - made / (scale * read)) + (places + 0.5) / scale - 0.5
    if way == "pytorch_half_pixel":
        return np.zeros(made)
    if way == "align_corners":
        return places * (read - 1) / (made - 1) if made > 1 else np.zeros(made)
    return places / scale if way == "asymmetric" else None


def _nearest(centres: NDArray[np.float64], mode: str) -> NDArray[np.int64]:
    if mode == "floor":
        return np.floor(centres).astype(np.int64)
    if mode == "ceil":
        return np.ceil(centres).astype(np.int64)
    half = np.ceil(centres - 0.5) if mode == "round_prefer_floor" else np.floor(centres + 0.5)
    return half.astype(np.int64)


def _along(node: onnx.NodeProto, name: str, axis: int, default: int) -> int:
    values: Any = attribute(node, name, None)
    return int(values[axis]) if values is not None and len(values) > axis else default


def _text(node: onnx.NodeProto, name: str) -> str:
    return str(attribute(node, name, ""))
