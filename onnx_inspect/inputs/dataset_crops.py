"""Pieces of a data set's samples, cut from the original pictures where a part of the model's input was looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.inputs.dataset_batches import Reader
from onnx_inspect.inputs.dataset_pictures import runs
from onnx_inspect.inputs.placement import Placement

Box = tuple[float, ...]
Field = NDArray[np.int32]  # (axes, 2), start and stop in the model's input
OUTSIDE = 225  # grey of what lies beyond the picture


def crops(
    reader: Reader, wanted: Mapping[int, Sequence[Field]], plane: tuple[int, ...], side: int
) -> dict[int, list[tuple[NDArray[Any], Box]]]:
    """Cut pieces out of samples, each sample read once.

    Parameters
    ----------
    wanted : mapping of place to fields
        In the model's input.
    plane : tuple of int
        Its extent along the axes that fields are told on.
    side : int
        Pixels of a piece's longer side; a signal's pieces keep their own length.

    Returns
    -------
    dict of place to list of (pixels, box)
        In the order of the fields: pictures (h, w, 3), uint8, and left, top, right, bottom in the original; or the
        piece of a signal, (length,), and its start and stop. A sample that has neither isn't in it.

    Raises
    ------
    InputError
        The data set can't be read any more.
    """
    found: dict[int, list[tuple[NDArray[Any], Box]]] = {}
    for run in runs(sorted(wanted)):
        reading = reader.read(run, drawn=True)
        if reading.batch is None:
            continue
        batch = reading.batch
        for row, place in enumerate(reading.places):
            original, placement = batch.originals[row], batch.placements[row]
            if original is not None and placement is not None and len(plane) == 2:
                boxes = [box_of(field, plane, placement) for field in wanted[place]]
                enlarged = placement.resized[0] > placement.original[0]
                found[place] = [(cut(original, box, side, smooth=enlarged), box) for box in boxes]
            elif len(plane) == 1 and not np.iscomplexobj(batch.arrays[batch.primary]):
                signal = np.asarray(batch.arrays[batch.primary][row], np.float32)
                found[place] = [_piece(signal, field, plane[0]) for field in wanted[place]]
    return found


def box_of(field: Field, plane: tuple[int, ...], placement: Placement) -> tuple[float, float, float, float]:
    """A part of the model's input as left, top, right, bottom in the original picture's pixels."""
    (top, bottom), (left, right) = field.tolist()
    x0, y0 = placement.point(left / plane[1], top / plane[0])
    x1, y1 = placement.point(right / plane[1], bottom / plane[0])
    return x0, y0, x1, y1


def cut(
    picture: NDArray[np.uint8], box: tuple[float, float, float, float], side: int, *, smooth: bool = False
) -> NDArray[np.uint8]:
    """What lies in a box of a picture, its longer side `side` pixels long; beyond the picture it is grey.

    Few pixels are enlarged as they are, or interpolated where the model, too, is shown the picture enlarged (`smooth`);
    many are averaged.
    """
    from PIL import Image

    height, width = picture.shape[:2]
    x0, y0, x1, y1 = box
    factor = side / max(x1 - x0, y1 - y0)
    size = (max(1, round((y1 - y0) * factor)), max(1, round((x1 - x0) * factor)))
    found = np.full((*size, 3), OUTSIDE, np.uint8)
    left, top, right, bottom = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    if right <= left or bottom <= top:
        return found
    rows = slice(round((top - y0) * factor), max(round((bottom - y0) * factor), round((top - y0) * factor) + 1))
    columns = slice(round((left - x0) * factor), max(round((right - x0) * factor), round((left - x0) * factor) + 1))
    part = found[rows, columns]
    way = Image.Resampling.NEAREST if factor >= 3 else Image.Resampling.BILINEAR
    image, inside = Image.fromarray(np.ascontiguousarray(picture)).convert("RGB"), (left, top, right, bottom)
    if smooth and factor > 1:  # what lies around the box takes part, as it does in the model's input
        border = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
        image, inside = Image.fromarray(border).convert("RGB"), (left + 1, top + 1, right + 1, bottom + 1)
        part[...] = np.asarray(
            image.transform(part.shape[1::-1], Image.Transform.EXTENT, inside, Image.Resampling.BILINEAR)
        )
    else:
        part[...] = np.asarray(image.resize(part.shape[1::-1], way, box=inside))
    return found


def _piece(signal: NDArray[np.float32], field: Field, length: int) -> tuple[NDArray[np.float32], Box]:
    """The first channel of a signal between two places."""
    along = next(axis for axis in reversed(range(signal.ndim)) if signal.shape[axis] == length)
    line = np.moveaxis(signal, along, -1).reshape(-1, length)[0]
    start, stop = (int(n) for n in field[0])
    return line[start:stop], (float(start), float(stop))
