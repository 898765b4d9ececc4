"""How heads are drawn over a text as bertviz does: tokens twice, lines between them as strong as attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle

from onnx_inspect.analysis.attention_views import HeadMatrix, TokenHeads
from onnx_inspect.render import _style as style
from onnx_inspect.render._style import FAINT, INK, LABEL, MARGIN, SMALL, Page

COLOURS = ("#1f6feb", "#bf5b04", "#1a7f37", "#cf222e", "#8250df", "#7d4e00", "#bf3989", "#57606a", "#8a8000", "#0e7490")
MEAN = INK
FAINTEST = 0.03  # attention below which no line is drawn
MOST = 160  # tokens: of more the lines would be a grey wall
LINES = 3000  # of a head at most: the strongest
# Inches
PITCH, TIGHT = 0.165, 0.115  # from one token to the next: of short texts, and of more than `MANY` tokens
MANY, FEW = 48, 5  # tokens of a long text; heads that are drawn over one
NAMES = 0.85  # room for tokens at most
REACH = 0.95  # between the two columns
GAP = 0.3
ROW = 6  # heads side by side at most


def shortened(view: TokenHeads) -> TokenHeads | None:
    """What of a view lines can show: of many heads over a long text their mean alone, of too long a text nothing."""
    tokens = max(len(view.rows), len(view.columns))
    if tokens > MOST:
        return None
    if tokens <= MANY or len(view.heads) <= FEW:
        return view
    note = f"{len(view.heads) - 1} heads over {tokens} tokens are too much for one page: choose some with --head"
    return replace(view, heads=view.heads[-1:], notes=(*view.notes, note))


def figure_size(views: Sequence[TokenHeads]) -> tuple[float, float]:
    """Width and height in inches that :func:`draw` lays out for."""
    return style.whole(max(map(_width, views))), style.whole(sum(map(_height, views)) + MARGIN)


@style.styled
def draw(views: Sequence[TokenHeads], figure: Figure | SubFigure) -> None:
    """Draw texts one below the other: for each head the queries at the left, the keys at the right, lines between.

    A line's strength is the attention along it; below 0.03 there is none. With a query in the view only its lines are
    drawn. Beside the keys a bar shows how much attention each gets from all queries (or from that one).

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
            colour = MEAN if not head.head.startswith("head ") else COLOURS[number % len(COLOURS)]
            left, above = MARGIN + column * _pitch(view)[0], body + row * _pitch(view)[1]
            _draw_head(page, view, head, colour, left, above)
        top += _height(view)


def _lines(view: TokenHeads) -> style.Lines:
    of = "each token" if view.query is None else f"token {view.query}, {view.rows[view.query]!r},"
    said = f"{view.layer}: from {of} at the left to the tokens at the right; the stronger a line, the more attention"
    return style.wrap_lines([(said, INK), *((note, FAINT) for note in view.notes)], _width(view) - 2 * MARGIN)


def _per_row(view: TokenHeads) -> int:
    return max(1, math.ceil(len(view.heads) / math.ceil(len(view.heads) / ROW)))


def _names(view: TokenHeads) -> float:
    return min(NAMES, max(style.text_width(t, size=SMALL) for t in (*view.rows, *view.columns)) + 0.08)


def _step(view: TokenHeads) -> float:
    """Inches from one token to the next."""
    return PITCH if max(len(view.rows), len(view.columns)) <= MANY else TIGHT


def _pitch(view: TokenHeads) -> tuple[float, float]:
    tall = max(len(view.rows), len(view.columns)) * _step(view)
    return 2 * _names(view) + REACH + GAP, tall + style.line_height(LABEL) + 0.06 + GAP


def _width(view: TokenHeads) -> float:
    return max(5.0, 2 * MARGIN + _per_row(view) * _pitch(view)[0] - GAP)


def _height(view: TokenHeads) -> float:
    rows = math.ceil(len(view.heads) / _per_row(view))
    return style.heading_height(len(_lines(view))) + MARGIN / 2 + rows * _pitch(view)[1]


def _draw_head(page: Page, view: TokenHeads, head: HeadMatrix, colour: str, left: float, top: float) -> None:
    names, tall = _names(view), max(len(view.rows), len(view.columns))
    width = 2 * names + REACH
    title = head.head + (f"  ·  {head.name}" if head.name else "")
    page.text(left, top, style.fit(title, width, weight="bold", keep="start"), weight="bold", color=colour)
    axes = page.axes(left, top + style.line_height(LABEL) + 0.06, width, tall * _step(view))
    axes.set(xlim=(0, width), ylim=(tall, 0))
    values = np.nan_to_num(head.values, nan=0.0)
    asked = values if view.query is None else np.where(np.arange(len(values))[:, None] == view.query, values, 0)
    _bars(axes, asked, colour, names, view.query is not None)
    _draw_lines(axes, asked, colour, names)
    for x, texts, side in ((names, view.rows, "right"), (names + REACH, view.columns, "left")):
        for place, text in enumerate(texts):
            own = side == "right" and place == view.query
            axes.text(
                x - 0.04 if side == "right" else x + 0.04,
                place + 0.5,
                style.fit(text, names - 0.06, size=SMALL, keep="start"),
                ha=side,
                va="center_baseline",
                fontsize=SMALL,
                color=INK if own or not _special(view, side, place) else FAINT,
                fontweight="bold" if own else "normal",
            )


def _special(view: TokenHeads, side: str, place: int) -> bool:
    return place < len(view.special) and view.special[place] and (side == "left" or view.rows == view.columns)


def _draw_lines(
    axes: Axes, values: np.ndarray[tuple[int, int], np.dtype[np.floating]], colour: str, names: float
) -> None:
    """Lines as opaque as their attention, the strongest on top."""
    rows, columns = np.nonzero(values >= FAINTEST)
    order = np.argsort(values[rows, columns])[-LINES:]
    rows, columns = rows[order], columns[order]
    strength = np.clip(values[rows, columns], 0, 1)
    ends = [((names, r + 0.5), (names + REACH, c + 0.5)) for r, c in zip(rows, columns, strict=True)]
    lines = LineCollection(
        ends, colors=colour, alpha=list(strength**0.8), linewidths=list(0.4 + 1.6 * strength), capstyle="butt"
    )
    axes.add_collection(lines, autolim=False)


def _bars(
    axes: Axes, values: np.ndarray[tuple[int, int], np.dtype[np.floating]], colour: str, names: float, one: bool
) -> None:
    """A ground behind each key as strong as the attention that it gets."""
    got = values.sum(axis=0) if one else values.mean(axis=0)
    most = float(got.max(initial=0.0)) or 1.0
    boxes = [Rectangle((names + REACH, place + 0.06), names, 0.88) for place in range(len(got))]
    grounds = PatchCollection(boxes, facecolors=colour, edgecolors="none", alpha=list(0.45 * got / most))
    axes.add_collection(grounds, autolim=False)
