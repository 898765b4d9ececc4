"""How one sample's way through a network is drawn: a thumbnail for each layer, from the input to the output."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from onnx_inspect.analysis.activations import ActivationView
from onnx_inspect.render import _style as style
from onnx_inspect.render._style import FAINT, LABEL, MARGIN, SMALL, WARN, Page
from onnx_inspect.render.activations import draw_lines, matrix_limits, mean_image, problem, short_source, times

# Inches
SIDE = 1.45  # of a thumbnail
GUTTER = 0.22
NAMES = 0.4  # two lines above each thumbnail
ROW = 6  # thumbnails in a row at most


def figure_size(views: Sequence[ActivationView]) -> tuple[float, float]:
    """Width and height in inches that :func:`draw` lays out for."""
    panels = len(views) + (views[0].original is not None)
    columns, rows = min(ROW, max(3, panels)), math.ceil(panels / ROW)
    width = 2 * MARGIN + columns * (SIDE + GUTTER) - GUTTER
    return style.whole(width), style.whole(style.heading_height(1) + rows * (NAMES + SIDE + GUTTER) + 2 * MARGIN)


@style.styled
def draw(views: Sequence[ActivationView], figure: Figure | SubFigure) -> None:
    """Draw one sample's views in the order given, each on its own scale, the input first.

    Parameters
    ----------
    views : sequence of ActivationView
        Of one sample, at least one. Maps, volumes and tokens with a known grid appear as their mean abs(a), other
        tokens and series as matrices, vectors as lines.
    figure : Figure
        Of :func:`figure_size`; on another size the layout is stretched.
    """
    page = Page(figure, *figure_size(views))
    what = "mean |a| over all channels, each on its own scale; vectors as lines, tokens without a grid as a matrix"
    title = f"{short_source(views[0].source)}  ·  {style.count(len(views), 'layer')} along depth"
    top = page.heading(title, [(what, FAINT)]) + MARGIN
    places = _places(len(views) + 1, top)
    if views[0].original is not None:
        left, above = next(places)
        _name(page, left, above, "input", times(views[0].original.shape))
        picture = np.moveaxis(style.reduce(np.moveaxis(views[0].original, -1, 0), 512), 0, -1)
        style.show(_square(page, left, above, picture.shape[:2]), picture, frame=True, smooth=True)
    for view, (left, above) in zip(views, places, strict=False):
        _name(page, left, above, view.layer.name, f"{view.layer.op_type} · {times(view.shape)}")
        _thumbnail(page, view, left, above)


def _places(panels: int, top: float) -> Iterator[tuple[float, float]]:
    for panel in range(panels):
        yield MARGIN + panel % ROW * (SIDE + GUTTER), top + panel // ROW * (NAMES + SIDE + GUTTER)


def _name(page: Page, left: float, top: float, name: str, what: str) -> None:
    page.text(left, top, style.fit(name, SIDE))
    page.text(left, top + style.line_height(LABEL), style.fit(what, SIDE, size=SMALL), size=SMALL, color=FAINT)


def _thumbnail(page: Page, view: ActivationView, left: float, top: float) -> None:
    if wrong := problem(view):
        for line, (text, colour) in enumerate(style.wrap_lines([(wrong, WARN)], SIDE - 0.2, size=SMALL)):
            page.text(left + 0.1, top + NAMES + 0.1 + line * style.line_height(SMALL), text, size=SMALL, color=colour)
        _frame(page.axes(left, top + NAMES, SIDE, SIDE))
    elif view.kind == "vector":
        draw_lines(page.axes(left, top + NAMES, SIDE, SIDE / 2), view)
    elif view.mean is not None and view.mean.ndim > 1:
        image, _, _ = mean_image(view.mean)
        style.show(_square(page, left, top, image.shape), image, frame=True, smooth=image.shape[1] > 128)
    else:
        low, high, name = matrix_limits(view)
        image = style.colourise(style.reduce(view.values, 512), name, low, high)
        style.show(page.axes(left, top + NAMES, SIDE, SIDE), image, frame=True, smooth=True, stretch=True)


def _square(page: Page, left: float, top: float, shape: tuple[int, ...]) -> Axes:
    """Axes for a picture of that height and width, as large as a thumbnail may be."""
    scale = SIDE / max(shape[:2])
    return page.axes(left, top + NAMES, max(0.05, shape[1] * scale), max(0.05, shape[0] * scale))


def _frame(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set(visible=True, color=style.RULE, linewidth=0.6)
