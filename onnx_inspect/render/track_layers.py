"""How every layer of a training run is drawn: heat maps of layers by checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure, SubFigure

from onnx_inspect.analysis.track import Row, Track, table
from onnx_inspect.render import _style as style
from onnx_inspect.render._style import FAINT, LABEL, MARGIN, SMALL, Page
from onnx_inspect.render.track import name_steps, names_height, title

# Inches
ROW = 0.15
COLUMN = 0.06, 0.5  # a checkpoint: least and most
MAP = 2.2  # a heat map's width, about
NAME = 2.3  # a layer's name at most
BAR, SPACE = 0.62, 0.2  # a colour bar with its numbers, the space between maps
CLOSE, LITTLE = 0.9, 1e-3  # a cosine's range reaches down to this, a change's up to that: rounding is no change
ROWS = 72  # of more layers every second, third, ... is shown


@dataclass(frozen=True)
class Heat:
    """One heat map: its title, its rows, and its range."""

    title: str
    rows: tuple[Row, ...]
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Block:
    """Heat maps over the same layers."""

    names: tuple[str, ...]
    maps: tuple[Heat, ...]


def blocks(track: Track) -> list[Block]:
    """What there is to show: activations, then weights."""
    layers = track.layers[:: -(-len(track.layers) // ROWS) or 1]
    weights = track.weights[:: -(-len(track.weights) // ROWS) or 1]
    found = [
        Block(
            tuple(la.name for la in layers),
            (
                Heat("CKA to the first", tuple(la.cka_first for la in layers), 0, 1),
                Heat("CKA to the last", tuple(la.cka_last for la in layers), 0, 1),
                Heat("dead channels", tuple(la.dead for la in layers), 0, None),
                Heat("share of zeros", tuple(la.zeros for la in layers), 0, 1),
            ),
        ),
        Block(
            tuple(w.name for w in weights),
            (
                Heat("change since the first", tuple(w.from_first for w in weights), 0, None),
                Heat("change in each step", tuple(w.from_previous for w in weights), 0, None),
                Heat("cosine to the last", tuple(w.cosine_last for w in weights), None, 1),
            ),
        ),
    ]
    return [Block(b.names, tuple(m for m in b.maps if _says(m))) for b in found if any(_says(m) for m in b.maps)]


def figure_size(track: Track) -> tuple[float, float]:
    """Width and height in inches that :func:`draw` lays out for."""
    found, column = blocks(track), _column(track)
    most = max((len(b.maps) for b in found), default=1)
    width = MARGIN + _room(found) + most * (column * len(track.steps) + BAR + SPACE) + MARGIN
    height = style.heading_height(1) + sum(0.3 + ROW * len(b.names) + _names(track) for b in found)
    return style.whole(max(width, 5.0)), style.whole(height)


@style.styled
def draw(track: Track, figure: Figure | SubFigure) -> None:
    """Draw layers down, checkpoints across, one map for each question.

    Parameters
    ----------
    track : Track
        With at least one layer or weight.
    figure : Figure
        Of :func:`figure_size`; on another size the layout is stretched.
    """
    page, found, column = Page(figure, *figure_size(track)), blocks(track), _column(track)
    top = page.heading(title(track), [("rows: layers, from the input down; columns: checkpoints", FAINT)])
    start, wide = MARGIN + _room(found), column * len(track.steps)
    for block in found:
        top += 0.3
        for row, name in enumerate(block.names):
            shown = style.fit(name, _room(found) - 0.06, size=SMALL)
            page.text(start - 0.06, top + (row + 0.5) * ROW, shown, size=SMALL, ha="right", va="center")
        left = start
        for heat in block.maps:
            _draw_heat(page, heat, left, top, wide, ROW * len(block.names))
            name_steps(page, track.labels, left, top + ROW * len(block.names) + 0.05, wide)
            left += wide + BAR + SPACE
        top += ROW * len(block.names) + _names(track)


def _draw_heat(page: Page, heat: Heat, left: float, top: float, width: float, height: float) -> None:
    values = table(heat.rows)
    low = min(float(np.nanmin(values)), CLOSE) if heat.low is None else heat.low
    high = max(float(np.nanmax(values)), LITTLE) if heat.high is None else heat.high
    colours = style.colourise(values, style.SEQUENTIAL, low, high)
    colours[np.isnan(values)] = 235
    page.text(left, top - 0.19, style.fit(heat.title, width + BAR, size=LABEL), size=LABEL)
    style.show(page.axes(left, top, width, height), colours, frame=True, stretch=True)
    bar = page.axes(left + width + 0.07, top, 0.09, min(height, 1.2))
    style.colourbar(bar, style.SEQUENTIAL, low, high)


def _names(track: Track) -> float:
    """Inches from one block to the next."""
    return names_height(track.labels, _column(track) * len(track.steps)) + 2 * MARGIN


def _says(heat: Heat) -> bool:
    return any(value is not None for row in heat.rows for value in row)


def _column(track: Track) -> float:
    return float(np.clip(MAP / len(track.steps), *COLUMN))


def _room(found: list[Block]) -> float:
    names = [name for block in found for name in block.names]
    return min(NAME, max((style.text_width(name, size=SMALL) for name in names), default=0.5)) + 0.08
