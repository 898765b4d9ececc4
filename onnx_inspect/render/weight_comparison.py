"""How the weights of two models look side by side: a table, how far each has moved, histograms of those furthest."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure, SubFigure
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from onnx_inspect.analysis.weight_differences import WeightComparison, WeightPair
from onnx_inspect.render import _style as style
from onnx_inspect.render._style import FAINT, MARGIN, RULE, SMALL, WARN, Page

SHOWN = 9  # histograms
# Inches
ROW, BARS, NAMES, VALUE = 0.2, 3.4, 2.4, 1.1
PANEL, GAP = (2.3, 0.95), 0.42
COLUMNS = 3
ROWS = 60  # layers with a bar of their own; of more, those that moved most
A, B = "#c8ccd1", "#0969da"


def show(found: WeightComparison, console: Console | None = None) -> None:
    """Print one row for each matched weight, those that moved most, what is unmatched, and the verdict."""
    console = console or Console()
    if found.matched:
        console.print(_table(found))
    lines = []
    for rest, which in ((found.unmatched_a, "A"), (found.unmatched_b, "B")):
        if rest:
            more = f", and {len(rest) - 5} more" if len(rest) > 5 else ""
            lines.append(f"of {which} only: {', '.join(w.name for w in rest[:5])}{more}")
    if found.moved:
        lines.append("moved most: " + ", ".join(f"{p.name} {_share(p)}" for p in found.moved[:5]))
    lines.append(verdict(found))
    for line in lines:
        console.print(escape(line), soft_wrap=True, highlight=False)


def _table(found: WeightComparison) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("weight of A, of B", overflow="fold", min_width=24)
    for heading in ("shape", "sure", "moved", "cosine", "norm A", "norm B", "max|a−b|"):
        table.add_column(heading, justify="right", no_wrap=True)
    for pair in found.matched:
        dtypes = pair.a.dtype if pair.a.dtype == pair.b.dtype else f"{pair.a.dtype}, {pair.b.dtype}"
        title = Text.assemble(_short(pair.name), "\n", (f"{_short(pair.b.layer.name)} ({dtypes})", "dim"))
        cosine = "-" if pair.apart.cosine is None else f"{pair.apart.cosine:.5f}"
        norms = (f"{norm:.4g}" for norm in pair.norms)
        shape = "×".join(map(str, pair.a.shape))
        table.add_row(title, shape, f"{pair.confidence:.2f}", _share(pair), cosine, *norms, f"{pair.apart.max_abs:.3g}")
    return table


def verdict(found: WeightComparison) -> str:
    """One sentence: identical, equal, agree, or what doesn't."""
    if found.identical:
        return "the two files are identical"
    if not found.agree:
        return f"they don't agree: {found.offence}"
    if not found.moved and not found.unmatched_a and not found.unmatched_b:
        return "all weights are equal"
    return "they agree" + (" within the limits" if found.limits.given else "")


def _share(pair: WeightPair) -> str:
    return "equal" if pair.moved == 0 else "∞" if math.isinf(pair.moved) else f"{pair.moved:.2%}"


def _short(name: str) -> str:
    """A name that fits on a line; JSON has all of it."""
    return name if len(name) <= 40 else f"{name[:18]}…{name[-21:]}"


def figure_size(found: WeightComparison) -> tuple[float, float]:
    """Width and height in inches that :func:`draw` lays out for."""
    width = 2 * MARGIN + max(NAMES + BARS + VALUE, COLUMNS * (PANEL[0] + GAP) + MARGIN)
    height = style.heading_height(len(_lines(found, width))) + ROW * len(_bars(found)) + 3 * MARGIN
    if found.moved:
        height += 0.3 + math.ceil(len(found.moved[:SHOWN]) / COLUMNS) * (PANEL[1] + 2 * GAP)
    return style.whole(width), style.whole(height)


@style.styled
def draw(found: WeightComparison, figure: Figure | SubFigure) -> None:
    """Draw how far each weight has moved as a bar, and the histograms of both models for those that moved most.

    Parameters
    ----------
    found : WeightComparison
    figure : Figure
        Of :func:`figure_size`; on another size the layout is stretched.
    """
    page = Page(figure, *figure_size(found))
    title = " · ".join(source.replace("\\", "/").rpartition("/")[2] for source in (found.a, found.b))
    top = page.heading(title, _lines(found, page.width)) + MARGIN
    pairs = _bars(found)
    if pairs:
        _draw_bars(page, pairs, top)
    top += ROW * len(pairs) + MARGIN
    if found.moved:
        page.text(MARGIN, top, "those that moved most: how many numbers lie where (logarithmic)", color=FAINT)
    top += 0.3
    for k, pair in enumerate(found.moved[:SHOWN]):
        left = 1.5 * MARGIN + (k % COLUMNS) * (PANEL[0] + GAP)
        _draw_histogram(page, pair, left, top + (k // COLUMNS) * (PANEL[1] + 2 * GAP), legend=k == 0)


def _lines(found: WeightComparison, width: float) -> style.Lines:
    rest = f"{len(found.unmatched_a)} of A and {len(found.unmatched_b)} of B without a partner"
    many = f"; the {ROWS} that moved most" if len(found.matched) > ROWS else ""
    lines = [
        (f"{style.count(len(found.matched), 'tensor')} of weights matched, {rest}{many}", FAINT),
        (verdict(found), FAINT if found.agree else WARN),
        ("moved: |a − b| relative to |a|, dequantised", FAINT),
    ]
    return style.wrap_lines(lines, width - 2 * MARGIN)


def _bars(found: WeightComparison) -> tuple[WeightPair, ...]:
    """Pairs that get a bar, in A's order."""
    if len(found.matched) <= ROWS:
        return found.matched
    chosen = {id(pair) for pair in found.moved[:ROWS]}
    return tuple(pair for pair in found.matched if id(pair) in chosen)


def _draw_bars(page: Page, pairs: tuple[WeightPair, ...], top: float) -> None:
    values = np.array([pair.moved for pair in pairs])
    finite = values[np.isfinite(values)]
    reach = float(finite.max(initial=0)) or 1.0
    axes = page.axes(MARGIN + NAMES, top, BARS, ROW * len(pairs))
    places = np.arange(len(pairs))
    axes.barh(places, np.minimum(values, reach), height=0.66, color=B)
    axes.set_xlim(0, reach * 1.02)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    axes.axvline(0, color=RULE, linewidth=0.8)
    for k, pair in enumerate(pairs):
        middle = top + (k + 0.5) * ROW
        name = style.fit(pair.name, NAMES - 0.12, size=SMALL)
        page.text(MARGIN + NAMES - 0.08, middle, name, size=SMALL, ha="right", va="center")
        right = MARGIN + NAMES + BARS * min(pair.moved, reach) / (1.02 * reach) + 0.06
        page.text(right, middle, _share(pair), size=SMALL, va="center", color=FAINT)


def _draw_histogram(page: Page, pair: WeightPair, left: float, top: float, *, legend: bool) -> None:
    page.text(left, top, style.fit(f"{pair.name}  {_share(pair)}", PANEL[0] + GAP - 0.1, size=SMALL), size=SMALL)
    axes = page.axes(left, top + 0.2, *PANEL)
    heights = [np.log10(1 + counts.astype(np.float64)) for counts in pair.counts]
    axes.stairs(heights[0], pair.edges, fill=True, color=A, label="A")
    axes.stairs(heights[1], pair.edges, color=B, linewidth=1, label="B")
    ends = [float(pair.edges[0]), 0.0, float(pair.edges[-1])]
    ticks = ends if ends[0] < 0 < ends[2] else [ends[0], ends[2]]
    axes.set_xticks(ticks, [style.number(t) for t in ticks], fontsize=SMALL)
    axes.tick_params(axis="x", length=2, width=0.6, pad=2, colors=FAINT)
    axes.spines["bottom"].set(visible=True, color=RULE, linewidth=0.6)
    axes.set_xlim(ends[0], ends[2])
    axes.set_ylim(0, None)
    if legend:
        axes.legend(fontsize=SMALL, frameon=False, loc="upper right", borderaxespad=0.2, handlelength=1.0)
