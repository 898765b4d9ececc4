"""How channels are drawn: each a row of the crops that excite it most, what it is like, and its classes as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from onnx_inspect.analysis.channels import Channels
from onnx_inspect.analysis.concepts import Concepts
from onnx_inspect.render import _style as style
from onnx_inspect.render._style import DPI, FAINT, INK, LABEL, MARGIN, RULE, SMALL, WARN, Lines, Page

# Inches
ABOUT = 1.3  # left of the crops
TILE, GAP = 0.7, 0.1
BARS = 2.1
NAMES = 0.85  # of the bars
ROW = TILE + 2 * style.line_height(SMALL) + 0.1
LEAST = 6.6  # of the page's width
MOST_BARS = 6
BLANK = 240  # grey of a tile without a crop
POSITIVE, NEGATIVE = "#4c78a8", "#b2182b"
NAMED = 12  # dead channels, or pairs of equal ones, that are named


@dataclass(frozen=True)
class Sheet:
    """Some channels of a layer on one page; of concepts also what they are worth."""

    channels: Channels
    chosen: tuple[int, ...]
    page: int = 1
    pages: int = 1
    concepts: Concepts | None = None

    @property
    def bars(self) -> tuple[NDArray[np.float64], str]:
        """A number for each class and channel, (C, K), and what it is."""
        if self.concepts is not None and len(self.concepts.importance):
            return self.concepts.importance, self.concepts.measure
        return self.channels.means, f"mean by {self.channels.by}"


def figure_size(sheet: Sheet) -> tuple[float, float]:
    """Width and height in inches that :func:`draw` lays out for."""
    width = max(LEAST, 2 * MARGIN + ABOUT + _strip(sheet) + _side(sheet))
    lines = style.wrap_lines(_lines(sheet), width - 2 * MARGIN)
    height = style.heading_height(len(lines)) + 0.12 + _ahead(sheet) + len(sheet.chosen) * ROW + MARGIN
    return style.whole(width), style.whole(height)


@style.styled
def draw(sheet: Sheet, figure: Figure | SubFigure) -> None:
    """Draw a row for each channel: name and figures, crops with their values and classes, bars of the classes."""
    page = Page(figure, *figure_size(sheet))
    found = sheet.channels
    title = f"{Path(found.model).name}  ·  {found.layer}  ·  what excites its {found.kind}s"
    top = page.heading(title, style.wrap_lines(_lines(sheet), page.width - 2 * MARGIN)) + 0.12
    if _ahead(sheet):
        left = MARGIN + ABOUT + _strip(sheet) + 0.25
        page.text(left, top, style.fit(sheet.bars[1], BARS), size=SMALL, color=FAINT)
    top += _ahead(sheet)
    for row, k in enumerate(sheet.chosen):
        y = top + row * ROW
        _about(page, sheet, k, y)
        _crops(page, found, k, y)
        if _side(sheet):
            _bars(page, sheet, k, y)


def show(found: Channels, chosen: Sequence[int], concepts: Concepts | None = None) -> None:
    """Print a table of channels, and what is dead or doubled."""
    table = Table(box=None, pad_edge=False)
    table.add_column(found.kind, justify="right")
    for name in ("selectivity", "active", "mean", "largest", *(("share",) if concepts else ())):
        table.add_column(name, justify="right")
    table.add_column(f"preferred {found.by}")
    for k in chosen:
        share = (f"{concepts.shares[k]:.1%}",) if concepts else ()
        numbers = (
            f"{found.selectivity[k]:.2f}",
            f"{found.active[k]:.0%}",
            f"{found.mean[k]:.3g}",
            f"{found.high[k]:.3g}",
        )
        table.add_row(str(k), *numbers, *share, "dead" if found.dead[k] else found.name(int(found.preferred[k])))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    for text, _ in _findings(found):
        console.print(text, markup=False)


def _lines(sheet: Sheet) -> Lines:
    found = sheet.channels
    what = f"{style.count(found.count, found.kind)} over {style.count(found.samples, 'sample')}"
    page = f", page {sheet.page} of {sheet.pages}" if sheet.pages > 1 else ""
    lines: Lines = [(f"{what}, {len(sheet.chosen)} shown{page}; {_field(found)}", FAINT)]
    if sheet.concepts is not None:
        lines.append((sheet.concepts.describe(), FAINT))
    if np.isfinite(found.selectivity).any():
        lines.append(("sel.: class selectivity, (max − rest) / (max + rest) of the class means, 0 to 1", FAINT))
    return [*lines, *_findings(found)]


def _findings(found: Channels) -> Lines:
    """What is dead, and what is doubled."""
    dead = np.flatnonzero(found.dead).tolist()
    lines: Lines = []
    if dead:
        more = f" and {len(dead) - NAMED} more" if len(dead) > NAMED else ""
        lines.append((f"{len(dead)} dead, always the same: {', '.join(map(str, dead[:NAMED]))}{more}", WARN))
    if found.duplicates:
        pairs = [f"{d.first} = {'−' * (d.correlation < 0)}{d.second}" for d in found.duplicates[:NAMED]]
        more = f" and {len(found.duplicates) - NAMED} more" if len(found.duplicates) > NAMED else ""
        count = style.count(len(found.duplicates), "pair")
        lines.append((f"{count} of duplicates, correlated by 0.99 or more: {', '.join(pairs)}{more}", WARN))
    if not found.compared:
        lines.append(("too many channels to look for duplicates", FAINT))
    return lines


def _field(found: Channels) -> str:
    if not found.plane:
        return "no part of the input can be shown"
    if found.whole:
        return "each position sees the whole input"
    size, plane = ("×".join(map(str, one)) for one in (found.field_size, found.plane))
    return f"each position sees up to {size} of {plane}"


def _strip(sheet: Sheet) -> float:
    return sheet.channels.values.shape[1] * (TILE + GAP)


def _side(sheet: Sheet) -> float:
    return 0.25 + BARS if len(sheet.channels.groups) else 0.0


def _ahead(sheet: Sheet) -> float:
    return style.line_height(SMALL) + 0.04 if _side(sheet) else 0.0


def _about(page: Page, sheet: Sheet, k: int, top: float) -> None:
    """Name and figures of a channel."""
    found = sheet.channels
    page.text(MARGIN, top, f"{found.kind} {k}", weight="bold")
    lines = [] if np.isnan(found.selectivity[k]) else [f"sel. {found.selectivity[k]:.2f}"]
    if sheet.concepts is not None:
        lines.append(f"{sheet.concepts.shares[k]:.1%} of all")
    lines += [f"active in {_percent(found.active[k])}", f"mean {style.number(found.mean[k])}"]
    if found.dead[k]:
        lines = [f"dead: always {style.number(found.low[k])}"]
    for number, line in enumerate(lines):
        place = top + style.line_height(LABEL) + number * style.line_height(SMALL)
        page.text(MARGIN, place, style.fit(line, ABOUT - 0.1, size=SMALL), size=SMALL, color=FAINT)


def _percent(share: float) -> str:
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def _crops(page: Page, found: Channels, k: int, top: float) -> None:
    """Crops side by side, value and class under each."""
    for rank in range(found.values.shape[1]):
        left = MARGIN + ABOUT + rank * (TILE + GAP)
        row = int(found.rows[k, rank])
        if row < 0:
            continue
        crop = found.crops.get((k, rank))
        if crop is None:
            axes = page.axes(left, top, TILE, TILE)
            style.show(axes, np.full((1, 1, 3), BLANK, np.uint8))
            word = style.fit(Path(found.sources[row]).name, TILE - 0.04, size=SMALL)
            page.text(left + TILE / 2, top + TILE / 2, word, size=SMALL, ha="center")
        elif crop.pixels.ndim == 3:
            pixels = _whole(crop.pixels)
            height, width = (n / DPI for n in pixels.shape[:2])
            axes = page.axes(left + (TILE - width) / 2, top + (TILE - height) / 2, width, height)
            style.show(axes, pixels, frame=True)
        else:
            _signal(page.axes(left, top, TILE, TILE), crop.pixels)
        value = style.number(float(found.values[k, rank]))
        page.text(left + TILE / 2, top + TILE + 0.04, value, size=SMALL, ha="center")
        word = style.fit(found.name(int(found.labels[row])), TILE + 0.04, size=SMALL, keep="start")
        page.text(
            left + TILE / 2, top + TILE + 0.04 + style.line_height(SMALL), word, size=SMALL, color=FAINT, ha="center"
        )


def _whole(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A crop enlarged, or averaged, by whole pixels to the tile's size at most."""
    side = round(TILE * DPI)
    if max(pixels.shape[:2]) > side:
        return style.reduce(np.moveaxis(pixels, -1, 0), side).transpose(1, 2, 0)
    return style.enlarge(pixels[None], side // max(pixels.shape[:2]))[0]


def _signal(axes: Axes, values: NDArray[Any]) -> None:
    axes.plot(np.arange(len(values)), values, color=INK, linewidth=0.7)
    axes.margins(0.02, 0.08)
    for spine in axes.spines.values():
        spine.set(visible=True, color=RULE)


def _bars(page: Page, sheet: Sheet, k: int, top: float) -> None:
    """The classes with the largest numbers."""
    found, (table, _) = sheet.channels, sheet.bars
    table = table.round(3) if sheet.concepts is not None else table
    if found.dead[k]:
        return
    best = np.argsort(-table[:, k], kind="stable")[:MOST_BARS]
    left = MARGIN + ABOUT + _strip(sheet) + 0.25
    step = (ROW - 0.14) / MOST_BARS
    axes = page.axes(left + NAMES, top, BARS - NAMES - 0.46, step * len(best))
    reach = float(np.abs(table[:, k]).max()) or 1.0
    values = table[best, k]
    colours = [POSITIVE if v >= 0 else NEGATIVE for v in values]
    axes.barh(np.arange(len(best)), np.abs(values) / reach, height=0.72, color=colours)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(best) - 0.5, -0.5)
    axes.spines["left"].set(visible=True, color=RULE)
    for number, (place, value) in enumerate(zip(best, values, strict=True)):
        middle = top + (number + 0.5) * step
        word = style.fit(found.name(int(found.groups[place])), NAMES - 0.06, size=SMALL, keep="start")
        page.text(left + NAMES - 0.05, middle, word, size=SMALL, ha="right", va="center_baseline")
        page.text(
            left + BARS, middle, style.number(float(value)), size=SMALL, color=FAINT, ha="right", va="center_baseline"
        )
