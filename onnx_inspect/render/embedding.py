"""How a data set inside several layers is drawn: a scatter of its samples for each, coloured by class."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from onnx_inspect.analysis.embedding import CELLS, Embedding, Projection
from onnx_inspect.render import _cube as cube
from onnx_inspect.render import _groups as grouping
from onnx_inspect.render import _style as style
from onnx_inspect.render._groups import Groups
from onnx_inspect.render._style import FAINT, INK, LABEL, MARGIN, RULE, SMALL, WARN, Page

# Inches
SIDES = {1: 5.2, 2: 4.0, 3: 3.3}  # of a panel, by how many stand in a row
SOLID = 4.2  # of a box's view at most
SIDE = 2.9  # of a panel where there are more
GUTTER = 0.25
ROW = 5  # panels in a row at most
CAPTION = style.line_height(LABEL) + 4 * style.line_height(SMALL) + 0.1
NAMES = {"pca": "principal components", "tsne": "t-SNE", "umap": "UMAP"}
INKED = 0.1  # share of a panel that points would cover if none lay over another
FEW = 60  # samples that are named themselves where no class is known
NAMED = 0.33  # of a panel's side, for a name at most
RASTER = 5000  # points from which an SVG or PDF holds them as pixels
HALO = [withStroke(linewidth=2.2, foreground="white")]


def figure_size(result: Embedding) -> tuple[float, float]:
    """Width and height in inches that :func:`draw` lays out for."""
    columns, rows, side = _grid(result)
    width = 2 * MARGIN + columns * (_across(result, side) + GUTTER) + grouping.WIDTH
    body = max(rows * _panel(result, side) + (rows - 1) * GUTTER, grouping.legend_height(_groups(result)))
    return style.whole(width), style.whole(style.heading_height(len(_lines(result))) + 0.1 + body + MARGIN)


@style.styled
def draw(result: Embedding, figure: Figure | SubFigure) -> None:
    """Draw each layer's points in a panel, the layers in the order of depth, with the figures that say what to believe.

    Misclassified samples are crosses in the colour of their own class. Three dimensions are seen from two sides.
    """
    page = Page(figure, *figure_size(result))
    columns, _, side = _grid(result)
    top = page.heading(_title(result), [(line, FAINT) for line in _lines(result)]) + 0.1
    groups = _groups(result)
    for number, projection in enumerate(result.projections):
        row, column = divmod(number, columns)
        left, above = MARGIN + column * (_across(result, side) + GUTTER), top + row * (_panel(result, side) + GUTTER)
        if result.dim == 3:
            for view, (x, y) in zip(cube.VIEWS, _views(result, side), strict=True):
                _solid(page.axes(left + x, above + y, side, side), result, projection, groups, view, side)
        else:
            _flat(page.axes(left, above, side, side), result, projection, groups, side)
        _caption(page, projection, left, above + _panel(result, side) - CAPTION + 0.06, _across(result, side))
    place = MARGIN + columns * (_across(result, side) + GUTTER)
    grouping.legend(page, groups, place, top, page.height - top - MARGIN, by=result.by)


def _grid(result: Embedding) -> tuple[int, int, float]:
    count = len(result.projections)
    rows = math.ceil(count / ROW)
    columns = math.ceil(count / rows)
    side = SIDES.get(columns, SIDE)
    return columns, rows, min(side, SOLID) if result.dim == 3 else side


def _views(result: Embedding, side: float) -> list[tuple[float, float]]:
    """Where in a panel each view of the box stands: beside one another for a single layer, else below."""
    beside = len(result.projections) == 1
    return [(n * side, 0.0) if beside else (0.0, n * side) for n in range(len(cube.VIEWS))]


def _across(result: Embedding, side: float) -> float:
    """Width of a panel."""
    return side * (len(cube.VIEWS) if result.dim == 3 and len(result.projections) == 1 else 1)


def _panel(result: Embedding, side: float) -> float:
    """Height of a panel with its caption."""
    rows = len(cube.VIEWS) if result.dim == 3 and len(result.projections) > 1 else 1
    return rows * side + CAPTION


def _groups(result: Embedding) -> Groups:
    return grouping.grouped(result.groups, result.names, result.projections[-1].points)


def _title(result: Embedding) -> str:
    layers = style.count(len(result.projections), "layer")
    kind = NAMES.get(result.method, result.method)
    return f"{Path(result.model).name}  ·  {kind} of {style.count(len(result.sources), 'sample')} in {layers}"


def _lines(result: Embedding) -> list[str]:
    said = result.meta()["misclassified"]
    marked = "" if said is None else f"; × misclassified: {said:,} of {int((result.labels >= 0).sum()):,}"
    pooled = {"none": "whole, in a row", "cls": "the class token", "flatten": "all values in a row"}
    how = pooled.get(result.pool, f"{result.pool} over positions")
    params = ", ".join(f"{k} {_value(v)}" for k, v in result.params.items() if k not in ("dim", "seed"))
    quality = result.projections[-1].quality
    measured = f"; figures from {quality.sampled:,} samples" if quality.sampled < len(result.sources) else ""
    coloured = f"coloured by {result.by}{marked}" if result.by else "no classes known"
    nearest = f"k-NN: the class of most of the {quality.neighbours} nearest is right{measured}"
    known = [nearest] if np.isfinite(quality.knn) else []
    return [f"{coloured}; layers are taken as {how}", *known, *([params] if params else [])]


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flat(axes: Axes, result: Embedding, projection: Projection, groups: Groups, side: float) -> None:
    points = projection.points
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    half = float(np.ptp(points, axis=0).max()) / 2 * 1.06 or 1.0
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] - half, middle[1] + half)
    _frame(axes)
    colours, size = groups.of(result.groups), _size(len(points), side)
    pictures = result.thumbnails.get(projection.layer, {})
    order = np.random.default_rng(0).permutation(len(points))  # no class lies over the others
    _scatter(axes, points, colours, result.wrong, order, np.full(len(points), size), pale=bool(pictures))
    if pictures:
        _pictures(axes, result, projection, colours)
    else:
        _names(axes, points.astype(np.float64), _named(result, projection, groups), side)
    if projection.axes:
        plain: Any = {"transform": axes.transAxes, "fontsize": SMALL, "color": FAINT, "path_effects": HALO, "zorder": 8}
        axes.text(0.985, 0.015, projection.axes[0], ha="right", **plain)
        axes.text(0.015, 0.985, projection.axes[1], va="top", rotation=90, **plain)


def _solid(axes: Axes, result: Embedding, projection: Projection, groups: Groups, view: cube.View, side: float) -> None:
    cube.box(axes, view)
    flat, away = view.see(cube.boxed(projection.points))
    colours = cube.paled(groups.of(result.groups), away)
    order = np.argsort(-away, kind="stable")  # the nearest last
    _scatter(axes, flat, colours, result.wrong, order, cube.shrunk(1.2 * _size(len(flat), side), away))
    _names(axes, flat, _named(result, projection, groups), side)
    if projection.axes:
        for (x, y), name in zip(cube.outside(view), projection.axes, strict=True):
            axes.text(x, y, name, ha="center", va="center", fontsize=SMALL, color=FAINT)


def _scatter(
    axes: Axes,
    points: NDArray[np.floating],
    colours: NDArray[np.float64],
    wrong: NDArray[np.bool_],
    order: NDArray[np.intp],
    sizes: NDArray[np.float64],
    *,
    pale: bool = False,
) -> None:
    raster, alpha = len(points) > RASTER, 0.25 if pale else 0.85
    right, missed = order[~wrong[order]], order[wrong[order]]
    plain: Any = {"rasterized": raster, "alpha": alpha, "linewidths": 0}
    axes.scatter(points[right, 0], points[right, 1], sizes[right], colours[right], **plain)
    if missed.size:
        larger = np.maximum(2.5 * sizes[missed], np.clip(3000 / missed.size, 4, 16))
        cross: Any = {"marker": "X", "edgecolors": INK, "rasterized": raster, "zorder": 6}
        cross["linewidths"] = 0.5 if missed.size < 500 else 0.25
        axes.scatter(points[missed, 0], points[missed, 1], larger, colours[missed], **cross)


def _size(count: int, side: float) -> float:
    """Area of a point, in square points of type: many get little each."""
    return float(np.clip(INKED * (72 * side) ** 2 / max(count, 1), 0.5, 30))


def _pictures(axes: Axes, result: Embedding, projection: Projection, colours: NDArray[np.float64]) -> None:
    """Put pictures into the cells of a grid, each near its point, framed in the colour of its class."""
    points = projection.points
    low, span = points.min(axis=0), float(np.ptp(points, axis=0).max()) or 1.0
    cell = span / CELLS
    for sample, picture in result.thumbnails[projection.layer].items():
        middle = (np.floor((points[sample] - low) / span * (CELLS - 1e-6)) + 0.5) * cell + low
        half = cell * 0.43 * np.array([picture.shape[1], picture.shape[0]]) / max(picture.shape[:2])
        (left, bottom), (right, top) = middle - half, middle + half
        axes.imshow(picture, extent=(left, right, bottom, top), zorder=4, aspect="auto", interpolation="auto")
        frame = tuple(colours[sample])
        around = ([left, right, right, left, left], [bottom, bottom, top, top, bottom])
        axes.plot(*around, color=frame, linewidth=1.6, zorder=5)
        if result.wrong[sample]:
            axes.scatter([right], [top], 22, [frame], marker="X", edgecolors=INK, linewidths=0.5, zorder=6)
    low_x, high_x = axes.get_xlim()
    axes.set_xlim(min(low_x, low[0] - 0.03 * span), max(high_x, low[0] + 1.03 * span))
    low_y, high_y = axes.get_ylim()
    axes.set_ylim(min(low_y, low[1] - 0.03 * span), max(high_y, low[1] + 1.03 * span))


def _named(result: Embedding, projection: Projection, groups: Groups) -> list[tuple[str, int]]:
    """What is written where: groups at their clearest samples; samples themselves where there are no groups and few."""
    if not result.by and len(result.sources) <= FEW:
        return [(_source(source), n) for n, source in enumerate(result.sources)]
    return [(groups.name(group), sample) for group, sample in projection.anchors]


def _source(text: str) -> str:
    """A sample's name: of a file its own, without the folders."""
    return Path(text).stem if Path(text).suffix and " " not in text else text


def _names(axes: Axes, places: NDArray[np.float64], names: list[tuple[str, int]], side: float) -> None:
    """Write names above their samples, the first ones first, as far as names don't cover each other."""
    low, high = np.array([axes.get_xlim(), axes.get_ylim()]).T
    taken: list[tuple[float, float, float, float]] = []
    centred: Any = {"ha": "center", "va": "center", "color": INK, "zorder": 7}
    for text, sample in names:
        name = style.fit(text, NAMED * side, size=SMALL + 0.5, keep="start")
        width, height = style.text_width(name, size=SMALL + 0.5) + 0.06, style.line_height(SMALL)
        x, y = (places[sample] - low) / (high - low) * side + (0, 0.09)  # above its sample, which it would cover
        x, y = np.clip(x, width / 2, side - width / 2), np.clip(y, height / 2, side - height / 2)
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            continue
        taken.append(box)
        at = np.array([x, y]) / side * (high - low) + low
        axes.text(at[0], at[1], style.clean(name), fontsize=SMALL + 0.5, path_effects=HALO, **centred)


def _frame(axes: Axes) -> None:
    axes.set_aspect("equal")
    for spine in axes.spines.values():
        spine.set(visible=True, color=RULE, linewidth=0.6)


def _caption(page: Page, projection: Projection, left: float, top: float, side: float) -> None:
    page.text(left, top, style.fit(projection.layer, side, weight="bold"), weight="bold")
    top += style.line_height(LABEL)
    quality = projection.quality
    if projection.constant:
        page.text(left, top, style.fit("the same for all samples", side, size=SMALL), size=SMALL, color=WARN)
        return
    rows = [
        (f"{projection.width:,} features", "picture", "layer"),
        ("k-NN", _share(quality.knn), _share(quality.knn_features)),
        ("silhouette", _decimal(quality.silhouette), _decimal(quality.silhouette_features)),
        ("trustworthiness", _decimal(quality.trustworthiness), ""),
    ]
    for row, (what, near, far) in enumerate(rows):
        colour = INK if row else FAINT
        below = top + row * style.line_height(SMALL)
        page.text(left, below, what, size=SMALL, color=FAINT)
        page.text(left + 1.55, below, near, size=SMALL, color=colour, ha="right")
        page.text(left + 2.1, below, far, size=SMALL, color=colour, ha="right")


def _decimal(value: float) -> str:
    return f"{value:.3f}".replace("-", "−") if np.isfinite(value) else "–"


def _share(value: float) -> str:
    return f"{value:.1%}" if np.isfinite(value) else "–"
