"""A region of a segmentation: the sum of the scores in a box, each pixel's for the class that the model gives it.

``@class`` takes one class's scores in the whole box instead. A single map (text, saliency) is summed as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.errors import TargetError
from onnx_inspect.targets._base import Box, Context, Options, Outputs, Target
from onnx_inspect.targets._pixels import FixedPixels, predicted, segmenter
from onnx_inspect.targets._plane import parse_box, to_plane
from onnx_inspect.targets._scores import label
from onnx_inspect.targets.category import find


@dataclass(frozen=True)
class RegionTarget(Target):
    """Pixels whose centres lie in a box on the original picture, and perhaps a class."""

    box: Box
    index: int | None = None
    text: str = ""

    def describe(self) -> str:
        """Give ``region:x0,y0,x1,y1@class``."""
        where = ",".join(f"{v:g}" for v in self.box)
        return self.text or f"region:{where}" + ("" if self.index is None else f"@{self.index}")

    def tensors(self, context: Context) -> tuple[str, ...]:
        """Name the scores of pixels."""
        return (segmenter(context).tensor,)

    def fix(self, context: Context, outputs: Outputs) -> FixedPixels:
        """Find the pixels in each input."""
        where = segmenter(context)
        maps = where.maps(outputs)
        if self.index is not None and self.index >= maps.shape[1]:
            raise TargetError(f"class {self.index} doesn't exist: the model scores classes 0 to {maps.shape[1] - 1}")
        size = maps.shape[2:]
        places = [to_plane(self.box, context, n) for n in range(len(maps))]
        masks = np.stack([_inside(place, (size[0], size[1])) for place in places])
        if not masks.any(axis=(1, 2)).all():
            raise TargetError(f"{self.describe()} holds no cell of the model's {size[0]}x{size[1]} map: make it larger")
        own = predicted(maps, where.threshold)
        chosen = np.maximum(own, 0) if self.index is None else np.full(own.shape, self.index)
        labels = context.batch.labels
        name = "" if self.index is None else f"{label(labels, self.index) if labels else f'class {self.index}'} in "
        words = (f"{name}region {','.join(f'{v:g}' for v in self.box)}",) * len(maps)
        return FixedPixels(words, np.full(len(maps), -1), (), where, masks, chosen, tuple(places))


def _inside(place: Box, size: tuple[int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Cells whose centres lie in a box in [0, 1], (h, w)."""
    y, x = ((np.arange(n) + 0.5) / n for n in size)
    return np.outer((place[1] <= y) & (y <= place[3]), (place[0] <= x) & (x <= place[2]))


def parse(text: str, options: Options) -> tuple[RegionTarget]:
    """Read ``x0,y0,x1,y1`` in the picture's pixels, and a class behind an @.

    Raises
    ------
    TargetError
        Not a box, or an unknown class.
    """
    where, _, name = text.partition("@")
    index = find(name, options.labels) if name else None
    return (RegionTarget(parse_box(where, "region"), index, f"region:{text}"),)
