"""How the reasons of two models are drawn: every picture's rank correlation, and the most changed ones side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from onnx_inspect.analysis import drift as analysis
from onnx_inspect.analysis.drift import Drift, Reasons
from onnx_inspect.analysis.saliency import CamPanel
from onnx_inspect.render import _style as style
from onnx_inspect.render import cam
from onnx_inspect.render._style import FAINT, INK, MARGIN, SMALL, WARN, Page

# Inches
CHART = 1.7  # the chart's height
LEFT, RIGHT = 0.62, 1.75  # its axis, its legend
NAMES = 1.1  # of the pictures, below it
NAMED = 36  # pictures whose names are written

# Verdicts: colour and marker, so that they differ in grey, too
MARKS = {
    analysis.SAME: (FAINT, "o"),
    analysis.REASON: (WARN, "D"),
    analysis.PREDICTION: ("#8250df", "s"),
    analysis.NOTHING: (FAINT, "x"),
}


@dataclass(frozen=True)
class DriftView:
    """What is drawn: two models' names, all pictures, and the panels of those shown with both maps."""

    models: tuple[str, str]
    drift: Drift
    panels: tuple[CamPanel, ...]


def beside(panels: tuple[CamPanel, CamPanel], models: tuple[str, str], said: Reasons) -> CamPanel:
    """One picture with A's map and B's, and what they have in common in words."""
    one, other = panels
    maps = tuple(
        replace(made, method=f"{side}: {model}")
        for side, model, panel in zip("AB", models, panels, strict=True)
        for made in panel.maps
    )
    notes = dict.fromkeys([_says(said), *one.notes, *other.notes])
    flag = "" if said.verdict == analysis.SAME else f"  ·  {said.verdict}"
    return replace(one, source=_short(said.source) + flag, maps=maps, notes=tuple(notes))


def _says(said: Reasons) -> str:
    words = []
    if said.rank_correlation is not None and said.overlap is not None:
        words += [
            f"rank correlation {style.number(said.rank_correlation)}",
            f"{said.overlap:.0%} of the strongest tenth in both",
        ]
    if said.predicted[0] is not None:
        a, b = said.predicted
        words.append(f"both predict {a}" if said.agree else f"A predicts {a}, B {b}")
    return "  ·  ".join(words) or "a flat map has no ranks"


def show(drift: Drift, console: Console | None = None) -> None:
    """Print one row per picture, the most changed first, and what it comes to."""
    console = console or Console()
    table = Table(box=None, pad_edge=False)
    table.add_column("picture", overflow="fold")
    for heading in ("rank corr.", "overlap"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("A predicts", "B predicts", ""):
        table.add_column(heading, overflow="fold")
    for index in drift.order:
        said = drift.pictures[index]
        numbers = ["-" if v is None else f"{v:.3f}" for v in (said.rank_correlation, said.overlap)]
        words = [escape(name or "-") for name in said.predicted]
        verdict = "" if said.verdict == analysis.SAME else said.verdict
        table.add_row(escape(_short(said.source)), *numbers, *words, verdict, style="bold" if verdict else None)
    console.print(table)
    median = "unknown" if drift.median is None else f"{drift.median:.3f}"
    console.print(
        f"{drift.changed} of {len(drift.pictures)} are predicted alike for another reason, {drift.flips} are predicted"
        f" differently; median rank correlation {median}",
        soft_wrap=True,
        highlight=False,
    )


def _short(source: str) -> str:
    return source.replace("\\", "/").rsplit("/", 1)[-1]


def figure_size(view: DriftView) -> tuple[float, float]:
    """Width and height in inches that :func:`draw` lays out for."""
    width, below = cam.figure_size(view.panels)
    return width, _top(view) + below


@style.styled
def draw(view: DriftView, figure: Figure | SubFigure) -> None:
    """Draw a chart of all pictures, the most changed at the left, and below it pictures under both models' maps.

    Parameters
    ----------
    view : DriftView
        With at least one panel.
    figure : Figure
        Of :func:`figure_size`; on another size the layout is stretched.
    """
    width, height = figure_size(view)
    top = _top(view)
    if not top:
        cam.draw(view.panels, figure)
        return
    parts: Any = figure.subfigures(2, 1, height_ratios=[top, height - top], hspace=0)
    upper, lower = parts
    page = Page(upper, width, top)
    above = page.heading(_title(view), _lines(view.drift, width)) + MARGIN / 2
    _draw_chart(page.axes(LEFT, above, width - LEFT - RIGHT, CHART), view.drift, page, above)
    cam.draw(view.panels, lower)


def _top(view: DriftView) -> float:
    """Inches of the chart; none for a single picture."""
    if len(view.drift.pictures) < 2:
        return 0.0
    lines = _lines(view.drift, cam.figure_size(view.panels)[0])
    names = NAMES if len(view.drift.pictures) <= NAMED else 0.3
    return style.whole(style.heading_height(len(lines)) + MARGIN / 2 + CHART + names)


def _title(view: DriftView) -> str:
    return f"{view.models[0]}  ·  {view.models[1]}  ·  {view.drift.method}"


def _lines(drift: Drift, width: float) -> style.Lines:
    count, median = len(drift.pictures), drift.median
    words = f"{style.count(count, 'picture')}, median rank correlation "
    words += "unknown" if median is None else style.number(median)
    words += f"  ·  same prediction for another reason: {drift.changed}  ·  another prediction: {drift.flips}"
    return style.wrap_lines([(words, FAINT)], width - 2 * MARGIN)


def _draw_chart(axes: Axes, drift: Drift, page: Page, top: float) -> None:
    ordered = [drift.pictures[i] for i in drift.order]
    places = np.arange(len(ordered))
    values = np.array([0.0 if p.rank_correlation is None else p.rank_correlation for p in ordered])
    size = float(np.clip(260 / len(ordered), 2.5, 6.5))
    for verdict, (colour, marker) in MARKS.items():
        chosen = np.array([p.verdict == verdict for p in ordered])
        if chosen.any():
            label = f"{verdict} ({int(chosen.sum())})"
            axes.plot(
                places[chosen],
                values[chosen],
                linestyle="none",
                marker=marker,
                markersize=size,
                color=colour,
                label=label,
            )
    limit = drift.limits.rank_correlation
    axes.axhline(limit, color=WARN, linewidth=0.8, linestyle="--", label=f"limit {style.number(limit)}")
    axes.axhline(0, color=style.RULE, linewidth=0.6, zorder=0)
    low = min(-0.05, float(values.min()) - 0.08)
    axes.set_ylim(low, 1.06)
    axes.set_xlim(-0.6, len(ordered) - 0.4)
    ticks = [-1, -0.5, 0, 0.5, 1] if low < -0.3 else [0, 0.5, 1]
    axes.set_yticks(ticks, [style.number(t) for t in ticks], fontsize=SMALL)
    axes.set_ylabel("rank correlation", fontsize=SMALL, color=FAINT)
    axes.tick_params(length=2, width=0.6, pad=2)
    for side in ("left", "bottom"):
        axes.spines[side].set(visible=True, color=style.RULE)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), fontsize=SMALL, frameon=False, borderaxespad=0.2)
    _name(page, ordered, top + CHART + 0.06, page.width - LEFT - RIGHT)


def _name(page: Page, ordered: Sequence[Reasons], top: float, width: float) -> None:
    """Write the pictures' names below their dots, or how they are ordered where there are too many."""
    if len(ordered) > NAMED:
        words = "pictures, the most changed at the left"
        page.text(LEFT + width / 2, top, words, size=SMALL, ha="center", color=FAINT)
        return
    for place, said in enumerate(ordered):
        left = LEFT + width * (place + 0.6) / len(ordered)
        colour = INK if said.verdict == analysis.SAME else MARKS[said.verdict][0]
        shown = style.fit(_short(said.source), NAMES - 0.15, size=SMALL)
        page.text(left, top, shown, size=SMALL, ha="center", rotation=90, color=colour)
