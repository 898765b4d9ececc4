"""Where a picture lies in the model's input plane, and how a map over that plane goes back onto the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Resize = Literal["stretch", "crop", "letterbox"]
CROP_RATIO = 256 / 224  # a crop sees the middle 224 of 256, as torchvision's ImageNet transform does


@dataclass(frozen=True)
class Placement:
    """How the original picture (H, W) maps to the model's input plane (h, w).

    The original is resized to `resized`, then its upper left corner is put at `corner` of the plane: negative after a
    crop, positive inside letterbox bars. Pixels are unit squares: the centre of pixel (0, 0) is at 0.5, 0.5.

    Attributes
    ----------
    original, plane, resized : tuple of int
        Heights and widths.
    corner : tuple of int
        Top and left of the resized picture in the plane.
    """

    original: tuple[int, int]
    plane: tuple[int, int]
    resized: tuple[int, int]
    corner: tuple[int, int]

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Map a point of the model's input, in [0, 1] from left to right and top to bottom, to the original's pixels.

        A point in a letterbox bar gives coordinates outside the picture.

        Examples
        --------
        >>> place((100, 200), (60, 60), "letterbox").point(0.5, 0.5)
        (100.0, 50.0)
        """
        row = (y * self.plane[0] - self.corner[0]) * self.original[0] / self.resized[0]
        column = (x * self.plane[1] - self.corner[1]) * self.original[1] / self.resized[1]
        return column, row

    def locate(self, x: float, y: float) -> tuple[float, float]:
        """Map a point in the original's pixels to the model's input in [0, 1]; the inverse of :meth:`point`.

        A point that a crop left out gives coordinates outside [0, 1].

        Examples
        --------
        >>> place((100, 200), (60, 60), "letterbox").locate(0.0, 0.0)
        (0.0, 0.25)
        """
        row = (y * self.resized[0] / self.original[0] + self.corner[0]) / self.plane[0]
        column = (x * self.resized[1] / self.original[1] + self.corner[1]) / self.plane[1]
        return column, row

    def to_original(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Bring a map over the model's whole input plane back onto the original picture.

        Bilinear with half-pixel centres, edges continued; where the map is finer than the picture, its cells are
        averaged (a triangle filter as wide as a pixel), so that nothing is lost between samples.

        Parameters
        ----------
        values : ndarray, (h', w'), any resolution, any range

        Returns
        -------
        ndarray, (H, W), float32
            In the range of `values`. NaN where the network saw no part of the pixel (outside a crop), and wherever a
            cell of the map that isn't finite takes part.
        """
        down = self._weights(0, values.shape[0])  # (H, h')
        across = self._weights(1, values.shape[1])  # (W, w')
        finite = np.isfinite(values)
        result = down @ np.where(finite, values, 0).astype(np.float64) @ across.T
        if not finite.all():
            result[(down @ (~finite).astype(np.float64) @ across.T) > 0] = np.nan
        result[~down.any(axis=1), :] = np.nan
        result[:, ~across.any(axis=1)] = np.nan
        return result.astype(np.float32)

    def _weights(self, axis: int, cells: int) -> NDArray[np.float64]:
        """How much each cell counts for each of the original's pixels along one axis; all 0 for an unseen pixel."""
        pixels = self.original[axis]
        step = self.resized[axis] / pixels / self.plane[axis]  # one original pixel, as a fraction of the plane
        seen = (np.arange(pixels) + 0.5) * step + self.corner[axis] / self.plane[axis]  # in [0, 1] where it was seen
        width = max(1.0, step * cells)
        distance = np.abs(seen[:, None] * cells - 0.5 - np.arange(cells)) / width  # (pixels, cells)
        weights = np.maximum(0.0, 1.0 - distance)
        weights[(seen + step / 2 < 1e-9) | (seen - step / 2 > 1 - 1e-9)] = 0
        total = weights.sum(axis=1, keepdims=True)
        return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)


def place(original: tuple[int, int], plane: tuple[int, int], resize: Resize) -> Placement:
    """Decide how a picture (H, W) is brought into the model's plane (h, w).

    ``stretch`` fills the plane and ignores the aspect ratio. ``crop`` is torchvision's: the picture covers 256/224 of
    the plane (the shorter side exactly, the longer one rounded down), and the middle is cut out. ``letterbox`` fits the
    whole picture inside and centres it.

    Examples
    --------
    >>> place((100, 200), (224, 224), "crop").resized
    (256, 512)
    """
    if resize == "stretch":
        return Placement(original, plane, plane, (0, 0))
    if resize == "crop":
        resized = _cover(original, (round(plane[0] * CROP_RATIO), round(plane[1] * CROP_RATIO)))
        # Python's round, as torchvision does: a half goes to the even neighbour
        return Placement(original, plane, resized, (-_half(resized[0] - plane[0]), -_half(resized[1] - plane[1])))
    factor = min(plane[0] / original[0], plane[1] / original[1])
    height, width = (max(1, min(p, round(o * factor))) for p, o in zip(plane, original, strict=True))
    return Placement(original, plane, (height, width), ((plane[0] - height) // 2, (plane[1] - width) // 2))


def _cover(original: tuple[int, int], area: tuple[int, int]) -> tuple[int, int]:
    """Return the smallest size with the original's aspect ratio that covers an area."""
    (height, width), (down, across) = original, area
    if height * across <= width * down:
        return down, max(across, down * width // height)
    return max(down, across * height // width), across


def _half(margin: int) -> int:
    return round(margin / 2)
