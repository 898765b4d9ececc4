"""How a model's own tensors are shown to a CAM method and put back: channels first, windows joined, signals as rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import MethodError
from onnx_inspect.graph.spatial import Spatial
from onnx_inspect.graph.tracing import COLOURS
from onnx_inspect.inputs.axes import CHANNELS
from onnx_inspect.inputs.batch import Batch

Index = NDArray[np.intp]
Maps = NDArray[np.float32]


def present(tensor: NDArray[Any], form: Spatial) -> Maps:
    """Show a layer's tensor as (N, K, *grid), float32: channels first, a signal as one row.

    Prefix tokens are left out, windows put back in their places on the grid.
    """
    maps = np.asarray(tensor, np.float32)
    if form.form in ("tokens", "windows"):
        rows = maps.reshape(len(maps), -1, maps.shape[-1])  # (N, positions, K)
        maps = rows[:, _places(form)].reshape(len(maps), *form.grid, -1)
    if form.form != "channels-first":
        maps = np.moveaxis(maps, -1, 1)
    return np.ascontiguousarray(maps[:, :, None] if len(form.grid) == 1 else maps)


def restore(maps: Maps, tensor: NDArray[Any], of: Index, form: Spatial) -> NDArray[Any]:
    """Put variants (B, K, *grid) back into the layer's own form; what lies beside the grid comes from their inputs."""
    if len(form.grid) == 1:
        maps = maps[:, :, 0]
    if form.form != "channels-first":
        maps = np.moveaxis(maps, 1, -1)
    if form.form in ("tokens", "windows"):
        whole = tensor[of].astype(np.float32)
        rows = whole.reshape(len(whole), -1, whole.shape[-1])  # a view
        rows[:, _places(form)] = maps.reshape(len(maps), form.cells, -1)
        maps = whole
    return np.ascontiguousarray(maps, tensor.dtype)


def _places(form: Spatial) -> slice | list[int]:
    """Where the grid's cells lie among the positions."""
    return list(form.places) or slice(form.prefix, form.prefix + form.cells)


def present_input(batch: Batch, values: NDArray[Any] | None = None) -> Maps:
    """Show the perturbed input as (N, C, H, W), float32; a signal (N, C, L) or (N, L) as one row.

    `values` of its form are shown in its place.

    Pictures are shown as pictures, also where the model takes their pixels as one long row; volumes as (N, C, D, H, W).
    A text is shown as one row of ones, (N, 1, 1, U): a place for each token (or word) that can be hidden, which putting
    a 0 there does.

    Raises
    ------
    MethodError
        It has more axes than a volume.
    """
    if batch.read_as is not None:
        return np.ones((batch.n, 1, 1, max(1, *batch.read_as.counts)), np.float32)
    array = np.asarray(batch.arrays[batch.primary] if values is None else values, np.float32)
    shape = _picture_shape(batch)
    if shape is not None:
        array = array.reshape(len(array), *shape)
        return np.ascontiguousarray(np.moveaxis(array, -1, 1)) if _channels_last(batch) else array
    if array.ndim > 5:
        raise MethodError(f"input {batch.primary!r} of shape {array.shape} is no picture, signal or volume")
    if array.ndim == 5:
        return np.ascontiguousarray(np.moveaxis(array, -1, 1)) if _colours_last(array) else array
    if array.ndim < 4:
        return array.reshape(len(array), *(1,) * (3 - array.ndim), *array.shape[1:-1], 1, array.shape[-1])
    return array


def restore_inputs(variants: Maps, batch: Batch, of: Index) -> dict[str, NDArray[Any]]:
    """Put variants (B, C, H, W) of the samples `of` back into the input that they change, by its name."""
    if batch.read_as is not None:
        return batch.read_as.hidden(batch.arrays, variants[:, 0, 0], of)
    return {batch.primary: restore_input(variants, batch)}


def cells_of(batch: Batch) -> tuple[Index, ...] | None:
    """Number from 0 of the part that each place (1, U) of a text is; None for what falls into no parts by itself.

    Places beyond a sample's last part go with its first.
    """
    if batch.read_as is None:
        return None
    places = np.arange(max(1, *batch.read_as.counts))
    return tuple(np.where(places < count, places, 0)[None] for count in batch.read_as.counts)


def restore_input(variants: Maps, batch: Batch) -> NDArray[Any]:
    """Put variants (B, C, H, W) back into the input's own layout and type; integers are rounded and clipped."""
    own = batch.arrays[batch.primary]
    if (_picture_shape(batch) is not None and _channels_last(batch)) or _colours_last(own):
        variants = np.moveaxis(variants, 1, -1)
    variants = variants.reshape(len(variants), *own.shape[1:])
    if own.dtype.kind in "iu":
        info = np.iinfo(own.dtype)
        variants = np.clip(np.rint(variants), info.min, info.max)
    return np.ascontiguousarray(variants, own.dtype)


def _picture_shape(batch: Batch) -> tuple[int, ...] | None:
    """Shape of one sample as a picture in the preprocessing's layout; None where it is none."""
    known = batch.preprocess
    if known is None:
        return None
    height, width = known.size
    own, channels = batch.arrays[batch.primary].shape[1:], CHANNELS[known.colour]
    if len(own) == 3:
        return tuple(own)
    shape = (height, width, channels) if known.layout == "NHWC" else (channels, height, width)
    return shape if len(own) < 3 and int(np.prod(own)) == int(np.prod(shape)) else None


def _colours_last(array: NDArray[Any]) -> bool:
    """Whether an input holds volumes (N, D, H, W, C) whose last axis alone is short enough for channels."""
    return array.ndim == 5 and array.shape[-1] <= COLOURS < array.shape[1]


def _channels_last(batch: Batch) -> bool:
    return batch.preprocess is not None and batch.preprocess.layout == "NHWC"
