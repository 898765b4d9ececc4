"""How all heads of a model are drawn at once: a row of thumbnails for each layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from PIL import Image

from onnx_inspect.analysis.attention_views import ModelHeads, Thumbnail
from onnx_inspect.render import _style as style
from onnx_inspect.render._style import DPI, FAINT, INK, MARGIN, SMALL, WARN, Page

SIDE = 84  # pixels: a thumbnail's longer side
GAP, HEADER = 8, 14  # pixels
NAMES = 1.5  # inches for the layers' names, at most
UNKNOWN = (232, 232, 232)  # where a query's window holds no keys
TYPE = 5.5  # points: of a head's name


def figure_size(views: Sequence[ModelHeads]) -> tuple[float, float]:
    """Width and height in inches that :func:`draw` lays out for."""
    return style.whole(max(map(_width, views))), style.whole(sum(map(_height, views)) + MARGIN)


@style.styled
def draw(views: Sequence[ModelHeads], figure: Figure | SubFigure) -> None:
    """Draw samples one below the other: layers down, heads across; heads of a known kind are named.

    Parameters
    ----------
    views : sequence of ModelHeads, at least one
    figure : Figure
        Of :func:`figure_size`; on another size the layout is stretched.
    """
    page = Page(figure, *figure_size(views))
    top = 0.0
    for view in views:
        body = page.heading(view.source, _lines(view), top=top) + MARGIN / 2
        for number, (layer, row) in enumerate(zip(view.layers, view.rows, strict=True)):
            _draw_row(page, f"{number}  {layer}", row, body, _names(view))
            body += _row_height(row)
        top += _height(view)


def _lines(view: ModelHeads) -> style.Lines:
    lines = [(view.of, INK), *((note, FAINT) for note in view.notes)]
    return style.wrap_lines(lines, _width(view) - 2 * MARGIN)


def _size(row: Sequence[Thumbnail]) -> tuple[int, int]:
    """Width and height of a row's thumbnails in pixels."""
    height, width = row[0].values.shape
    factor = SIDE / max(height, width)
    return max(4, round(width * factor)), max(4, round(height * factor))


def _width(view: ModelHeads) -> float:
    widest = max(len(row) * (_size(row)[0] + GAP) - GAP for row in view.rows)
    return max(5.0, 2 * MARGIN + _names(view) + widest / DPI)


def _names(view: ModelHeads) -> float:
    """Inches that the layers' names take."""
    texts = (f"{number}  {layer}" for number, layer in enumerate(view.layers))
    return min(NAMES, max(style.text_width(text, size=SMALL) for text in texts) + 0.16)


def _row_height(row: Sequence[Thumbnail]) -> float:
    return (_size(row)[1] + HEADER + GAP) / DPI


def _height(view: ModelHeads) -> float:
    return style.heading_height(len(_lines(view))) + MARGIN / 2 + sum(map(_row_height, view.rows))


def _draw_row(page: Page, name: str, row: Sequence[Thumbnail], top: float, names: float) -> None:
    width, height = _size(row)
    middle = top + (HEADER + height / 2) / DPI
    page.text(MARGIN, middle, style.fit(name, names - 0.12, size=SMALL), size=SMALL, va="center")
    stack = np.stack([_picture(one, (width, height)) for one in row])
    image = style.tiles(stack, len(row), gap=GAP)
    axes = page.axes(MARGIN + names, top + HEADER / DPI, image.shape[1] / DPI, image.shape[0] / DPI)
    style.show(axes, image)
    for number, one in enumerate(row):
        left = MARGIN + names + number * (width + GAP) / DPI
        said = f"{one.head} {one.name}".strip()
        dead = one.name in ("even", "fixed")
        text = style.fit(said, (width + GAP - 2) / DPI, size=TYPE, keep="start")
        page.text(left, top + (HEADER - 2) / DPI, text, size=TYPE, va="bottom", color=WARN if dead else INK)


def _picture(one: Thumbnail, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A thumbnail of exactly this width and height: averaged where it is larger, kept as squares where smaller."""
    values = style.reduce(np.asarray(one.values), max(size))
    finite = values[np.isfinite(values)]
    colours = style.colourise(np.sqrt(values), style.SEQUENTIAL, 0.0, float(finite.max(initial=0.0)) ** 0.5)
    colours[~np.isfinite(values)] = UNKNOWN
    return np.asarray(Image.fromarray(colours).resize(size, Image.Resampling.NEAREST))
