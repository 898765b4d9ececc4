"""Small pictures of a data set's samples, for those who look at many at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.inputs.dataset_batches import Reader

PORTION = 64  # samples that are read at one time


def pictures(reader: Reader, places: Iterable[int], side: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Pictures of samples at most `side` pixels high and wide, with their places; what has none is left out.

    Places that follow one another are read together.

    Raises
    ------
    InputError
        The data set can't be read any more.
    """
    for run in runs(sorted(places)):
        found = reader.read(run, drawn=True)
        if found.batch is None:
            continue
        for place, original in zip(found.places, found.batch.originals, strict=True):
            if original is not None:
                yield place, _small(original, side)


def squares(reader: Reader, places: Iterable[int], side: int) -> dict[int, NDArray[np.uint8]]:
    """Pictures (side, side, 3) by their places, the longer side filled, the rest white."""
    found = {}
    for place, picture in pictures(reader, places, side):
        plane = np.full((side, side, 3), 255, np.uint8)
        height, width = picture.shape[:2]
        top, left = (side - height) // 2, (side - width) // 2
        plane[top : top + height, left : left + width] = picture
        found[place] = plane
    return found


def _small(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A picture with `side` pixels along its longer side; smaller ones are enlarged."""
    from PIL import Image

    factor = side / max(picture.shape[:2])
    height, width = (max(1, round(n * factor)) for n in picture.shape[:2])
    way = Image.Resampling.BILINEAR if factor < 1 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), way))


def runs(places: list[int]) -> Iterator[range]:
    """Places in runs that follow one another, none too long."""
    start = 0
    for n in range(1, len(places) + 1):
        if n == len(places) or places[n] != places[n - 1] + 1 or n - start == PORTION:
            yield range(places[start], places[n - 1] + 1)
            start = n
