"""What a picture of many tiles needs faster than matplotlib's general artists draw it: exact pixels, short labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage


class Pixels(AxesImage):
    """An image that is drawn by plain repetition, without interpolation, where it falls on the paper's own pixels."""

    def make_image(self, renderer: Any, magnification: float = 1.0, unsampled: bool = False) -> Any:
        """Pixels (rows upwards, RGBA) and where their lower left corner goes; as the base class has it."""
        box = self.get_window_extent(renderer)
        image = np.asarray(self.get_array())
        factor = max(1, round(box.width / image.shape[1]))
        found = np.array([box.width, box.height, box.x0, box.y0])
        whole = [image.shape[1] * factor, image.shape[0] * factor, round(box.x0), round(box.y0)]
        if magnification != 1 or unsampled or np.abs(found - whole).max() > 0.01:
            return super().make_image(renderer, magnification, unsampled)
        pixels = np.full((whole[1], whole[0], 4), 255, np.uint8)
        pixels[..., :3] = image[::-1].repeat(factor, axis=0).repeat(factor, axis=1)
        return pixels, whole[2], whole[3], None


class Labels(Artist):
    """Short lines of text whose left ends and baselines are given in data coordinates.

    Attributes
    ----------
    places : ndarray, (K, 2)
    texts : list of str, K
    """

    def __init__(
        self, places: Sequence[tuple[float, float]], texts: list[str], font: FontProperties, colour: str
    ) -> None:
        super().__init__()
        self.places, self.texts, self.font, self.colour = np.array(places, float), texts, font, colour

    def draw(self, renderer: Any) -> None:
        """Draw each line where the axes' data transform puts it."""
        assert self.axes is not None
        context = renderer.new_gc()
        context.set_foreground(self.colour)
        places = self.axes.transData.transform(self.places)
        if renderer.flipy():
            places[:, 1] = renderer.get_canvas_width_height()[1] - places[:, 1]
        for (x, y), text in zip(places, self.texts, strict=True):
            renderer.draw_text(context, x, y, text, self.font, 0)
        context.restore()
