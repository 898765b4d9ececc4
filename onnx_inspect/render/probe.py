"""How linear probes are drawn: accuracy along the network's depth, between chance and the model's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patheffects import withStroke
from rich.console import Console
from rich.table import Table

from onnx_inspect.analysis.probe import Probes
from onnx_inspect.render import _style as style
from onnx_inspect.render._style import FAINT, INK, LABEL, MARGIN, RULE, SMALL, Page

# Inches
STEP = 0.62  # between layers
LEAST, HEIGHT = 4.2, 3.2
AXIS = 0.5  # left of the plot, for its numbers
SIDE = 1.75  # right of it, for what the lines mean
TILT = 35  # degrees of the layers' names
NAMES = 1.5  # that the names may take below
LINE = "#1f77b4"
HALO = [withStroke(linewidth=2.2, foreground="white")]


def figure_size(result: Probes) -> tuple[float, float]:
    """Width and height in inches that :func:`draw` lays out for."""
    width = 2 * MARGIN + _lead(result) + _plot(result) + SIDE
    return style.whole(width), style.whole(style.heading_height(2) + 0.15 + HEIGHT + _below(result) + MARGIN)


@style.styled
def draw(result: Probes, figure: Figure | SubFigure) -> None:
    """Draw accuracy along depth; bars are one standard deviation over the folds."""
    page = Page(figure, *figure_size(result))
    what = f"{result.classifier} regression" if result.classifier == "logistic" else "ridge classifier"
    title = f"{Path(result.model).name}  ·  linear probes of {style.count(len(result.layers), 'layer')}"
    lines = [
        f"{what} on {style.count(result.samples, 'sample')} of {style.count(result.classes, 'class', 'classes')},"
        f" accuracy on {result.folds} folds not trained on",
        f"features: {_pooled(result.pool)}"
        + (f"; too few samples: {', '.join(result.left_out)}" * bool(result.left_out)),
    ]
    top = page.heading(title, [(line, FAINT) for line in lines]) + 0.15
    axes = page.axes(MARGIN + _lead(result), top, _plot(result), HEIGHT)
    _curve(axes, result)
    _levels(axes, result)
    _names(page, axes, result, top + HEIGHT)


def show(result: Probes) -> None:
    """Print the table of accuracies."""
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    for name in ("features", "accuracy", "±"):
        table.add_column(name, justify="right")
    for one in result.layers:
        width = f"{one.width:,}" + (f" ({one.used})" if one.used < one.width else "")
        table.add_row(one.layer, width, f"{one.accuracy:.1%}", f"{one.spread:.1%}")
    table.add_row("chance", "", f"{result.chance:.1%}", "")
    if np.isfinite(result.own):
        table.add_row("the model itself", "", f"{result.own:.1%}", "")
    Console(highlight=False, soft_wrap=True).print(table)


def _pooled(pool: str) -> str:
    return {"cls": "the class token", "flatten": "all values", "none": "all values"}.get(pool, f"{pool} over positions")


def _lead(result: Probes) -> float:
    """Inches left of the plot: for its numbers, and for the first name, which ends below its point."""
    first = style.text_width(_short(result.layers[0].layer), size=SMALL) * np.cos(np.radians(TILT))
    return max(AXIS, float(first) - 0.5 * STEP + 0.1)


def _plot(result: Probes) -> float:
    return max(LEAST, STEP * len(result.layers))


def _below(result: Probes) -> float:
    longest = max(style.text_width(_short(one.layer), size=SMALL) for one in result.layers)
    return float(longest * np.sin(np.radians(TILT))) + 0.35


def _short(name: str) -> str:
    return style.fit(name, NAMES / np.sin(np.radians(TILT)) * 0.75, size=SMALL)


def _curve(axes: Axes, result: Probes) -> None:
    places = np.arange(len(result.layers))
    accuracy = np.array([one.accuracy for one in result.layers])
    spread = np.array([one.spread for one in result.layers])
    axes.errorbar(
        places, accuracy, spread, color=LINE, marker="o", markersize=5, linewidth=1.6, capsize=3, elinewidth=1
    )
    plain: Any = {"textcoords": "offset points", "ha": "center", "fontsize": SMALL, "color": INK, "path_effects": HALO}
    for x, y, above in zip(places, accuracy, spread, strict=True):
        axes.annotate(f"{y:.1%}", (x, min(y + above, 1)), (0, 6), zorder=5, **plain)
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_ylim(0, 1.08)
    for side in ("left", "bottom"):
        axes.spines[side].set(visible=True, color=RULE)
    ticks = np.linspace(0, 1, 6)
    axes.set_yticks(ticks, [f"{t:.0%}" for t in ticks], fontsize=SMALL)
    axes.tick_params(axis="y", length=0, colors=FAINT)
    axes.hlines(ticks[1:], -0.5, len(places) - 0.5, color=RULE, linewidth=0.4, zorder=0)


def _levels(axes: Axes, result: Probes) -> None:
    """Chance and the model's own accuracy as lines, their names beside the plot, apart where they'd meet."""
    levels = [("chance", result.chance, FAINT, ":")]
    if np.isfinite(result.own):
        levels.append(("the model itself", result.own, "#2ca02c", "--"))
    last = result.layers[-1].accuracy
    levels.append(("last probe", last, LINE, ""))
    levels.sort(key=lambda level: level[1])
    gap, place = style.line_height(LABEL) / HEIGHT * 1.08, -1.0
    for name, value, colour, dashes in levels:
        if dashes:
            axes.axhline(value, color=colour, linestyle=dashes, linewidth=1.2, zorder=1)
        place = max(value, place + gap)
        text = f"{name} {value:.1%}"
        axes.text(1.015, place / 1.08, text, transform=axes.transAxes, va="center", fontsize=LABEL, color=colour)


def _names(page: Page, axes: Axes, result: Probes, top: float) -> None:
    left, width = axes.get_position().x0 * page.width, axes.get_position().width * page.width
    for number, one in enumerate(result.layers):
        x = left + (number + 0.5) / len(result.layers) * width
        page.text(
            x + 0.04, top + 0.06, _short(one.layer), size=SMALL, rotation=TILT, ha="right", rotation_mode="anchor"
        )
