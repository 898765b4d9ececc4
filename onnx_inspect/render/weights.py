"""How one weight is drawn: its filters or matrix, with histogram, norms and spectrum beside them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from onnx_inspect.analysis.weights import WeightView
from onnx_inspect.render import _style as style
from onnx_inspect.render._style import DPI, FAINT, INK, MARGIN, SMALL, WARN, Page, count, number
from onnx_inspect.render._weight_image import Picture, compose, is_vector, reach

# Inches
SIDE = 2.3  # the charts at the right
CHART, CAPTION, TICKS = 1.0, 0.2, 0.32
AXIS = 0.4  # left of a chart, for its numbers
GUTTER = 0.3
LABELS = 0.55  # left of the image: ticks and what they count
BELOW = 0.36  # under it, likewise
COLOURBAR = 0.62
NARROWEST = 3.6
BARS = 6.0, 3.0  # width and height of a vector's bars
PART_NAMES = 1.7  # left of a matrix whose rows have names
FLAT = 2.6  # an image lower than this has its charts below it

BAR, LINE = "#57606a", "#0969da"
NEGATIVE, POSITIVE = "#2166ac", "#b2182b"


@dataclass(frozen=True)
class _Layout:
    """Where things go, in inches."""

    picture: Picture | None
    lines: style.Lines
    width: float
    height: float
    body: tuple[float, float]
    below: bool  # charts under the image instead of beside it


def figure_size(view: WeightView) -> tuple[float, float]:
    """Width and height in inches that :func:`draw` lays out for."""
    layout = _layout(view)
    return layout.width, layout.height


def _layout(view: WeightView) -> _Layout:
    picture = None if is_vector(view) or not view.count else compose(view)
    charts = len(_charts(view))
    body = BARS
    if picture is not None:
        height, width = picture.image.shape[:2]
        bar = 0.0 if picture.coloured else COLOURBAR + 0.1
        body = max(NARROWEST, _left(picture) + width / DPI + bar), height / DPI + (BELOW if picture.x_label else 0)
    below = picture is not None and body[1] < FLAT and body[0] > 2 * SIDE
    if below:
        width_all = max(body[0], charts * (SIDE + GUTTER) - GUTTER)
        height_all = body[1] + GUTTER + CAPTION + CHART + TICKS
    else:
        width_all = body[0] + GUTTER + SIDE
        height_all = max(body[1], charts * (CAPTION + CHART + TICKS))
    total = math.ceil((2 * MARGIN + width_all) * 20) / 20
    lines = _lines(view, picture, total)
    top = style.heading_height(len(lines)) + MARGIN
    return _Layout(picture, lines, total, math.ceil((top + height_all + MARGIN) * 20) / 20, body, below)


@style.styled
def draw(view: WeightView, figure: Figure | SubFigure) -> None:
    """Draw a weight: its image, and beside or below it how its values, norms and singular values are spread.

    Parameters
    ----------
    view : WeightView
    figure : Figure
        Of :func:`figure_size`; on another size the layout is stretched.
    """
    layout = _layout(view)
    page = Page(figure, layout.width, layout.height)
    top = page.heading(_title(view), layout.lines) + MARGIN
    if layout.picture is not None:
        _draw_picture(page, view, layout.picture, top)
    elif view.count:
        _draw_bars(page, view, top)
    left = MARGIN if layout.below else layout.width - MARGIN - SIDE
    top += layout.body[1] + GUTTER if layout.below else 0
    for name, drawer in _charts(view):
        page.text(left, top, name, size=SMALL, color=FAINT)
        drawer(page.axes(left + AXIS, top + CAPTION, SIDE - AXIS, CHART), view)
        left += SIDE + GUTTER if layout.below else 0
        top += 0 if layout.below else CAPTION + CHART + TICKS


# What is written above


def _title(view: WeightView) -> str:
    weight = view.weight
    around = "".join(f" in {op}" for op in reversed(weight.layer.around))
    return f"{weight.layer.name}  ·  {weight.layer.op_type}{around}  ·  {weight.role}"


def _lines(view: WeightView, picture: Picture | None, width: float) -> style.Lines:
    weight = view.weight
    kind = f"{weight.dtype}, dequantised" if weight.quantised else weight.dtype
    groups = f" · {count(weight.groups, 'group')}" if weight.groups > 1 else ""
    shape = " × ".join(f"{n:,}" for n in weight.shape) or "one number"
    lines = [(f"{weight.name} · {shape} · {kind} · {count(view.count, 'parameter')}{groups}", FAINT)]
    lines += [(text, INK) for text in (_spread(view), _structure(view)) if text and view.histogram.size]
    if picture is not None:
        lines.append((picture.says + ("" if picture.own else _clipping(view)), INK))
    if problem := _problem(view):
        lines.append((problem, WARN))
    lines += [(note, WARN) for note in view.notes]
    return style.wrap_lines(lines, width - 2 * MARGIN)


def _spread(view: WeightView) -> str:
    parts = [f"mean {number(view.mean)}", f"std {number(view.std)}", f"{number(view.low)} to {number(view.high)}"]
    parts.append(f"zeros {_percent(view.sparsity)}")
    if view.near_zero > view.sparsity:
        parts.append(f"under a thousandth of the largest {_percent(view.near_zero)}")
    return " · ".join(parts)


def _structure(view: WeightView) -> str:
    parts = []
    if view.spectrum.effective_rank is not None:
        parts.append(f"effective rank {view.spectrum.effective_rank:.1f} of {view.spectrum.values.size}")
    if view.spectrum.condition is not None:
        finite = math.isfinite(view.spectrum.condition)
        parts.append(f"condition {number(view.spectrum.condition)}" if finite else "not of full rank")
    if view.dead:
        parts.append(f"{count(len(view.dead), 'unit')} all zero")
    if view.duplicates:
        parts.append(f"{count(sum(map(len, view.duplicates)), 'unit')} in {count(len(view.duplicates), 'group')} alike")
    return " · ".join(parts)


def _percent(share: float) -> str:
    return "0 %" if not share else f"{100 * share:.3g} %" if share >= 1e-4 else "< 0.01 %"


def _clipping(view: WeightView) -> str:
    limit = reach(view)
    return f"; colours end at ±{number(limit)}, the largest is {number(view.abs_max)}" if limit < view.abs_max else ""


def _problem(view: WeightView) -> str:
    if not view.count:
        return "empty: it holds no number"
    if view.nan + view.inf == view.count:
        return "no finite value: all are NaN or infinite"
    if view.low == view.high and view.count > 1:
        return "all zero" if view.low == 0 else f"constant: every value is {number(view.low)}"
    if view.nan + view.inf and not is_vector(view):
        return f"NaN and infinity are drawn in {style.BAD_NAME}"
    return ""


# The weight itself


def _left(picture: Picture) -> float:
    """Inches at the image's left, for what its rows are."""
    if not picture.y_label:
        return 0.0
    longest = max((style.text_width(text, size=SMALL) for _, text in picture.y_ticks), default=0.0)
    return max(LABELS, min(PART_NAMES, longest) + 0.25)


def _draw_picture(page: Page, view: WeightView, picture: Picture, top: float) -> None:
    left = MARGIN + _left(picture)
    height, width = picture.image.shape[:2]
    axes = page.axes(left, top, width / DPI, height / DPI)
    style.show(axes, picture.image)
    if picture.y_label:
        axes.set_yticks(
            [p - 0.5 for p, _ in picture.y_ticks], [style.clean(t) for _, t in picture.y_ticks], fontsize=SMALL
        )
        axes.set_ylabel(picture.y_label, fontsize=SMALL, color=FAINT)
    if picture.x_label:
        axes.set_xticks([p - 0.5 for p, _ in picture.x_ticks], [t for _, t in picture.x_ticks], fontsize=SMALL)
        axes.set_xlabel(picture.x_label, fontsize=SMALL, color=FAINT)
    axes.tick_params(length=2, width=0.6, pad=2)
    for x, y, text in picture.titles:
        axes.text(x - 0.5, y - 0.5, text, fontsize=SMALL, va="baseline")
    if not picture.coloured and (limit := reach(view)):
        bar = page.axes(left + width / DPI + 0.1, top, 0.11, min(1.8, max(0.5, height / DPI)))
        style.colourbar(bar, style.DIVERGING, -limit, limit, "weight")
        if picture.own:
            bar.set_yticks([0, 0.5, 1], ["−max", "0", "max"], fontsize=SMALL)


def _draw_bars(page: Page, view: WeightView, top: float) -> None:
    """One bar per number; of many, the largest magnitude of each bin."""
    width, height = BARS
    axes = page.axes(MARGIN + LABELS, top, width - LABELS, height - BELOW)
    values = np.nan_to_num(view.values.ravel().astype(np.float64), posinf=0, neginf=0)
    step = -(-len(values) // 600)
    padded = np.pad(values, (0, -len(values) % step)).reshape(-1, step)
    tall = padded[np.arange(len(padded)), np.abs(padded).argmax(axis=1)]
    places = np.arange(len(tall)) * step
    axes.bar(
        places, tall, step * (0.8 if len(tall) < 80 else 1.0), color=[NEGATIVE if v < 0 else POSITIVE for v in tall]
    )
    axes.axhline(0, color=FAINT, linewidth=0.6)
    axes.set_xlim(-0.6 * step, max(places[-1] + 0.6 * step, 8))
    bad = np.flatnonzero(~np.isfinite(view.values.ravel()))
    if bad.size:
        axes.plot(bad, np.zeros(bad.size), linestyle="none", marker="x", color=style.BAD_NAME, label="not finite")
        axes.legend(fontsize=SMALL, frameon=False)
    _numbers(axes)
    many = f", the largest magnitude of each {step}" if step > 1 else ""
    axes.set_xlabel(f"index{many}", fontsize=SMALL, color=FAINT)
    axes.set_ylabel("weight", fontsize=SMALL, color=FAINT)


# The charts beside it


def _charts(view: WeightView) -> list[tuple[str, Callable[[Axes, WeightView], None]]]:
    charts: list[tuple[str, Callable[[Axes, WeightView], None]]] = []
    if view.histogram.size:
        charts.append(("how many, by value" + (" (logarithmic)" if _peaked(view) else ""), _draw_histogram))
    if 1 < view.l2.size < view.count:
        charts.append((f"L2 norm of {_units(view)}, sorted", _draw_norms))
    if view.spectrum.values.size > 1:
        charts.append(("singular values", _draw_spectrum))
    return charts


def _units(view: WeightView) -> str:
    names = {"conv": "filters", "embedding": "entries", "matrix": "output features"}
    return f"the {view.l2.size:,} {names.get(view.weight.kind, 'rows')}"


def _peaked(view: WeightView) -> bool:
    """Whether one value is so common that the rest would vanish beside it."""
    return bool(view.histogram.max() > 0.5 * view.histogram.sum() and np.count_nonzero(view.histogram) > 2)


def _draw_histogram(axes: Axes, view: WeightView) -> None:
    axes.stairs(view.histogram, view.edges, fill=True, color=BAR, linewidth=0)
    if _peaked(view):
        axes.set_yscale("log")
        axes.set_ylim(0.7, None)
    else:
        axes.set_ylim(0, view.histogram.max() * 1.05)
    if view.edges[0] < 0 < view.edges[-1]:
        axes.axvline(0, color=POSITIVE, linewidth=0.6)
    _numbers(axes, counts=True)


def _draw_norms(axes: Axes, view: WeightView) -> None:
    _falling(axes, np.sort(view.l2)[::-1])


def _draw_spectrum(axes: Axes, view: WeightView) -> None:
    _falling(axes, view.spectrum.values)


def _falling(axes: Axes, values: NDArray[np.float64]) -> None:
    places = np.arange(1, len(values) + 1)
    axes.plot(places, values, color=LINE, linewidth=1.2, marker="." if len(values) < 25 else None)
    axes.fill_between(places, values, color=LINE, alpha=0.12, linewidth=0)
    axes.set_ylim(0, values[0] * 1.05 or 1)
    axes.set_xlim(0.5 if len(values) < 25 else 1, len(values) + (0.5 if len(values) < 25 else 0))
    _numbers(axes)


def _numbers(axes: Axes, *, counts: bool = False) -> None:
    """Give axes few, small ticks and a frame at the left and below."""
    for side in ("left", "bottom"):
        axes.spines[side].set(visible=True, color=style.RULE)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=not counts))
    axes.yaxis.set_major_locator(
        LogLocator(numticks=4) if axes.get_yscale() == "log" else MaxNLocator(3, integer=counts)
    )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}" if counts else number(v)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.tick_params(length=2, width=0.6, pad=2, labelsize=SMALL)
