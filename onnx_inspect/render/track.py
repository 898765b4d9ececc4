"""How a training run is drawn: curves over the checkpoints, one panel for each question, legends outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from onnx_inspect.analysis.track import Row, Track, table
from onnx_inspect.render import _style as style
from onnx_inspect.render._style import FAINT, LABEL, MARGIN, SMALL, Page

# Inches
LEFT, WIDE, LEGEND = 0.75, 6.0, 2.6
PANEL, GAP = 1.35, 0.42  # a panel's height, and what lies between two
NAMES = 0.9  # of the checkpoints, below
CURVES = 10  # in a panel: more layers are picked evenly along depth
BARS = "#8250df"
LAST = "#1a7f37"


@dataclass(frozen=True)
class Panel:
    """One question: its title, its curves by name, and how they are drawn."""

    title: str
    curves: tuple[tuple[str, Row], ...]
    low: float | None = None
    high: float | None = None
    log: bool = False
    bars: bool = False


def panels(track: Track) -> list[Panel]:
    """What there is to show of a run."""
    weights = [(w.name, w) for w in track.weights]
    layers = [(layer.name, layer) for layer in track.layers]
    found = [
        Panel("weights: |change since the first| / |first|", _curves(weights, lambda w: w.from_first), low=0),
        Panel("activations: likeness to the last checkpoint (CKA)", _curves(layers, lambda la: la.cka_last), 0, 1),
        Panel("activations: likeness to the first checkpoint (CKA)", _curves(layers, lambda la: la.cka_first), 0, 1),
        Panel("activations: deviation", _curves(layers, lambda la: la.std), log=True),
        Panel("share of dead channels", _curves(layers, lambda la: la.dead), 0),
    ]
    if track.predictions is not None:
        rows = {
            "changed since the one before": track.predictions.flips,
            "unlike the last": track.predictions.unlike_last,
        }
        curves = tuple((name, tuple(float(n) for n in row)) for name, row in rows.items())
        found.append(Panel(f"inputs of another class, of {len(track.sources)}", curves, low=0, bars=True))
    return [p for p in found if any(value is not None for _, row in p.curves for value in row)]


def figure_size(track: Track) -> tuple[float, float]:
    """Width and height in inches that :func:`draw` lays out for."""
    count = len(panels(track))
    height = style.heading_height(1) + GAP + count * (PANEL + GAP) - GAP + names_height(track.labels, WIDE) + MARGIN
    return style.whole(LEFT + WIDE + LEGEND), style.whole(height)


@style.styled
def draw(track: Track, figure: Figure | SubFigure) -> None:
    """Draw the curves of a run, the checkpoints evenly from left to right; colours run along the network's depth.

    Parameters
    ----------
    track : Track
    figure : Figure
        Of :func:`figure_size`; on another size the layout is stretched.
    """
    page = Page(figure, *figure_size(track))
    words = f"{style.count(len(track.steps), 'checkpoint')}, {style.count(len(track.sources), 'input')}"
    words += "; colours run from the first layers (dark) to the last"
    top = page.heading(title(track), [(words, FAINT)]) + GAP
    named: tuple[str, ...] = ()
    shown = panels(track)
    for number, panel in enumerate(shown):
        axes = page.axes(LEFT, top, WIDE, PANEL)
        page.text(LEFT, top - 0.2, panel.title, size=LABEL)
        (_bars if panel.bars else _lines)(axes, panel)
        _frame(axes, panel, len(track.steps))
        if named != (named := tuple(name for name, _ in panel.curves)):  # once for panels of the same layers
            _legend(axes)
        top += PANEL + GAP
        if number == len(shown) - 1:
            name_steps(page, track.labels, LEFT, top - GAP + 0.06, WIDE)


def title(track: Track) -> str:
    """The run in words."""
    return f"{track.labels[0]}  →  {track.labels[-1]}"


def names_height(labels: Sequence[str], width: float) -> float:
    """Inches that the checkpoints' names take below a panel of that width."""
    if _upright(labels, width):
        return 0.06 + style.line_height(SMALL)
    return 0.1 + min(NAMES, max(style.text_width(label, size=SMALL) for label in labels))


def _upright(labels: Sequence[str], width: float) -> bool:
    return max(style.text_width(label, size=SMALL) for label in labels) <= width / len(labels) - 0.06


def name_steps(page: Page, labels: Sequence[str], left: float, top: float, width: float) -> None:
    """Write the checkpoints' names below their places: upright where they are short, or every second, third, ..."""
    pitch = width / len(labels)
    upright = _upright(labels, width)
    every = 1 if upright else max(1, int(np.ceil(style.line_height(SMALL) / pitch)))
    for place in range(0, len(labels), every):
        text = labels[place] if upright else style.fit(labels[place], NAMES, size=SMALL)
        page.text(
            left + (place + 0.5) * pitch, top, text, size=SMALL, ha="center", color=FAINT, rotation=0 if upright else 90
        )


def _curves(tracks: Sequence[tuple[str, object]], row: Callable[..., Row]) -> tuple[tuple[str, Row], ...]:
    known = [(name, row(one)) for name, one in tracks]
    known = [(name, values) for name, values in known if any(v is not None for v in values)]
    if not known:
        return ()
    places = np.unique(np.linspace(0, len(known) - 1, min(CURVES, len(known))).round().astype(int))
    return tuple(known[i] for i in places)


def _lines(axes: Axes, panel: Panel) -> None:
    values = table([row for _, row in panel.curves])  # (curves, T)
    if panel.log:
        values = np.where(values > 0, values, np.nan)
    places = np.arange(values.shape[1])
    colours = colormaps[style.SEQUENTIAL](np.linspace(0, 0.9, max(len(values), 2)))
    for (name, _), row, colour in zip(panel.curves, values, colours, strict=False):
        shown = style.fit(name, LEGEND - 0.7, size=SMALL)
        axes.plot(places, row, color=colour, linewidth=1.2, marker="o", markersize=2.6, label=shown)
    if panel.log and np.isfinite(values).any():
        axes.set_yscale("log")


def _bars(axes: Axes, panel: Panel) -> None:
    width = 0.8 / len(panel.curves)
    for number, (name, row) in enumerate(panel.curves):
        places = np.arange(len(row)) + (number - (len(panel.curves) - 1) / 2) * width
        axes.bar(places, [value or 0 for value in row], width * 0.92, color=(BARS, LAST)[number % 2], label=name)


def _frame(axes: Axes, panel: Panel, count: int) -> None:
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_xticks(range(count), [""] * count)
    low, high = axes.get_ylim()
    if not panel.log:
        axes.set_ylim(
            min(low, panel.low) if panel.low is not None else low,
            max(high, panel.high * 1.04) if panel.high is not None else max(high, 1e-9),
        )
        ticks = _ticks(*axes.get_ylim())
        axes.set_yticks(ticks, [style.number(float(t)) for t in ticks], fontsize=SMALL)
    else:
        axes.minorticks_off()
        axes.tick_params(axis="y", which="both", labelsize=SMALL, left=True, labelleft=True)
        _log_ticks(axes)
    axes.tick_params(length=2, width=0.6, pad=2)
    for side in ("left", "bottom"):
        axes.spines[side].set(visible=True, color=style.RULE)
    for place in range(count):
        axes.axvline(place, color=style.RULE, linewidth=0.4, zorder=0)


def _legend(axes: Axes) -> None:
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.015, 1.08),
        fontsize=SMALL,
        frameon=False,
        borderaxespad=0,
        labelspacing=0.18,
        handlelength=1.2,
    )


def _ticks(low: float, high: float) -> NDArray[np.float64]:
    """About four round numbers between two ends."""
    step = 10.0 ** np.floor(np.log10((high - low) / 3))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 4.5)
    found = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    return np.asarray(found + 0.0, np.float64)


def _log_ticks(axes: Axes) -> None:
    """Ticks at powers of ten; between them, too, where the range holds few."""
    low, high = axes.get_ylim()
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    inside = [ticks[(ticks >= low) & (ticks <= high)] for ticks in (powers, np.outer(powers, (1, 2, 5)).ravel())]
    ticks = inside[0] if len(inside[0]) > 2 else inside[1]
    ticks = ticks[:: max(1, len(ticks) // 4)]
    axes.set_yticks(ticks, [style.number(float(t)) for t in ticks], fontsize=SMALL)


def show(track: Track, console: Console | None = None) -> None:
    """Print one row for each checkpoint."""
    console = console or Console()
    grid = Table(box=None, pad_edge=False)
    grid.add_column("checkpoint")
    columns: dict[str, list[str]] = {
        "moved": _medians([w.from_first for w in track.weights]),
        "since before": _medians([w.from_previous for w in track.weights]),
        "CKA to last": _medians([la.cka_last for la in track.layers]),
        "dead": _dead(track),
    }
    if track.predictions is not None:
        columns["flips"] = [str(n) for n in track.predictions.flips]
        columns["unlike last"] = [str(n) for n in track.predictions.unlike_last]
    if track.embeddings is not None:
        columns["disparity"] = [f"{d:.3f}" for d in track.embeddings.disparity]
    kept = {name: cells for name, cells in columns.items() if any(cell != "-" for cell in cells)}
    for name in kept:
        grid.add_column(name, justify="right", no_wrap=True)
    for label, *cells in zip(track.labels, *kept.values(), strict=True):
        grid.add_row(label, *cells)
    console.print(grid)


def _medians(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    values = table(rows)
    return ["-" if np.isnan(column).all() else f"{np.nanmedian(column):.3f}" for column in values.T]


def _dead(track: Track) -> list[str]:
    """Dead channels of all layers together."""
    if not track.layers:
        return []
    found = []
    for place in range(len(track.steps)):
        known = [la.statistics[place] for la in track.layers if la.statistics[place].dead is not None]
        count = sum(s.channels or 0 for s in known)
        found.append(f"{sum(len(s.dead or ()) for s in known)}/{count}" if count else "-")
    return found
