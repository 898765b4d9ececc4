"""How the embeddings of a training run are drawn: one cloud of points for each checkpoint, laid onto the last."""

from __future__ import annotations

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from onnx_inspect.analysis.track import Embeddings, Track
from onnx_inspect.render import _style as style
from onnx_inspect.render._style import FAINT, LABEL, MARGIN, SMALL, Page
from onnx_inspect.render.track import title

# Inches
SIDE, GUTTER, CAPTION, LEGEND = 2.1, 0.2, 0.42, 1.5
ROW = 4  # clouds side by side
CLOUDS = 12  # of more checkpoints they are picked evenly
CLASSES = 10  # with a colour of their own


def figure_size(track: Track) -> tuple[float, float]:
    """Width and height in inches that :func:`draw` lays out for."""
    count = len(_chosen(track))
    columns = min(ROW, count)
    rows = math.ceil(count / columns)
    width = 2 * MARGIN + columns * (SIDE + GUTTER) + LEGEND
    height = style.heading_height(len(_lines(track, width))) + rows * (CAPTION + SIDE + GUTTER) + MARGIN
    return style.whole(width), style.whole(height)


@style.styled
def draw(track: Track, figure: Figure | SubFigure) -> None:
    """Draw the inputs before the last linear layer, coloured by the class that the last checkpoint gives them.

    Parameters
    ----------
    track : Track
        With embeddings.
    figure : Figure
        Of :func:`figure_size`; on another size the layout is stretched.
    """
    found = _embeddings(track)
    page = Page(figure, *figure_size(track))
    top = page.heading(f"{title(track)}  ·  embeddings", _lines(track, page.width)) + MARGIN / 2
    chosen, columns = _chosen(track), min(ROW, len(_chosen(track)))
    reach = 1.08 * float(np.abs(found.points).max()) or 1.0
    names, colours = _classes(track)
    for number, place in enumerate(chosen):
        row, column = divmod(number, columns)
        left, above = MARGIN + column * (SIDE + GUTTER), top + row * (CAPTION + SIDE + GUTTER)
        page.text(left, above, style.fit(track.labels[place], SIDE, weight="bold"), weight="bold")
        words = f"disparity {found.disparity[place]:.2f} · {found.share[place]:.0%} of the spread"
        page.text(left, above + style.line_height(LABEL), style.fit(words, SIDE, size=SMALL), size=SMALL, color=FAINT)
        axes = page.axes(left, above + CAPTION, SIDE, SIDE)
        size = float(np.clip(900 / len(track.sources), 3, 26))
        across, up = found.points[place].T
        axes.scatter(across, up, s=size, c=colours, linewidths=0)
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-reach, reach)
        for spine in axes.spines.values():
            spine.set(visible=True, color=style.RULE, linewidth=0.6)
    marks = [Line2D([], [], linestyle="none", marker="o", markersize=4, color=colour) for _, colour in names]
    shown = [style.fit(name, LEGEND - 0.45, size=SMALL) for name, _ in names]
    legend = page.axes(MARGIN + columns * (SIDE + GUTTER), top + CAPTION, LEGEND, SIDE)
    legend.legend(marks, shown, loc="upper left", fontsize=SMALL, frameon=False, borderaxespad=0, handletextpad=0.2)


def _embeddings(track: Track) -> Embeddings:
    assert track.embeddings is not None
    return track.embeddings


def _lines(track: Track, width: float) -> style.Lines:
    found = _embeddings(track)
    words = (
        f"{found.layer}: the two directions of largest spread of {style.count(len(track.sources), 'input')}, turned and"
        " scaled onto the last checkpoint's (Procrustes); disparity is what that leaves, 0 alike, 1 unlike"
    )
    return style.wrap_lines([(words, FAINT)], width - 2 * MARGIN)


def _chosen(track: Track) -> list[int]:
    count = len(track.steps)
    return [int(i) for i in np.unique(np.linspace(0, count - 1, min(CLOUDS, count)).round())]


def _classes(track: Track) -> tuple[list[tuple[str, str]], list[str]]:
    """The legend's names and colours, and each point's colour: the most frequent classes, the others grey."""
    if track.predictions is None:
        return [], [style.INK] * len(track.sources)
    last = track.predictions.classes[-1]
    classes, counts = np.unique(last, return_counts=True)
    frequent = sorted(classes[np.argsort(-counts, kind="stable")][:CLASSES].tolist())
    table = colormaps["tab10"].colors  # type: ignore[attr-defined]
    colour = {c: "#{:02x}{:02x}{:02x}".format(*(round(255 * v) for v in table[i])) for i, c in enumerate(frequent)}
    names = [(track.predictions.name(c), colour[c]) for c in frequent]
    if len(classes) > len(frequent):
        names.append((f"{len(classes) - len(frequent)} others", style.FAINT))
    return names, [colour.get(int(c), style.FAINT) for c in last]
