"""How one layer's activations on one sample are drawn: channels as tiles, vectors as bars, tokens as a matrix."""

from __future__ import annotations

import math
from pathlib import PurePath
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from onnx_inspect.analysis.activations import ActivationView
from onnx_inspect.render import _grid as grids
from onnx_inspect.render import _style as style
from onnx_inspect.render._style import FAINT, INK, LABEL, MARGIN, SMALL, WARN, Page, count, number

# Inches
SIDE, TALLEST = 1.8, 2.3  # the column with the original and the mean map: its width, and a picture's height at most
GUTTER = 0.25
CAPTION = 0.19
BODY = 6.2  # width of bars and matrices; a grid's own may differ
NARROWEST = 4.6  # of a body, so that the heading has room
INDENT = 0.4  # left of a matrix, for its rows' numbers
COLOURBAR = 0.62  # a colour bar with its ticks
BAR, NAMES = 0.2, 1.9  # one bar's height, and the column for the labels
NEGLIGIBLE = 1e-6  # of the layer's largest |a|: a channel below it is not blown up to full colour
CLIPPED, OUTLIER = 99.5, 4.0  # a matrix's colours end at this percentile where the largest |a| is so many times beyond
NEGATIVE, POSITIVE, UNSIGNED = "#2166ac", "#b2182b", "#31688e"


def figure_size(view: ActivationView) -> tuple[float, float]:
    """Width and height in inches that :func:`draw` lays out for."""
    width, height = _body_size(view)
    width = 2 * MARGIN + max(NARROWEST, width) + (SIDE + GUTTER if _side(view) else 0)
    top = style.heading_height(len(_lines(view, width)))
    return style.whole(width), style.whole(top + max(height, _side_height(view)) + 2 * MARGIN)


@style.styled
def draw(view: ActivationView, figure: Figure | SubFigure) -> None:
    """Draw a layer: the original and the mean map at the left, the most active channels beside them.

    Parameters
    ----------
    view : ActivationView
    figure : Figure
        Of :func:`figure_size`; on another size the layout is stretched.
    """
    page = Page(figure, *figure_size(view))
    top = page.heading(f"{view.layer.name}  ·  {view.layer.op_type}", _lines(view, page.width)) + MARGIN
    left = MARGIN
    if _side(view):
        _draw_side(page, view, left, top)
        left += SIDE + GUTTER
    if problem(view):
        page.text(left, top, problem(view), size=LABEL, color=WARN, weight="bold")
    elif view.kind in ("maps", "volume"):
        _draw_tiles(page, view, left, top)
    elif view.kind == "series":
        _draw_series(page, view, left, top)
    elif view.kind == "tokens":
        _draw_matrix(page, view, left, top + CAPTION)
    else:
        _draw_bars(page, view, left, top + CAPTION)


def problem(view: ActivationView) -> str:
    """Why there is nothing to see in a layer, in words; "" where there is."""
    size = math.prod(view.shape)
    if view.kind == "empty":
        return f"empty: its shape is {times(view.shape)}"
    if view.nan + view.inf == size:
        return "no finite value: all are NaN or infinite"
    if view.nan + view.inf == 0 and view.low == view.high and size > 1:
        return "all zero: dead on this input" if view.low == 0 else f"constant: every value is {number(view.low)}"
    return ""


def _body_size(view: ActivationView) -> tuple[float, float]:
    if problem(view):
        return NARROWEST, CAPTION
    if view.kind in ("maps", "volume"):
        width, height = _plan(view).size
        return width + GUTTER / 2 + COLOURBAR, height + CAPTION
    if view.kind == "series":
        return BODY + COLOURBAR, CAPTION + 0.6 + _rows_height(len(view.values), 0.12) + 0.4
    if view.kind == "tokens":
        return BODY + COLOURBAR, CAPTION + _rows_height(len(view.values), 0.1) + 0.4
    return BODY, CAPTION + (1.25 if view.hidden else 0) + BAR * len(view.channels)


# What is written above


def _lines(view: ActivationView, width: float) -> style.Lines:
    name = view.layer.output.name
    where = [name] if name != view.layer.name else []
    lines = [(" · ".join([*where, f"{times(view.shape)} {view.dtype}", short_source(view.source)]), FAINT)]
    if not problem(view):
        lines.append((_choice(view), INK))
        lines += [(text, WARN) for text in _warnings(view)]
    lines += [(note, FAINT) for note in view.notes]
    return style.wrap_lines(lines, width - 2 * MARGIN)


def _choice(view: ActivationView) -> str:
    """What is shown of how much, in which order, on which scale."""
    if view.kind == "tokens":
        return f"{count(len(view.values), 'token')} × {count(view.total, 'feature')}" + _clipping(view)
    things = count(view.total, "value" if view.kind == "vector" else "channel")
    text = f"all {things}" if view.total > 1 else things
    if view.hidden:
        text = f"{len(view.channels):,} of {things} ({view.hidden:,} hidden)"
    if view.kind == "vector":
        return f"{text}, the largest |a| first" if view.hidden else text
    if view.total > 1:
        text += ", most active first by mean |a|"
    if view.kind == "volume":
        text += f", at depths {', '.join(map(str, view.slices))} of {view.depth}"
    if view.scale == "shared" or view.total == 1:
        return f"{text}; one scale for all" if view.total > 1 else text
    gauge = f"; bar: largest |a| against the layer's {number(max(-view.low, view.high))}"
    return f"{text}; each on its own scale" + (gauge if view.kind == "maps" else "")


def _clipping(view: ActivationView) -> str:
    _, reach, _ = matrix_limits(view)
    largest = max(-view.low, view.high)
    if reach >= largest:
        return ""
    end = f"{'±' if view.signed else ''}{number(reach)}"
    return f"; colours end at {end}, the {CLIPPED:g}th percentile of |a|; the largest is {number(largest)}"


def _warnings(view: ActivationView) -> list[str]:
    found = []
    things = "feature" if view.kind == "tokens" else "channel"
    if view.dead:
        found.append(f"{count(view.dead, things)} all zero (dead) on this input")
    if view.constant:
        found.append(f"{count(view.constant, things)} constant over all positions")
    strange = [f"{number:,} {what}" for number, what in ((view.nan, "NaN"), (view.inf, "infinite")) if number]
    if strange:
        found.append(f"{' and '.join(strange)} ({style.BAD_NAME} where shown)")
    return [" · ".join(found)] if found else []


# The column at the left


def _side(view: ActivationView) -> list[tuple[float, float]]:
    """Width and height in inches of each picture beside the body: the original, and the mean map."""
    shapes = [view.original.shape[:2]] if view.original is not None else []
    if (mean := _map(view)) is not None:
        shapes.append(mean.shape[-2:])
    heights = [min(TALLEST, SIDE * h / w) for h, w in shapes]
    return [(max(0.05, high * w / h), max(0.05, high)) for high, (h, w) in zip(heights, shapes, strict=True)]


def _map(view: ActivationView) -> NDArray[np.float64] | None:
    """Mean abs(a) where it is a map that says more than the channels do."""
    return view.mean if view.mean is not None and view.mean.ndim > 1 < view.total and not problem(view) else None


def mean_image(mean: NDArray[np.float64]) -> tuple[NDArray[np.uint8], float, float]:
    """Colour a mean map, (h, w) or (d, h, w), on its own scale; return its range too, empty where it is constant."""
    plane = style.reduce(mean.mean(axis=0) if mean.ndim == 3 else mean, 512)
    low, high = float(plane.min()), float(plane.max())
    if high - low <= NEGLIGIBLE * high:  # rounding is no pattern
        low = high
    return style.colourise(np.maximum(plane, low), style.SEQUENTIAL, low, high), low, high


def _side_height(view: ActivationView) -> float:
    return sum(CAPTION + height + 0.12 for _, height in _side(view))


def _draw_side(page: Page, view: ActivationView, left: float, top: float) -> None:
    pictures = []
    if view.original is not None:
        planes = style.reduce(np.moveaxis(view.original, -1, 0), 512)
        pictures.append(("input", np.moveaxis(planes, 0, -1)))
    if (mean := _map(view)) is not None:
        image, low, high = mean_image(mean)
        what = {"tokens": "tokens' mean |a|", "volume": "mean |a| over depth"}.get(view.kind, "mean |a|")
        caption = f"{what}, {number(low)} to {number(high)}" if low < high else f"{what}, {number(low)} everywhere"
        pictures.append((caption, image))
    for (caption, image), (width, height) in zip(pictures, _side(view), strict=False):
        page.text(left, top, style.fit(caption, SIDE, size=SMALL), size=SMALL, color=FAINT)
        style.show(page.axes(left, top + CAPTION, width, height), image, frame=True, smooth=image.shape[1] > 128)
        top += CAPTION + height + 0.12


# Maps and volumes: tiles


def _plan(view: ActivationView) -> grids.Grid:
    count, cell = math.prod(view.values.shape[:-2]), (view.values.shape[-2], view.values.shape[-1])
    return grids.plan(count, cell, columns=len(view.slices) or None)


def _draw_tiles(page: Page, view: ActivationView, left: float, top: float) -> None:
    grid = _plan(view)
    stack = view.values.reshape(-1, *view.values.shape[-2:])
    name, low, high = _scales(view, len(stack))
    colours = style.colourise(grids.shrink(stack, grid), name, low, high)
    dead = (stack == 0).all(axis=(1, 2))
    gauged = view.scale == "own" and view.kind == "maps" and view.total > 1
    gauges = _largest(view.values) / max(-view.low, view.high) if gauged else None
    top += CAPTION - grid.head
    grids.draw(page, left, top, grids.compose(colours, grid, dead=dead, gauges=gauges), grid, _labels(view, dead))
    width, height = grid.size
    _scale_bar(page.axes(left + width + GUTTER / 2, top + grid.head, 0.11, min(1.8, height - grid.head)), view, name)


def _scales(view: ActivationView, tiles: int) -> tuple[str, NDArray[np.float64], NDArray[np.float64]]:
    """Colour map, and the values at its ends for each tile, (tiles, 1, 1)."""
    reach = max(-view.low, view.high)
    name = style.DIVERGING if view.signed else style.SEQUENTIAL
    if view.scale == "shared":
        low, high = (-reach, reach) if view.signed else (view.low, view.high)
        return name, np.full((tiles, 1, 1), low), np.full((tiles, 1, 1), high)
    own = np.maximum(_largest(view.values), NEGLIGIBLE * reach)  # a channel's slices share its scale
    highs = np.repeat(own, tiles // len(own)).reshape(tiles, 1, 1)
    return name, -highs if view.signed else np.full((tiles, 1, 1), view.low), highs


def _largest(stack: NDArray[Any]) -> NDArray[np.float64]:
    """Largest finite |a| of each of (K, ...), 0 where there is none."""
    flat = np.abs(stack.reshape(len(stack), -1), dtype=np.float64)
    return np.where(np.isfinite(flat), flat, 0).max(axis=1)


def _labels(view: ActivationView, dead: NDArray[np.bool_]) -> list[str]:
    """What stands above each tile; few characters, since type takes most of the time that a grid takes."""
    if view.kind == "volume":
        return [f"{channel} z{depth}" for channel in view.channels for depth in view.slices]
    still = (view.values == view.values[:, :1, :1]).all(axis=(1, 2)) & ~dead
    notes = np.select([dead, still], [" dead", " constant"], "")
    return [f"{channel}{note}" for channel, note in zip(view.channels, notes, strict=True)]


def _scale_bar(axes: Axes, view: ActivationView, name: str) -> None:
    low, high, _ = style.limits([view.low, view.high])
    style.colourbar(axes, name, low, high, "activation")
    if view.scale == "own":  # the ends differ from channel to channel
        least = number(view.low) if view.low > 1e-4 * view.high or view.low == 0 else "≈ 0"
        axes.set_yticks([0, 0.5, 1], ["−max", "0", "max"] if view.signed else [least, "", "max"])


# Series: channels x positions


def _draw_series(page: Page, view: ActivationView, left: float, top: float) -> None:
    assert view.mean is not None
    name, low, high = _scales(view, len(view.values))
    height = _rows_height(len(view.values), 0.12)
    page.text(left + INDENT, top, "mean |a| over all channels", size=SMALL, color=FAINT)
    above = page.axes(left + INDENT, top + CAPTION, BODY - INDENT, 0.5)
    above.fill_between(np.arange(len(view.mean)), view.mean, color=UNSIGNED, linewidth=0)
    above.set_xlim(-0.5, len(view.mean) - 0.5)
    above.set_ylim(0, float(view.mean.max()) * 1.05 or 1)
    top += CAPTION + 0.6
    _draw_rows(page, left, top, height, style.colourise(view.values, name, low[:, 0], high[:, 0]), view)
    _scale_bar(page.axes(left + BODY + GUTTER / 2, top, 0.11, min(1.8, height)), view, name)


# Tokens: positions x features


def matrix_limits(view: ActivationView) -> tuple[float, float, str]:
    """Range and colour map of a matrix; a few outliers don't take the colour from all the rest."""
    low, high, name = style.limits(view.values)
    sizes = np.abs(view.values[np.isfinite(view.values)], dtype=np.float64)
    usual = float(np.percentile(sizes, CLIPPED))
    if usual > 0 and high > OUTLIER * usual:
        return (-usual if view.signed else low), usual, name
    return low, high, name


def _draw_matrix(page: Page, view: ActivationView, left: float, top: float) -> None:
    low, high, name = matrix_limits(view)
    height = _rows_height(len(view.values), 0.1)
    _draw_rows(page, left, top, height, style.colourise(style.reduce(view.values, 2048), name, low, high), view)
    style.colourbar(page.axes(left + BODY + GUTTER / 2, top, 0.11, min(1.8, height)), name, low, high, "activation")


def _draw_rows(
    page: Page, left: float, top: float, height: float, image: NDArray[np.uint8], view: ActivationView
) -> None:
    """Put an image of rows x columns on stretched axes, with both axes named and numbered."""
    axes = page.axes(left + INDENT, top, BODY - INDENT, height)
    style.show(axes, image, frame=True, smooth=True, stretch=True)
    rows, columns = view.values.shape
    axes.images[0].set_extent((-0.5, columns - 0.5, rows - 0.5, -0.5))
    names = view.channels if view.kind == "series" else np.arange(rows)
    crowd = 1.6 * rows * style.line_height(SMALL) / height
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, crowd) if s >= crowd) if crowd > 1.6 else 1
    shown = range(0, rows, math.ceil(step))
    axes.set_yticks(list(shown), [str(names[i]) for i in shown], fontsize=SMALL)
    ends = sorted({0, (columns - 1) // 2, columns - 1})
    axes.set_xticks(ends, [str(e) for e in ends], fontsize=SMALL)
    axes.set_ylabel("channel" if view.kind == "series" else "token", fontsize=SMALL, color=FAINT)
    axes.set_xlabel("position" if view.kind == "series" else "feature", fontsize=SMALL, color=FAINT)
    axes.tick_params(length=2, width=0.6, pad=2)


# Vectors: bars


def _draw_bars(page: Page, view: ActivationView, left: float, top: float) -> None:
    if view.hidden:
        page.text(left, top - CAPTION, f"all {count(view.total, 'value')}, in order", size=SMALL, color=FAINT)
        draw_lines(page.axes(left, top, BODY, 0.75), view)
        top += 1.25
    values = np.asarray(view.values[view.channels], np.float64)
    names = NAMES if view.labels else 0.55
    axes = page.axes(left + names, top, BODY - names - 0.1, BAR * len(values))
    places = np.arange(len(values))
    axes.barh(places, np.nan_to_num(values, posinf=0, neginf=0), height=0.72, color=_colours(values, view.signed))
    axes.axvline(0, color=FAINT, linewidth=0.6)
    low, high = min(0.0, view.low), max(0.0, view.high)
    span = (high - low) or 1.0
    axes.set_xlim(low - (0.12 if low < 0 else 0) * span, high + 0.12 * span)
    axes.set_ylim(len(values) - 0.5, -0.5)
    texts = [style.fit(_element(view, i), names - 0.1, keep="start") for i in view.channels]
    axes.set_yticks(places, texts, fontsize=LABEL, color=INK)
    axes.tick_params(length=0)
    for place, value in enumerate(values):
        finite = np.isfinite(value)
        offset = (0.01 if value >= 0 or not finite else -0.01) * span
        axes.text(
            (value if finite else 0) + offset, place, number(value), fontsize=SMALL, va="center",
            ha="left" if offset > 0 else "right", color=FAINT if finite else style.BAD_NAME,
        )  # fmt: skip


def _element(view: ActivationView, index: int) -> str:
    """Number and label of a vector's element, once where they are the same."""
    label = view.labels[index] if view.labels else ""
    return f"{index}  {label}" if label and label != str(index) else str(index)


def draw_lines(axes: Axes, view: ActivationView) -> None:
    """Every element in order as a thin line; of many, the largest |a| of each bin."""
    values = np.nan_to_num(np.asarray(view.values, np.float64), posinf=0, neginf=0)
    step = -(-len(values) // 700)
    padded = np.pad(values, (0, -len(values) % step)).reshape(-1, step)
    heights = padded[np.arange(len(padded)), np.abs(padded).argmax(axis=1)]
    thick = min(5.0, max(0.8, 0.5 * axes.bbox.width / axes.figure.dpi * 72 / len(heights)))  # in points
    axes.vlines(np.arange(len(heights)) * step, 0, heights, colors=_colours(heights, view.signed), linewidth=thick)
    axes.axhline(0, color=style.RULE, linewidth=0.6)
    axes.set_xlim(-0.01 * len(values) - 0.5, 1.01 * len(values) - 0.5)
    ends = sorted({0, len(values) - 1})
    axes.set_xticks(ends, [str(e) for e in ends], fontsize=SMALL)
    axes.tick_params(length=2, width=0.6)


def _colours(values: NDArray[np.float64], signed: bool) -> list[str]:
    return [(POSITIVE if v >= 0 else NEGATIVE) if signed else UNSIGNED for v in values]


# Small things


def _rows_height(rows: int, each: float) -> float:
    return min(6.0, max(1.3, rows * each))


def short_source(source: str) -> str:
    """Name a sample by its file, without the folders."""
    return PurePath(source).name or source


def times(shape: tuple[int, ...]) -> str:
    """Write a shape as ``64 × 13 × 13``."""
    return " × ".join(map(str, shape)) if shape else "a single value"
