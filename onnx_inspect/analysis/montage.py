"""Which slices of a volume are shown side by side, and where each of them lies in the picture that they make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 16  # slices of one picture: more would be too small to see anything in

Tile = tuple[float, float, float, float, str]  # x0, y0, x1, y1 in the picture's pixels, and the slice's number


@dataclass(frozen=True)
class Montage:
    """Slices of a volume (D, H, W) in rows, from left to right and from top to bottom.

    Attributes
    ----------
    size : (int, int, int)
        Depth, height and width of the volume.
    shown : tuple of int
        The slices along the depth: all, or evenly spread ones.
    columns : int
        Slices side by side.
    """

    size: tuple[int, int, int]
    shown: tuple[int, ...]
    columns: int

    @classmethod
    def of(cls, size: tuple[int, int, int]) -> Montage:
        """Choose the slices of a volume, and how many stand side by side, so that the picture is about square."""
        depth, height, width = size
        count = min(depth, MOST)
        shown = tuple(int((i + 0.5) * depth / count) for i in range(count))
        columns = min(count, max(1, round(math.sqrt(count * height / width))))
        return cls(size, shown, math.ceil(count / math.ceil(count / columns)))

    @property
    def note(self) -> str:
        """What is shown, in words."""
        depth, count = self.size[0], len(self.shown)
        return f"{'all' if count == depth else count} of {depth} slices along the first axis, numbered from 0"

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """Where each slice lies."""
        _, height, width = self.size
        corners = [(place % self.columns * width, place // self.columns * height) for place in range(len(self.shown))]
        return tuple(
            (x, y, x + width, y + height, str(number)) for (x, y), number in zip(corners, self.shown, strict=True)
        )

    def lay(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Lay the slices of (..., D, H, W) out as (..., rows * H, columns * W); what no slice fills is 0."""
        _, height, width = self.size
        rows = math.ceil(len(self.shown) / self.columns)
        picture = np.zeros((*volume.shape[:-3], rows * height, self.columns * width), volume.dtype)
        for (x, y, *_), number in zip(self.tiles, self.shown, strict=True):
            picture[..., int(y) : int(y) + height, int(x) : int(x) + width] = volume[..., number, :, :]
        return picture

    def point(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Place of a point in [0, 1] of the volume in the picture's pixels: in the nearest slice that is shown."""
        depth, height, width = self.size
        nearest = int(np.argmin([abs(number + 0.5 - z * depth) for number in self.shown]))
        left, top, *_ = self.tiles[nearest]
        return left + x * width, top + y * height
