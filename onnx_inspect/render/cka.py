"""How the likeness of two networks' layers is drawn: a heat map with the best path through it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patheffects import withStroke
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from onnx_inspect.analysis.cka import Likeness
from onnx_inspect.render import _style as style
from onnx_inspect.render._style import FAINT, LABEL, MARGIN, SMALL, Page

# Inches
SIDE = 7.0  # of the matrix, about
CELL = 0.08, 0.42  # a layer's row: least and most
NAMES = 2.2  # the longest name at most
NUMBERS = 0.3  # cells at least as wide have their number written
LEAST = 5.4  # the page, so that its heading has room
COLOURBAR = 0.75
AXIS = 0.24  # the model's own name beside its layers
TITLE = 1.6  # what that name is shortened to at least


@dataclass(frozen=True)
class LikenessView:
    """What is drawn: two models' names and how alike their layers are."""

    model_a: str
    model_b: str
    likeness: Likeness


def show(found: Likeness, console: Console | None = None) -> None:
    """Print the layer of B that is nearest to each of A's, and the layer on the best path."""
    console = console or Console()
    table = Table(box=None, pad_edge=False)
    for heading in ("layer of A", "nearest of B"):
        table.add_column(heading, overflow="fold")
    table.add_column("CKA", justify="right", no_wrap=True)
    table.add_column("on the path", overflow="fold")
    table.add_column("", overflow="fold")
    for row, name in enumerate(found.a):
        column, step = found.nearest[row], found.path[row]
        near = "-" if column is None else _short(found.b[column])
        value = "-" if column is None else f"{found.values[row, column]:.3f}"
        note = "" if found.above_chance(row) else "no nearer than chance"
        way = "-" if step is None else _short(found.b[step])
        table.add_row(escape(_short(name)), escape(near), value, escape(way), note)
    console.print(table)
    words = f"mean CKA along the path {found.path_mean:.3f}, over {found.samples} inputs; alike doesn't mean equal"
    console.print(words, soft_wrap=True, highlight=False)


def _short(name: str) -> str:
    """A name that fits in a column; JSON has all of it."""
    return name if len(name) <= 44 else f"{name[:20]}…{name[-23:]}"


def figure_size(view: LikenessView) -> tuple[float, float]:
    """Width and height in inches that :func:`draw` lays out for."""
    plan = _Plan.of(view)
    return style.whole(plan.width), style.whole(plan.height)


@style.styled
def draw(view: LikenessView, figure: Figure | SubFigure) -> None:
    """Draw the layers of A down the side and those of B along the bottom, CKA as colour from 0 to 1.

    A line follows the best monotone path; a ring marks the layer of B nearest to each of A's, where it is nearer than
    chance. A layer that says the same of every input is magenta.

    Parameters
    ----------
    view : LikenessView
    figure : Figure
        Of :func:`figure_size`; on another size the layout is stretched.
    """
    plan, found = _Plan.of(view), view.likeness
    page = Page(figure, plan.width, plan.height)
    page.heading(f"{view.model_a}  ·  {view.model_b}", plan.lines)
    axes = page.axes(plan.left, plan.top, plan.cell * len(found.b), plan.cell * len(found.a))
    style.show(axes, style.colourise(found.values, style.SEQUENTIAL, 0, 1), frame=True)
    _draw_path(axes, found, plan.cell)
    if plan.cell >= NUMBERS:
        _write_numbers(axes, found)
    _name_rows(page, plan, found.a, view.model_a)
    _name_columns(page, plan, found.b, view.model_b, len(found.a))
    bar = page.axes(plan.left + plan.cell * len(found.b) + 0.2, plan.top, 0.11, min(1.8, plan.cell * len(found.a)))
    style.colourbar(bar, style.SEQUENTIAL, 0, 1, "CKA")


@dataclass(frozen=True)
class _Plan:
    """Where everything goes, in inches."""

    cell: float
    left: float
    top: float
    width: float
    height: float
    names: tuple[float, float]  # room of A's names (across) and of B's (down)
    lines: style.Lines

    @staticmethod
    def of(view: LikenessView) -> _Plan:
        found = view.likeness
        cell = min(CELL[1], max(CELL[0], SIDE / max(len(found.a), len(found.b))))
        names = _room(found.a), _room(found.b)
        left = MARGIN + AXIS + names[0] + 0.08
        width = max(LEAST, left + cell * len(found.b) + COLOURBAR + MARGIN)
        lines = style.wrap_lines(_says(found), width - 2 * MARGIN)
        top = style.heading_height(len(lines)) + MARGIN
        height = top + max(cell * len(found.a) + 0.18 + names[1] + AXIS, TITLE) + MARGIN
        return _Plan(cell, left, top, width, height, names, lines)

    def every(self) -> int:
        """Write the name of each layer, or of every second, third, ... where they would overlap."""
        return max(1, int(np.ceil(style.line_height(SMALL) / self.cell)))


def _says(found: Likeness) -> style.Lines:
    batches = f"{style.count(len(found.minibatches), 'minibatch', 'minibatches')}"
    lines = [
        (f"linear CKA, unbiased, over {style.count(found.samples, 'input')} in {batches}", FAINT),
        (
            f"line: best monotone path, mean {style.number(found.path_mean)}  ·  ring: nearest layer, where it is"
            f" nearer than chance (up to {_highest(found):.2g})",
            FAINT,
        ),
    ]
    if not np.isfinite(found.values).all():
        lines.append((f"{style.BAD_NAME}: a layer that says the same of every input, or isn't finite", style.WARN))
    return lines


def _highest(found: Likeness) -> float:
    return float(np.nanmax(found.chance, initial=0.0))


def _room(names: tuple[str, ...]) -> float:
    return min(NAMES, max(style.text_width(name, size=SMALL) for name in names))


def _draw_path(axes: Axes, found: Likeness, cell: float) -> None:
    places = [(j, i) for i, j in enumerate(found.path) if j is not None]
    line = axes.plot(*zip(*places, strict=True), color="white", linewidth=1.2) if places else []
    rings = [(j, i) for i, j in enumerate(found.nearest) if j is not None and found.above_chance(i)]
    marks = (
        axes.plot(
            *zip(*rings, strict=True),
            linestyle="none",
            marker="o",
            markersize=min(0.86 * cell, 0.16) * 72,
            markerfacecolor="none",
            markeredgecolor="white",
            markeredgewidth=1.2,
        )
        if rings
        else []
    )
    for artist in (*line, *marks):
        artist.set_path_effects([withStroke(linewidth=2.6, foreground="black")])
    axes.set_xlim(-0.5, len(found.b) - 0.5)
    axes.set_ylim(len(found.a) - 0.5, -0.5)


def _write_numbers(axes: Axes, found: Likeness) -> None:
    for (row, column), value in np.ndenumerate(found.values):
        if np.isfinite(value):
            text = "1" if value > 0.995 else f"{value:.2f}".replace("-", "−").replace("0.", ".", 1)
            colour = "black" if value > 0.6 else "white"
            axes.text(column + 0.46, row + 0.46, text, ha="right", va="bottom", fontsize=SMALL, color=colour)


def _name_rows(page: Page, plan: _Plan, names: tuple[str, ...], model: str) -> None:
    for row in range(0, len(names), plan.every()):
        text = style.fit(names[row], plan.names[0] + 0.02, size=SMALL)
        page.text(plan.left - 0.08, plan.top + (row + 0.5) * plan.cell, text, size=SMALL, ha="right", va="center")
    extent = max(plan.cell * len(names), TITLE)
    title = style.fit(f"layers of {model}", extent, size=LABEL)
    page.text(MARGIN, plan.top + extent / 2, title, color=FAINT, rotation=90, va="center")


def _name_columns(page: Page, plan: _Plan, names: tuple[str, ...], model: str, rows: int) -> None:
    below = plan.top + plan.cell * rows
    for column in range(0, len(names), plan.every()):
        text = style.fit(names[column], plan.names[1] + 0.02, size=SMALL)
        page.text(plan.left + (column + 0.5) * plan.cell, below + 0.08, text, size=SMALL, ha="center", rotation=90)
    extent = max(plan.cell * len(names), TITLE)
    title = style.fit(f"layers of {model}", extent, size=LABEL)
    page.text(plan.left + extent / 2, below + 0.2 + plan.names[1], title, color=FAINT, ha="center")
