"""How a weight tensor becomes one image: filters as tiles, matrices as heat maps, and what is left out is said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.weights import WeightView, as_units
from onnx_inspect.render import _style as style
from onnx_inspect.render._style import count, number

Pixels = NDArray[np.uint8]
Values = NDArray[np.float32]

# Pixels
WIDE, HIGH = 760, 720  # an image's largest sides
TILE = 96  # a tile's longer side at most
CELL = 24  # a matrix cell's side at most
HEADER = 16  # above a part, for its name
GAP = 214  # grey between tiles: white would look like zeros

SIDE = 64  # tiles in a row or column at most: more are too small to compare
TICKS = 14
CLIPPED, OUTLIER = 99.5, 2.5  # colours end at this percentile where the largest magnitude is so many times beyond
UNEVEN = 4.0  # filters get a scale of their own where the strongest is so many times the median one


@dataclass(frozen=True)
class Picture:
    """An image at paper resolution and what surrounds it; positions are pixels of the image.

    Attributes
    ----------
    image : ndarray, (H, W, 3), uint8
    says : str
        What is shown of how much, and how it is reduced.
    x_label, y_label : str
    x_ticks, y_ticks : sequence of (position, text)
    titles : sequence of (x, y, text)
        Names of parts; the bottom left corner of each.
    coloured : bool
        Three input channels as colours: no colour map applies.
    own : bool
        Each tile has a scale of its own.
    """

    image: Pixels
    says: str
    x_label: str = ""
    y_label: str = ""
    x_ticks: Sequence[tuple[float, str]] = ()
    y_ticks: Sequence[tuple[float, str]] = ()
    titles: Sequence[tuple[float, float, str]] = ()
    coloured: bool = False
    own: bool = False


def reach(view: WeightView) -> float:
    """Magnitude that gets the full colour: the largest, or where that is an outlier a high percentile."""
    sizes = np.abs(view.values[np.isfinite(view.values) & (view.values != 0)])
    if not sizes.size:
        return 0.0
    largest, usual = float(sizes.max()), float(np.percentile(sizes, CLIPPED))
    return usual if largest > OUTLIER * usual else largest


def compose(view: WeightView) -> Picture:
    """Compose the image that suits a weight's kind; vectors are no images, see `is_vector`."""
    weight, values = view.weight, view.values
    if weight.kind == "conv" and weight.role == "weight" and math.prod(values.shape[2:]) > 1:
        if values.ndim == 3:
            return _series(view)
        if values.ndim == 4:
            return _planes(view)
        return _volumes(view)
    if values.ndim > 2 and weight.role in ("weight", "recurrent") and weight.kind in ("matrix", "recurrent"):
        return _parts(view)
    rows, columns = _names(view)
    units = as_units(values, weight) if weight.kind != "recurrent" else values.reshape(len(values), -1)
    return _matrix(view, units, rows, columns, weight.parts if len(weight.parts) == len(units) else ())


def is_vector(view: WeightView) -> bool:
    """Whether there is only one axis to show."""
    return sum(n > 1 for n in view.values.shape) < 2


def extremes(values: Values, height: int, width: int) -> Values:
    """Shrink (..., h, w) to at most (..., height, width): of each block the number of largest magnitude, or a NaN."""
    y, x = -(-values.shape[-2] // height), -(-values.shape[-1] // width)
    if y <= 1 and x <= 1:
        return values
    padding = [(0, 0)] * (values.ndim - 2) + [(0, -values.shape[-2] % y), (0, -values.shape[-1] % x)]
    padded = np.pad(values, padding, mode="edge")
    blocks = padded.reshape(*values.shape[:-2], padded.shape[-2] // y, y, padded.shape[-1] // x, x)
    low, high = blocks.min(axis=(-3, -1)), blocks.max(axis=(-3, -1))  # NaN wins in both
    return np.where(-low > high, low, high)


def _names(view: WeightView) -> tuple[str, str]:
    kind, role = view.weight.kind, view.weight.role
    if kind == "conv":
        return "output channel", "input channel" + (" within its group" if view.weight.groups > 1 else "")
    if kind == "matrix" and role == "weight":
        return "output feature", "input feature"
    if kind == "embedding":
        return "entry", "component"
    return ("part", "unit") if kind == "recurrent" else ("row", "column")


# Convolutions


def _planes(view: WeightView) -> Picture:
    """2D: RGB tiles of a layer that sees three channels, one tile per depthwise filter, else output x input tiles."""
    values, weight = view.values, view.weight
    if values.shape[1] == 3 and weight.groups == 1 and values.shape[2] <= HIGH and values.shape[3] <= WIDE:
        return _in_colour(view)
    if values.shape[1] == 1:
        return _single(view)
    rows, columns = _strongest(view.l2, _most(HIGH, values.shape[2])), _strongest_inputs(values)
    shown = extremes(values[np.ix_(rows, columns)], HIGH, WIDE)
    colours = _coloured(view, shown)  # (R, C, h, w, 3)
    image, step_y, step_x = _table(colours)
    down, across = _names(view)
    says = _shown(view, len(rows), len(columns))
    return Picture(image, says, across, down, _ticks(columns, step_x), _ticks(rows, step_y))


def _in_colour(view: WeightView) -> Picture:
    kept = _strongest(view.l2, _most(HIGH, view.values.shape[2]) * _most(WIDE, view.values.shape[3]))
    values = view.values[kept].astype(np.float64)
    order = [2, 1, 0] if view.colour == "BGR" else [0, 1, 2]
    limit = reach(view)
    sound = np.isfinite(values)
    unit = np.where(sound, values, 0) / (limit or 1.0)
    colours = np.moveaxis(((unit.clip(-1, 1) * 127.5) + 127.5).round().astype(np.uint8)[:, order], 1, -1)
    colours[~sound.all(axis=1)] = style.BAD
    image, ticks = _lined_up(colours, kept)
    meaning = ", ".join(map(str, order))
    says = f"{_of(len(kept), len(view.values), 'filter')}; input channels {meaning} as red, green, blue"
    says += f": mid-grey is 0, full colour ±{number(limit)}"
    return Picture(image, says, "", "output channel", (), ticks, coloured=True)


def _single(view: WeightView) -> Picture:
    """Filters that see one channel each."""
    kept = _strongest(view.l2, _most(HIGH, view.values.shape[2]) * _most(WIDE, view.values.shape[3]))
    shown = extremes(view.values[kept, 0], HIGH, WIDE)
    largest = np.abs(np.where(np.isfinite(shown), shown, 0)).max(axis=(1, 2), keepdims=True)
    own = bool(largest.max() > UNEVEN * np.median(largest)) and len(kept) > 1
    image, ticks = _lined_up(
        style.colourise(shown, style.DIVERGING, -largest, largest) if own else _coloured(view, shown), kept
    )
    kind = "depthwise filter" if view.weight.groups > 1 else "filter of the one input channel"
    says = _of(len(kept), len(view.values), kind, kind.replace("filter", "filters", 1))
    if own:
        low, high = number(float(largest.min())), number(float(largest.max()))
        says += f"; each on its own scale, largest magnitudes from {low} to {high}"
    return Picture(image, says, "", "output channel", (), ticks, own=own)


def _series(view: WeightView) -> Picture:
    """1D: output channels down, taps across, input channels side by side."""
    values = view.values
    outputs, inputs, taps = values.shape
    rows, columns = _names(view)
    if inputs * (taps + 1) > WIDE or outputs > HIGH or inputs == 1:
        across = "tap" if inputs == 1 else f"{columns} × tap"
        return _matrix(view, values.reshape(outputs, -1), rows, across)
    tall, wide = min(CELL, max(1, HIGH // outputs)), min(CELL, (WIDE // inputs - 1) // taps)
    colours = _coloured(view, values[:, :, None, :]).repeat(tall, axis=2).repeat(wide, axis=3)
    image, step_y, step_x = _table(colours, factor=1, gap_y=0)
    text = f"all {count(outputs, 'output channel')} × {count(inputs, 'input channel')} × {count(taps, 'tap')}"
    x_ticks, y_ticks = _ticks(np.arange(inputs), step_x), _ticks(np.arange(outputs), step_y)
    return Picture(image, text, f"{columns}, {count(taps, 'tap')} each", rows, x_ticks, y_ticks)


def _volumes(view: WeightView) -> Picture:
    """3D and beyond: per output and input channel a strip of slices along the depth."""
    values = view.values.reshape(*view.values.shape[:2], -1, *view.values.shape[-2:])  # (K, C, D, h, w)
    depth, height, width = values.shape[2:]
    if depth * (width + 2) > WIDE or height > HIGH:  # wider than the page: no slice would be seen whole
        return _matrix(view, view.values.reshape(len(values), -1), _names(view)[0], f"{_names(view)[1]} × tap")
    rows = _strongest(view.l2, _most(HIGH, height))
    columns = _strongest_inputs(values, max(1, min(SIDE // depth, WIDE // (depth * (width + 2) + 8))))
    colours = _coloured(view, values[np.ix_(rows, columns)])  # (R, C, D, h, w, 3)
    factor = _factor(len(rows), len(columns) * depth, height, width)
    colours = colours.repeat(factor, axis=3).repeat(factor, axis=4)
    colours = np.pad(colours, [(0, 0)] * 4 + [(0, 2), (0, 0)], constant_values=GAP)
    strips = np.moveaxis(colours, 2, 3).reshape(*colours.shape[:2], colours.shape[3], -1, 3)
    image, step_y, step_x = _table(strips, factor=1, gap_x=8)
    says = f"{_shown(view, len(rows), len(columns))}, each as {count(depth, 'slice')} along the depth"
    row_name, column_name = _names(view)
    return Picture(image, says, column_name, row_name, _ticks(columns, step_x), _ticks(rows, step_y))


# Matrices


def _matrix(view: WeightView, values: Values, rows: str, columns: str, names: Sequence[str] = ()) -> Picture:
    small = extremes(values, HIGH, WIDE)
    height = min(CELL, max(1, HIGH // small.shape[0]))
    width = min(CELL, max(1, WIDE // small.shape[1]))
    image = _coloured(view, small).repeat(height, axis=0).repeat(width, axis=1)
    many = "entries" if rows == "entry" else ""
    block_y, block_x = -(-values.shape[0] // small.shape[0]), -(-values.shape[1] // small.shape[1])
    text = f"all {count(values.shape[0], rows, many)} × {count(values.shape[1], columns)}" + _blocks(block_y, block_x)
    down = [(at, names[int(t)] if names else t) for at, t in _ticks(np.arange(values.shape[0]), height / block_y)]
    return Picture(image, text, columns, rows, _ticks(np.arange(values.shape[1]), width / block_x), down)


def _parts(view: WeightView) -> Picture:
    """Several matrices, by name where they have one: gates of a recurrent cell, or a batch of matrices."""
    values = view.values.reshape(-1, *view.values.shape[-2:])
    kept = _strongest(np.sqrt((np.nan_to_num(values, posinf=0, neginf=0) ** 2).sum((1, 2))), SIDE)
    values = values[kept]
    total, rows, columns = len(view.values.reshape(-1, *values.shape[1:])), *values.shape[1:]
    across = max(1, min(len(values), round(math.sqrt(len(values) * rows / columns * WIDE / HIGH))))
    down = -(-len(values) // across)
    gap = 10
    small = extremes(values, max(8, HIGH // down - HEADER - gap), max(8, WIDE // across - gap))
    height, width = small.shape[1:]
    factor = max(1, min((WIDE // across - gap) // width, (HIGH // down - HEADER - gap) // height, CELL))
    colours = _coloured(view, small).repeat(factor, axis=1).repeat(factor, axis=2)
    image = style.tiles(colours, across, gap=gap, header=HEADER)
    corners = style.corners(len(values), across, colours.shape[1:3], gap=gap, header=HEADER)
    names = view.weight.parts or [str(i) for i in range(total)]
    room = (colours.shape[2] + gap - 4) / style.DPI
    titles = [
        (x, y - 4.0, style.fit(names[i], room, size=style.SMALL)) for (x, y), i in zip(corners, kept, strict=True)
    ]
    says = f"{_of(len(kept), total, 'matrix', 'matrices')} of {rows:,} × {columns:,} (output × input)"
    return Picture(image, says + _blocks(-(-rows // height), -(-columns // width)), "", "", (), (), titles)


def _blocks(y: int, x: int) -> str:
    return "" if y == x == 1 else f"; each cell shows the largest magnitude of a block of {y} × {x}"


# Composing


def _coloured(view: WeightView, values: Values) -> Pixels:
    limit = reach(view)
    return style.colourise(values, style.DIVERGING, -limit, limit)


def _factor(down: int, across: int, height: int, width: int) -> int:
    """How many pixels a number may take so that so many tiles fit."""
    fitting = min((HIGH // down - 1) // height, (WIDE // across - 1) // width)
    return max(1, min(fitting, TILE // max(height, width)))


def _table(colours: Pixels, *, gap_y: int = -1, gap_x: int = -1, factor: int = 0) -> tuple[Pixels, float, float]:
    """Tiles (R, C, h, w, 3) as one image, and the distance from tile to tile down and across."""
    rows, columns, height, width = colours.shape[:4]
    factor = factor or _factor(rows, columns, height, width)
    side = factor * min(height, width)
    gap = 4 if side >= 40 else 2 if side >= 8 and (factor * width + 2) * columns <= WIDE + 2 else 1
    gap_y, gap_x = (gap if gap_y < 0 else gap_y), (gap if gap_x < 0 else gap_x)
    large = colours.repeat(factor, axis=2).repeat(factor, axis=3)
    padded = np.pad(large, ((0, 0), (0, 0), (0, gap_y), (0, gap_x), (0, 0)), constant_values=GAP)
    step_y, step_x = padded.shape[2:4]
    image = padded.transpose(0, 2, 1, 3, 4).reshape(rows * step_y, columns * step_x, 3)
    return image[: rows * step_y - gap_y, : columns * step_x - gap_x], step_y, step_x


def _lined_up(colours: Pixels, kept: NDArray[np.intp]) -> tuple[Pixels, list[tuple[float, str]]]:
    """Tiles (K, h, w, 3) in reading order, and a tick for each row: the channel that it starts with."""
    total, height, width = colours.shape[:3]
    across = max(1, min(total, round(math.sqrt(total * height / width * WIDE / HIGH)), WIDE // (width + 1)))
    down = -(-total // across)
    factor = _factor(down, across, height, width)
    gap = 3 if factor * min(height, width) >= 24 else 1
    image = style.tiles(style.enlarge(colours, factor), across, gap=gap)
    step = height * factor + gap
    every = -(-down // TICKS)
    return image, [(row * step + step / 2, str(kept[row * across])) for row in range(0, down, every)]


def _most(pixels: int, side: int) -> int:
    return max(1, min(SIDE, pixels // (side + 1)))


def _strongest(norms: NDArray[np.float64], most: int) -> NDArray[np.intp]:
    """Indices to show: all in order, or the strongest first."""
    if len(norms) <= most:
        return np.arange(len(norms))
    return np.argsort(-norms, kind="stable")[:most]


def _strongest_inputs(values: Values, most: int = 0) -> NDArray[np.intp]:
    clean = np.nan_to_num(values, posinf=0, neginf=0).astype(np.float64)
    norms = np.sqrt((clean**2).sum(axis=(0, *range(2, values.ndim))))
    return _strongest(norms, most or _most(WIDE, values.shape[-1]))


def _ticks(indices: NDArray[np.intp], step: float) -> list[tuple[float, str]]:
    """Name some places along an axis; round numbers where they are in order."""
    total = len(indices)
    ordered = bool((indices == np.arange(total)).all())
    every = -(-total // TICKS)
    if ordered and every > 1:
        scale = 10 ** math.floor(math.log10(every))
        every = next(int(f * scale) for f in (1, 2, 5, 10) if f * scale >= every)
    return [((i + 0.5) * step, str(indices[i])) for i in range(0, total, every)]


def _of(shown: int, total: int, one: str, many: str = "") -> str:
    if shown == total:
        return f"all {count(total, one, many)}" if total > 1 else f"1 {one}"
    return f"the {shown:,} strongest of {count(total, one, many)} by L2 norm, {total - shown:,} hidden"


def _shown(view: WeightView, rows: int, columns: int) -> str:
    outputs, inputs = view.values.shape[:2]
    down = _of(rows, outputs, "output channel")
    return f"{down} × {_of(columns, inputs, 'input channel')}" + (" within a group" if view.weight.groups > 1 else "")
