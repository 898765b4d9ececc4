"""How attention from token to token is drawn: a labelled matrix for each head."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from onnx_inspect.analysis.attention_views import HeadMatrix, TokenHeads
from onnx_inspect.render import _style as style
from onnx_inspect.render._style import DPI, FAINT, INK, LABEL, MARGIN, SMALL, Page

# Inches
CELL = 0.17  # a token's row, so that its label can be read
SIDES = ((1, 9.0), (4, 4.6), (10_000, 3.4))  # a matrix's longer side at most, for up to so many heads
LONG, SMALLER = 32, 2.6  # of many heads over more tokens than this it is smaller: labels don't fit anyway
LEAST = 0.105  # a row at least, or labels are left to every second, fifth, ... token
NAMES = 0.95  # room for labels at most
GAP = 0.3
BAR = 0.75
ROW = 4  # matrices side by side at most


def figure_size(views: Sequence[TokenHeads]) -> tuple[float, float]:
    """Width and height in inches that :func:`draw` lays out for."""
    return style.whole(max(map(_width, views))), style.whole(sum(map(_height, views)) + MARGIN)


@style.styled
def draw(views: Sequence[TokenHeads], figure: Figure | SubFigure) -> None:
    """Draw texts one below the other: a matrix for each head, queries down, keys across, each on its own scale.

    Colour goes by the square root of attention, so that what one strong token outshines can still be seen.

    Parameters
    ----------
    views : sequence of TokenHeads, at least one
    figure : Figure
        Of :func:`figure_size`; on another size the layout is stretched.
    """
    page = Page(figure, *figure_size(views))
    top = 0.0
    for view in views:
        body = page.heading(view.source, _lines(view), top=top) + MARGIN / 2
        for number, head in enumerate(view.heads):
            row, column = divmod(number, _per_row(view))
            _draw_head(page, view, head, MARGIN + column * _pitch(view)[0], body + row * _pitch(view)[1])
        top += _height(view)


def _lines(view: TokenHeads) -> style.Lines:
    said = f"{view.layer}: attention from each token (rows) to each token (columns); colour goes by its square root"
    lines = [(said, INK), *((note, FAINT) for note in view.notes)]
    return style.wrap_lines(lines, _width(view) - 2 * MARGIN)


def _per_row(view: TokenHeads) -> int:
    across = _side(view)[0] + _names(view) + BAR + GAP
    most = max(1, min(ROW, int(15 / across)))
    return max(1, math.ceil(len(view.heads) / math.ceil(len(view.heads) / most)))


def _side(view: TokenHeads) -> tuple[float, float]:
    """Width and height of a matrix in inches, cells square."""
    rows, columns = view.heads[0].values.shape
    longest = next(side for most, side in SIDES if len(view.heads) <= most)
    if longest == SIDES[-1][1] and max(rows, columns) > LONG:
        longest = SMALLER
    cell = min(CELL, longest / max(rows, columns))
    if max(rows, columns) * cell < 1.4:
        cell = 1.4 / max(rows, columns)
    return columns * cell, rows * cell


def _names(view: TokenHeads) -> float:
    """Inches that the labels take beside a matrix."""
    step = _every(_side(view)[1] / view.heads[0].values.shape[0])
    labels = [_numbered(texts, i, step) for texts in (view.rows, view.columns) for i in range(0, len(texts), step)]
    return min(NAMES, max(style.text_width(label, size=SMALL) for label in labels) + 0.06)


def _pitch(view: TokenHeads) -> tuple[float, float]:
    """Inches from one matrix to the next, across and down."""
    width, height = _side(view)
    return width + _names(view) + BAR + GAP, height + _names(view) + style.line_height(LABEL) + GAP


def _width(view: TokenHeads) -> float:
    return max(5.0, 2 * MARGIN + _per_row(view) * _pitch(view)[0] - GAP)


def _height(view: TokenHeads) -> float:
    rows = math.ceil(len(view.heads) / _per_row(view))
    return style.heading_height(len(_lines(view))) + MARGIN / 2 + rows * _pitch(view)[1]


def _draw_head(page: Page, view: TokenHeads, head: HeadMatrix, left: float, top: float) -> None:
    (width, height), names = _side(view), _names(view)
    title = head.head + (f"  ·  {head.name}" if head.name else "")
    page.text(left, top, style.fit(title, width + names, weight="bold", keep="start"), weight="bold")
    axes = page.axes(left + names, top + style.line_height(LABEL) + names, width, height)
    finite = head.values[np.isfinite(head.values)]
    high = float(finite.max(initial=0.0))
    shown = style.reduce(head.values, max(1, round(max(width, height) * DPI)))
    style.show(axes, style.colourise(np.sqrt(shown), style.SEQUENTIAL, 0.0, high**0.5), frame=True, stretch=True)
    rows, columns = head.values.shape
    axes.images[0].set_extent((0, columns, rows, 0))
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    _label(axes, view, height / rows)
    bar = page.axes(left + names + width + 0.08, top + style.line_height(LABEL) + names, 0.09, min(1.4, height))
    style.colourbar(bar, style.SEQUENTIAL, 0.0, high)
    bar.set_yticks([0, 0.5, 1], ["0", style.number(high / 4), style.number(high)], fontsize=SMALL)


def _label(axes: Axes, view: TokenHeads, cell: float) -> None:
    """Write tokens at rows and columns: all of them, or every few where they'd overlap."""
    step = _every(cell)
    for texts, ticks, labels in (
        (view.rows, axes.set_yticks, axes.set_yticklabels),
        (view.columns, axes.set_xticks, axes.set_xticklabels),
    ):
        places = range(0, len(texts), step)
        ticks([p + 0.5 for p in places])
        labels(
            [style.fit(_numbered(texts, p, step), NAMES - 0.04, size=SMALL, keep="start") for p in places],
            fontsize=SMALL,
        )
    axes.tick_params(axis="both", length=0, pad=2, top=False, labeltop=True, labelbottom=False, colors=INK)
    for label in axes.get_xticklabels():
        label.set(rotation=90, ha="center", va="bottom")
    if view.query is not None:
        axes.axhspan(view.query, view.query + 1, fill=False, edgecolor="#d1242f", linewidth=1.2)


def _every(cell: float) -> int:
    """Labels are written every so many tokens, of which each takes `cell` inches."""
    return next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000) if step * cell >= LEAST)


def _numbered(texts: Sequence[str], place: int, step: int) -> str:
    """A token; with its number where not all are written."""
    return texts[place] if step == 1 or texts[place] == str(place) else f"{place} {texts[place]}"
