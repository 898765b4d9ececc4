"""How a comparison of two models looks: a table in a terminal, and a figure of the error along depth and up close."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from onnx_inspect.analysis.closeup import Closeup
from onnx_inspect.analysis.comparison import Comparison, Pair
from onnx_inspect.render import _style as style
from onnx_inspect.render._style import FAINT, INK, MARGIN, RULE, SMALL, WARN, Page

NAMED = 5  # tensors without a partner that are named
# Inches
PLOT = 2.2, 0.24  # the error's height; a layer's share of its width
WIDTH = 7.0, 15.0  # of the page: least and most
SCALE = 0.62  # room at the left of the plot
NAMES = 1.6  # the longest name under the plot at most
CROWDED = 70  # layers from which on only some are named
INDENT = 0.45  # of maps, for their channels' numbers
TILE, GAP = 1.5, 0.1  # a map's longer side
CAPTION = 0.2
BAR = 0.8
ACCUMULATED, OWN = "#6e7781", "#0969da"


@dataclass(frozen=True)
class ComparisonView:
    """What is drawn: a comparison, and what some of its tensors hold."""

    found: Comparison
    closeups: tuple[Closeup, ...] = ()


# In a terminal


def show(found: Comparison, console: Console | None = None) -> None:
    """Print one row for each matched pair, what is unmatched, the outputs, the culprit and the verdict."""
    console = console or Console()
    if found.matched:
        console.print(_table(found))
    for line in _words(found):
        console.print(line, soft_wrap=True, highlight=False)


def _table(found: Comparison) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("layer of A, of B", overflow="fold", min_width=24)
    for heading in ("sure", "cosine", "SQNR", "alone", "max|a−b|"):
        table.add_column(heading, justify="right", no_wrap=True)
    guilty = _guilty(found)
    for pair in found.matched:
        strange = f" {pair.apart.strange} not finite" if pair.apart.strange else ""
        title = Text.assemble(
            _short(pair.a), "\n", (f"{_short(pair.b)} ({_operators(pair)}){strange}", "yellow" if strange else "dim")
        )
        cells = (
            f"{pair.confidence:.2f}",
            "-" if pair.apart.cosine is None else f"{pair.apart.cosine:.5f}",
            _db(pair.apart.sqnr_db, pair.apart.equal),
            "-" if pair.local is None else _db(pair.local.sqnr_db, pair.local.equal),
            f"{pair.apart.max_abs:.3g}",
        )
        table.add_row(title, *cells, style="bold yellow" if pair is guilty else "")
    return table


def _operators(pair: Pair) -> str:
    return pair.a_op if pair.a_op == pair.b_op else f"{pair.a_op}, {pair.b_op}"


def _words(found: Comparison) -> list[str]:
    lines = []
    for names, which in ((found.unmatched_a, "A"), (found.unmatched_b, "B")):
        if names:
            more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
            lines.append(f"of {which} only, or in doubt: {', '.join(names[:NAMED])}{more}")
    for output in found.outputs:
        cosine = "-" if output.difference.cosine is None else f"{output.difference.cosine:.6f}"
        text = f"output {output.a} / {output.b}: cosine {cosine}, max|a−b| {output.difference.max_abs:.3g}"
        if output.top1 is not None:
            text += f", the same class for {output.top1:.0%} of the inputs, {output.topk:.0%} of the best {output.k}"
        lines.append(text + ("" if output.rank is None else f", rank correlation {output.rank:.4f}"))
    if found.culprit is not None:
        lines.append(f"culprit: {found.culprit.a} / {found.culprit.b}: {found.culprit.why}")
    return [escape(line) for line in [*lines, verdict(found)]]


def verdict(found: Comparison) -> str:
    """One sentence: identical, agree, or what doesn't."""
    if found.identical:
        return "the two files are identical"
    if not found.agree:
        return f"they don't agree: {found.offence}"
    return "they agree" + (" within the limits" if found.limits.given else "")


def _short(name: str) -> str:
    """A name that fits on a line; JSON has all of it."""
    return name if len(name) <= 44 else f"{name[:20]}…{name[-23:]}"


def _db(value: float | None, equal: bool) -> str:
    return "equal" if equal else "-" if value is None else f"{value:.1f} dB"


def _guilty(found: Comparison) -> Pair | None:
    """The pair that holds the culprit."""
    if found.culprit is None:
        return None
    names = {found.culprit.a, found.culprit.b}
    by_a = (p for p in found.matched if found.culprit.a in (p.a, *p.a_tied))
    return next(by_a, None) or next((p for p in found.matched if names & {p.b, *p.b_tied}), None)


# As a figure


def figure_size(view: ComparisonView) -> tuple[float, float]:
    """Width and height in inches that :func:`draw` lays out for."""
    width = _width(view)
    height = style.heading_height(len(_lines(view, width))) + MARGIN / 2
    if view.found.matched:
        height += CAPTION + PLOT[0] + _names_room(view.found.matched) + MARGIN
    height += sum(max(map(_closeup_height, row)) + MARGIN for row in _rows(view.closeups, width))
    return style.whole(width), style.whole(height + MARGIN)


@style.styled
def draw(view: ComparisonView, figure: Figure | SubFigure) -> None:
    """Draw each layer's error along the depth of A, accumulated and its own; then what both hold up close.

    Parameters
    ----------
    view : ComparisonView
    figure : Figure
        Of :func:`figure_size`; on another size the layout is stretched.
    """
    page = Page(figure, *figure_size(view))
    title = f"{_tail(view.found.a)}  ·  {_tail(view.found.b)}"
    top = page.heading(title, _lines(view, page.width)) + MARGIN / 2
    if view.found.matched:
        _draw_errors(page, view.found, top)
        top += CAPTION + PLOT[0] + _names_room(view.found.matched) + MARGIN
    for row in _rows(view.closeups, page.width):
        left = MARGIN
        for one in row:
            _draw_closeup(page, one, left, top)
            left += _closeup_width(one) + 2 * MARGIN
        top += max(map(_closeup_height, row)) + MARGIN


def _tail(source: str) -> str:
    return source.replace("\\", "/").rpartition("/")[2]


def _lines(view: ComparisonView, width: float) -> style.Lines:
    found = view.found
    unmatched = len(found.unmatched_a), len(found.unmatched_b)
    counts = f"{style.count(len(found.matched), 'tensor')} matched, {unmatched[0]} of A and {unmatched[1]} of B not; "
    lines = [(counts + style.count(len(found.sources), "input"), FAINT)]
    if found.culprit is not None:
        lines.append((f"culprit: {found.culprit.a}: {found.culprit.why}", WARN))
    lines.append((verdict(found), FAINT if found.agree else WARN))
    return style.wrap_lines(lines, width - 2 * MARGIN)


def _width(view: ComparisonView) -> float:
    plot = SCALE + PLOT[1] * len(view.found.matched) + 2 * MARGIN
    widest = max((_closeup_width(one) + 2 * MARGIN for one in view.closeups), default=0.0)
    return float(np.clip(max(plot, widest), *WIDTH))


def _shown(pairs: Sequence[Pair]) -> list[int]:
    """Numbers of the layers that are named."""
    step = max(1, math.ceil(len(pairs) / CROWDED))
    return list(range(0, len(pairs), step))


def _names_room(pairs: Sequence[Pair]) -> float:
    names = [pairs[k].a for k in _shown(pairs)]
    return min(NAMES, max(style.text_width(name, size=SMALL) for name in names)) + 0.1


def _draw_errors(page: Page, found: Comparison, top: float) -> None:
    """Relative error of each layer: a line for what accumulates, dots for its own; what is equal lies at the bottom."""
    pairs = found.matched
    axes = page.axes(MARGIN + SCALE, top + CAPTION, page.width - 2 * MARGIN - SCALE, PLOT[0])
    whole = np.array([math.sqrt(p.apart.noise) for p in pairs])
    own = np.array([math.nan if p.local is None else math.sqrt(p.local.noise) for p in pairs])
    low, high = _reach(np.concatenate([whole, own]))
    places = np.arange(len(pairs))
    for values, colour, marker, line, text in (
        (whole, ACCUMULATED, "o", "-", "accumulated from the input"),
        (own, OWN, "D", "", "the layer's own, fed what A holds"),
    ):
        shown = np.where(np.isnan(values), np.nan, np.clip(values, low, high))
        axes.plot(places, shown, color=colour, linestyle=line, linewidth=1, marker=marker, markersize=3.2, label=text)
    guilty = _guilty(found)
    if guilty is not None:
        axes.axvspan(pairs.index(guilty) - 0.5, pairs.index(guilty) + 0.5, color=WARN, alpha=0.14, linewidth=0)
    _scale(axes, low, high)
    axes.set_xlim(-0.6, len(pairs) - 0.4)
    axes.set_xticks([])
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0}
    axes.legend(fontsize=SMALL, frameon=False, ncols=2, handlelength=1.4, **place)
    page.text(MARGIN, top, "relative error |a−b| / |a|", size=SMALL, color=FAINT)
    step = (page.width - 2 * MARGIN - SCALE) / (len(pairs) + 0.2)
    room = _names_room(pairs) - 0.1
    for k in _shown(pairs):
        left = MARGIN + SCALE + (k + 0.6) * step
        colour = WARN if guilty is not None and pairs[k] is guilty else INK
        text = style.fit(pairs[k].a, room, size=SMALL)
        page.text(left, top + CAPTION + PLOT[0] + 0.06, text, size=SMALL, rotation=90, ha="center", color=colour)


def _reach(values: NDArray[np.float64]) -> tuple[float, float]:
    """Ends of the logarithmic scale: whole powers of ten around what differs."""
    finite = values[np.isfinite(values) & (values > 0)]
    if not finite.size:
        return 1e-7, 1.0
    low = 10 ** (math.floor(math.log10(finite.min())) - 1)
    return max(low, 1e-9), max(10 ** math.ceil(math.log10(finite.max())), low * 100)


def _scale(axes: Axes, low: float, high: float) -> None:
    axes.set_yscale("log")
    axes.set_ylim(low / 1.6, high * 1.6)
    powers = range(round(math.log10(low)), round(math.log10(high)) + 1)
    step = max(1, math.ceil(len(powers) / 7))
    ticks = [10.0**p for p in powers if (p - powers[0]) % step == 0]
    texts = ["equal", *(f"{100 * t:g} %" if t >= 1e-5 else f"{t:.0e}" for t in ticks[1:])]
    axes.set_yticks(ticks, texts, fontsize=SMALL)
    axes.minorticks_off()
    for tick in ticks:
        axes.axhline(tick, color=RULE, linewidth=0.5, zorder=0)
    axes.tick_params(axis="y", length=0, colors=FAINT)


# Up close


def _closeup_height(one: Closeup) -> float:
    if one.kind == "vector":
        return 2 * CAPTION + 1.5
    rows = len(one.of_a) if one.kind == "maps" else 1
    return 2 * CAPTION + rows * (_tile(one)[1] + GAP)


def _closeup_width(one: Closeup) -> float:
    if one.kind == "vector":
        return SCALE + 0.34 * len(one.of_a) + 0.4
    return INDENT + 3 * (_tile(one)[0] + GAP) + 2 * BAR


def _rows(closeups: Sequence[Closeup], width: float) -> list[list[Closeup]]:
    """Put them side by side where the page is wide enough."""
    rows: list[list[Closeup]] = []
    room = 0.0
    for one in closeups:
        room -= _closeup_width(one) + 2 * MARGIN
        if not rows or room < 0:
            rows.append([])
            room = width - _closeup_width(one) - 2 * MARGIN
        rows[-1].append(one)
    return rows


def _tile(one: Closeup) -> tuple[float, float]:
    """Width and height of one map in inches."""
    height, width = one.of_a.shape[-2:]
    longer = TILE if one.kind == "maps" else 2 * TILE
    return max(0.2, longer * width / max(height, width)), max(0.2, longer * height / max(height, width))


def _draw_closeup(page: Page, one: Closeup, left: float, top: float) -> None:
    word = {"culprit": "culprit", "worst": "furthest off"}[one.what]
    things = {"maps": "channel", "vector": "element", "matrix": "row"}[one.kind]
    shown = f", the {len(one.numbers)} worst of {style.count(one.total, things)}" if one.numbers else ""
    text = f"{word}: {one.a} · {one.b}{shown}, on {_tail(one.source)}"
    room = min(max(_closeup_width(one), WIDTH[0] - 2 * MARGIN), page.width - left - MARGIN)
    page.text(left, top, style.fit(text, room), color=WARN if one.what == "culprit" else INK)
    top += CAPTION
    if one.kind == "vector":
        _draw_bars(page, one, left, top)
        return
    stack_a, stack_b = (v if one.kind == "maps" else v[None] for v in (one.of_a, one.of_b))
    width, height = _tile(one)
    edge, left = left, left + INDENT
    for column, caption in enumerate(("A", "B", "B − A")):
        page.text(left + column * (width + GAP + (BAR if column else 0)), top, caption, size=SMALL, color=FAINT)
    top += CAPTION
    for row, (of_a, of_b) in enumerate(zip(stack_a, stack_b, strict=True)):
        if one.kind == "maps":
            page.text(edge, top + height / 2, f"{one.numbers[row]}", size=SMALL, va="center")
        _draw_three(page, of_a, of_b, left, top, (width, height))
        top += height + GAP


def _draw_three(
    page: Page,
    of_a: NDArray[np.float64],
    of_b: NDArray[np.float64],
    left: float,
    top: float,
    size: tuple[float, float],
) -> None:
    """A and B on one scale, and their difference on its own."""
    width, height = size
    low, high, name = style.limits(np.stack([of_a, of_b]))
    with np.errstate(invalid="ignore"):
        apart = of_b - of_a
    reach = float(np.abs(apart[np.isfinite(apart)]).max(initial=0))
    own, signed = (low, high), (-reach, reach)
    for values, cmap, ends in ((of_a, name, own), (of_b, name, own), (apart, style.DIVERGING, signed)):
        image = style.colourise(style.reduce(values, 512), cmap, *ends)
        style.show(page.axes(left, top, width, height), image, frame=True, smooth=max(image.shape) > 180)
        if values is not of_a:
            bar = page.axes(left + width + 0.06, top, 0.09, height)
            style.colourbar(bar, cmap, *ends)
        left += width + GAP + (0 if values is of_a else BAR)


def _draw_bars(page: Page, one: Closeup, left: float, top: float) -> None:
    """Elements of a vector, A's and B's side by side."""
    axes = page.axes(left + SCALE, top + CAPTION, _closeup_width(one) - SCALE, 1.1)
    places = np.arange(len(one.of_a))
    for values, shift, colour, text in ((one.of_a, -0.2, ACCUMULATED, "A"), (one.of_b, 0.2, OWN, "B")):
        axes.bar(places + shift, np.nan_to_num(values, posinf=0, neginf=0), width=0.38, color=colour, label=text)
    axes.axhline(0, color=FAINT, linewidth=0.6)
    axes.set_xlim(-0.6, len(places) - 0.4)
    axes.set_xticks(places, [str(k) for k in one.numbers], fontsize=SMALL)
    low, high = axes.get_ylim()
    axes.set_yticks([low, 0, high] if low < 0 < high else [low, high])
    axes.set_yticklabels([style.number(t) for t in axes.get_yticks()], fontsize=SMALL)
    axes.tick_params(length=0, colors=FAINT)
    axes.legend(fontsize=SMALL, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
