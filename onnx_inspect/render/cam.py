"""How saliency maps are drawn: laid over the original picture or behind the signal, methods side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image

from onnx_inspect import ops
from onnx_inspect.analysis.saliency import CamMap, CamPanel, Map, Picture, Segments
from onnx_inspect.render import _segments
from onnx_inspect.render import _style as style
from onnx_inspect.render._style import DPI, FAINT, INK, LABEL, MARGIN, SMALL, WARN, Page

ALPHA = 0.5  # the map's share of an overlay, as in pytorch-grad-cam's show_cam_on_image
# Inches
SIDE = 2.5  # a picture's longer side
NARROWEST = 1.6  # a column, for the captions
STRIP, LENGTH = 0.9, 7.0  # a signal's height and width
GUTTER = 0.2
COLOURBAR = 0.7
ROW = 4  # methods side by side at most


def overlay(
    picture: Picture, values: Map, *, alpha: float = ALPHA, colormap: str = style.OVERLAY, signed: bool = False
) -> Picture:
    """Lay a map over a picture: ``share * colour + (1 - share) * picture``.

    Parameters
    ----------
    picture : ndarray, (H, W, 3), uint8
    values : ndarray, (H, W), float32, in [0, 1] or, with `signed`, in [-1, 1]
        NaN where the network never saw the picture: there it is pale, grey and hatched.
    alpha : float
        The map's share, everywhere. In the signed view it is the share of full evidence, a quarter of it that of none,
        and the picture is grey, so that every colour is evidence.
    colormap : str
        Any name that matplotlib knows.

    Returns
    -------
    ndarray, (H, W, 3), uint8
    """
    seen = np.isfinite(values)
    known = np.where(seen, values, 0)[..., None]  # (H, W, 1)
    colours = style.colourise(known[..., 0], colormap, -1 if signed else 0, 1).astype(np.float32)
    share = alpha * (0.25 + 0.75 * np.abs(known)) if signed else alpha
    below = picture.mean(axis=2, keepdims=True) if signed else picture
    mixed = np.rint(share * colours + (1 - share) * below).astype(np.uint8)
    return _hatched(mixed, picture, seen)


def overlay_segments(picture: Picture, values: Map, segments: Segments, *, alpha: float = ALPHA) -> Picture:
    """Lay the parts of a picture over it, (H, W, 3), uint8, each in its colour and as strong as it is there.

    Parameters
    ----------
    values : ndarray, (H, W), float32, in [0, 1]
        NaN where the network never saw the picture.
    segments : Segments
    """
    return _hatched(_segments.paint(picture, values, segments.number, alpha), picture, np.isfinite(values))


def _hatched(mixed: Picture, picture: Picture, seen: NDArray[np.bool_]) -> Picture:
    """Hatch what the network never saw."""
    if not seen.all():
        pale = picture.mean(axis=2, keepdims=True) * 0.4 + 130
        stripes = style.hatching(*picture.shape[:2])[..., :1] < 200
        mixed[~seen] = np.broadcast_to(pale + 23 * stripes, picture.shape).astype(np.uint8)[~seen]
    return mixed


def figure_size(panels: Sequence[CamPanel]) -> tuple[float, float]:
    """Width and height in inches that :func:`draw` lays out for."""
    width = max(_width(p) for p in panels) + 2 * MARGIN + GUTTER + COLOURBAR
    return style.whole(width), style.whole(sum(_height(p, width) for p in panels) + MARGIN)


@style.styled
def draw(
    panels: Sequence[CamPanel], figure: Figure | SubFigure, *, alpha: float = ALPHA, colormap: str | None = None
) -> None:
    """Draw samples one below the other: the original at the left, then each method's overlay, four to a row.

    Parameters
    ----------
    panels : sequence of CamPanel, at least one
    figure : Figure
        Of :func:`figure_size`; on another size the layout is stretched.
    alpha : float
        The maps' share of the overlays.
    colormap : str, optional
        Any name that matplotlib knows; turbo, or the diverging map in the signed view, where None.
    """
    page = Page(figure, *figure_size(panels))
    top = 0.0
    for sample in panels:
        name = colormap or (style.DIVERGING if sample.signed else style.OVERLAY)
        body = page.heading(sample.source, _lines(sample, page.width), top=top) + MARGIN / 2
        if sample.signal is not None:
            _draw_signal(page, sample, body, name)
        else:
            _draw_pictures(page, sample, body, alpha, name)
        top += _height(sample, page.width)


def _lines(sample: CamPanel, width: float) -> style.Lines:
    return style.wrap_lines([(note, FAINT) for note in sample.notes], width - 2 * MARGIN)


# Pictures


def _cell(picture: Picture) -> tuple[int, int]:
    """Width and height in pixels that a picture is drawn with: small ones enlarged by a whole factor."""
    height, width = picture.shape[:2]
    factor = SIDE * DPI / max(height, width)
    if factor >= 2:
        factor = math.floor(factor)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _pitch(sample: CamPanel) -> float:
    """Inches from one picture to the next."""
    assert sample.picture is not None
    return max(NARROWEST, _cell(sample.picture)[0] / DPI) + GUTTER


def _width(sample: CamPanel) -> float:
    if sample.picture is None:
        return LENGTH
    return (1 + _per_row(sample)) * _pitch(sample) - GUTTER


def _per_row(sample: CamPanel) -> int:
    """Methods side by side: rows are about equally long."""
    rows = max(1, math.ceil(len(sample.maps) / ROW))
    return max(1, math.ceil(len(sample.maps) / rows))


def _height(sample: CamPanel, width: float) -> float:
    """Inches that a sample takes, its heading and the gap under it included."""
    heading = style.heading_height(len(_lines(sample, width))) + MARGIN / 2
    if sample.picture is None:
        legends = [_segments.legend_height(result.segments) for result in sample.maps if result.segments is not None]
        return heading + len(sample.maps) * (STRIP + 2 * style.line_height(SMALL) + GUTTER) + sum(legends) + MARGIN
    rows = max(1, math.ceil(len(sample.maps) / ROW))
    return heading + rows * _row(sample)


def _row(sample: CamPanel) -> float:
    """Inches from one row of pictures to the next: captions, picture, legend and gap."""
    assert sample.picture is not None
    legends = [_segments.legend_height(result.segments) for result in sample.maps if result.segments is not None]
    return _captions(sample) + _cell(sample.picture)[1] / DPI + max(legends, default=0.0) + GUTTER


def _captions(sample: CamPanel) -> float:
    lines = 3 if any(result.estimate for result in sample.maps) else 2
    return style.line_height(LABEL) + lines * style.line_height(SMALL) + 0.06


def _draw_pictures(page: Page, sample: CamPanel, top: float, alpha: float, name: str) -> None:
    assert sample.picture is not None
    size = _cell(sample.picture)
    picture = _resized(sample.picture, size)
    captions = _captions(sample)
    _caption(page, MARGIN, top, _pitch(sample) - GUTTER, "input", _extent(sample))
    _place(page, MARGIN, top + captions, picture, sample)
    for number, result in enumerate(sample.maps):
        row, column = divmod(number, _per_row(sample))
        left = MARGIN + (1 + column) * _pitch(sample)
        above = top + row * _row(sample)
        room = _pitch(sample) - GUTTER
        _caption(page, left, above, room, result.method, _says(result, room), result.layer, result.estimate)
        if result.problem:
            axes = _place(page, left, above + captions, picture, sample, result)
            _write_problem(axes, result.problem, size)
            continue
        values = _resized_map(result.values, size)
        if result.segments is not None:
            parts = replace(result.segments, number=_nearest(result.segments.number, size))
            _place(page, left, above + captions, overlay_segments(picture, values, parts, alpha=alpha), sample, result)
            _segments.legend(page, left, above + captions + size[1] / DPI, room, parts)
            continue
        mixed = overlay(picture, values, alpha=alpha, colormap=name, signed=sample.signed)
        axes = _place(page, left, above + captions, mixed, sample, result)
        _mark(axes, result, sample.picture.shape)
    if all(result.segments is not None for result in sample.maps):
        return
    bar = page.axes(MARGIN + _width(sample) + GUTTER / 2, top + captions, 0.11, min(1.8, size[1] / DPI))
    _scale(bar, name, sample)


def _place(page: Page, left: float, top: float, image: Picture, sample: CamPanel, result: CamMap | None = None) -> Axes:
    """Put an image on axes whose coordinates are the original's pixels, and outline the boxes."""
    assert sample.picture is not None
    axes = page.axes(left, top, image.shape[1] / DPI, image.shape[0] / DPI)
    style.show(axes, image, frame=True)
    height, width = sample.picture.shape[:2]
    axes.images[0].set_extent((0, width, height, 0))
    own = (result.box,) if result is not None and result.box is not None else ()
    _number(axes, sample, (width, height))
    for x0, y0, x1, y1 in (*sample.boxes, *own):
        outline = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="white", linewidth=1.2)
        outline.set_path_effects([withStroke(linewidth=2.6, foreground="black")])
        axes.add_patch(outline)
    return axes


def _number(axes: Axes, sample: CamPanel, size: tuple[int, int]) -> None:
    """Part a volume's slices by lines, and number them."""
    for x0, y0, x1, y1, number in sample.tiles:
        for line, end, draw in ((x1, size[0], axes.axvline), (y1, size[1], axes.axhline)):
            if line < end:
                draw(line, color="white", linewidth=0.8)
        text = axes.text(x0, y0, f" {number}", ha="left", va="top", fontsize=SMALL, color="white", clip_on=True)
        text.set_path_effects([withStroke(linewidth=1.6, foreground="black")])


def _mark(axes: Axes, result: CamMap, shape: tuple[int, ...]) -> None:
    """Put a cross at the strongest cell, unless that lies outside the picture."""
    if result.peak is None or not (0 <= result.peak[0] <= shape[1] and 0 <= result.peak[1] <= shape[0]):
        return
    cross = axes.plot(
        *result.peak, marker="+", markersize=9, markeredgewidth=1.3, color="white", scalex=False, scaley=False
    )
    cross[0].set_path_effects([withStroke(linewidth=2.8, foreground="black")])


def _caption(page: Page, left: float, top: float, width: float, first: str, second: str, *others: str) -> None:
    page.text(left, top, style.fit(first, width, weight="bold"), weight="bold")
    top += style.line_height(LABEL)
    page.text(left, top, style.fit(second, width, size=SMALL, keep="start"), size=SMALL, color=INK)
    for line in (line for line in others if line):
        top += style.line_height(SMALL)
        page.text(left, top, style.fit(line, width, size=SMALL), size=SMALL, color=FAINT)


def _says(result: CamMap, width: float) -> str:
    """Target and score; the score stays whole when the label is cut."""
    if result.score is None:
        return result.target
    score = f"  {style.number(result.score)}"
    return style.fit(result.target, width - style.text_width(score, size=SMALL), size=SMALL, keep="start") + score


def _write_problem(axes: Axes, problem: str, size: tuple[int, int]) -> None:
    lines = style.wrap_lines([(problem, WARN)], max(0.5, size[0] / DPI - 0.2), size=SMALL)
    text = "\n".join(line for line, _ in lines)
    box = {"facecolor": style.PAPER, "alpha": 0.88, "edgecolor": "none", "boxstyle": "square,pad=0.4"}
    axes.text(0.5, 0.03, text, transform=axes.transAxes, ha="center", va="bottom", fontsize=SMALL, color=WARN, bbox=box)


def _scale(axes: Axes, name: str, sample: CamPanel) -> None:
    style.colourbar(axes, name, -1 if sample.signed else 0, 1, "against · for" if sample.signed else sample.unit)


def _extent(sample: CamPanel) -> str:
    if sample.tiles:
        x0, y0, x1, y1, _ = sample.tiles[0]
        return f"{x1 - x0:.0f} × {y1 - y0:.0f}, {len(sample.tiles)} slices"
    assert sample.picture is not None
    return f"{sample.picture.shape[1]} × {sample.picture.shape[0]} pixels"


def _resized(picture: Picture, size: tuple[int, int]) -> Picture:
    """A picture at the paper's pixels: averaged when it is larger, kept as squares when it is far smaller."""
    way = Image.Resampling.BOX if picture.shape[1] > size[0] else Image.Resampling.BILINEAR
    if size[0] >= 2 * picture.shape[1]:
        way = Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(size, way))


def _resized_map(values: Map, size: tuple[int, int]) -> Map:
    """A map at the paper's pixels; NaN stays where it was."""
    seen = np.isfinite(values)
    smooth = ops.resize(np.where(seen, values, 0).astype(np.float32), (size[1], size[0]))
    if seen.all():
        return smooth
    shares = ops.resize(seen.astype(np.float32), (size[1], size[0]))
    return np.where(shares > 0.5, smooth / np.maximum(shares, 0.5), np.nan).astype(np.float32)


def _nearest(number: NDArray[np.intp], size: tuple[int, int]) -> NDArray[np.intp]:
    """Numbers of parts at the paper's pixels."""
    rows, columns = (np.arange(m) * n // m for n, m in zip(number.shape, size[::-1], strict=True))
    return number[np.ix_(rows, columns)]


# Signals


def _draw_signal(page: Page, sample: CamPanel, top: float, name: str) -> None:
    assert sample.signal is not None
    signal = np.asarray(sample.signal, np.float64)
    for result in sample.maps:
        layer = "".join(f"  ·  {part}" for part in (result.layer, result.estimate) if part)
        page.text(MARGIN, top, style.fit(result.method, LENGTH, weight="bold"), weight="bold")
        says = style.fit((result.problem or _says(result, LENGTH / 2)) + layer, LENGTH - 1.6, size=SMALL)
        page.text(MARGIN + 1.6, top + 0.02, says, size=SMALL, color=WARN if result.problem else INK)
        top += style.line_height(LABEL) + 0.04
        axes = page.axes(MARGIN, top, LENGTH, STRIP)
        if not result.problem:
            style.show(axes, _strip(result, name, sample.signed), stretch=True, smooth=result.segments is None)
            axes.images[0].set_extent((-0.5, signal.shape[1] - 0.5, 0, 1))
            axes.images[0].set_transform(axes.get_xaxis_transform())
        for channel in signal:
            axes.plot(np.arange(signal.shape[1]), channel, color=INK, linewidth=0.7)
        low, high = float(np.nanmin(signal)), float(np.nanmax(signal))
        axes.set_ylim(low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1))
        axes.set_xlim(-0.5, signal.shape[1] - 0.5)
        axes.set_xticks([0, signal.shape[1] - 1], ["0", str(signal.shape[1] - 1)], fontsize=SMALL)
        axes.tick_params(length=2, width=0.6, pad=2)
        if result is sample.maps[0] and result.segments is None:
            _scale(page.axes(MARGIN + LENGTH + GUTTER / 2, top, 0.11, STRIP), name, sample)
        top += STRIP + 2 * style.line_height(SMALL) - style.line_height(LABEL) + GUTTER
        if result.segments is not None:
            _segments.legend(page, MARGIN, top - GUTTER / 2, LENGTH, result.segments)
            top += _segments.legend_height(result.segments)


def _strip(result: CamMap, name: str, signed: bool) -> Picture:
    """A map as one row of pale colours, to be drawn behind a signal."""
    if result.segments is not None:
        paper = np.full((1, len(result.values), 3), 255, np.uint8)
        return _segments.paint(paper, result.values[None], result.segments.number[None], ALPHA / 2)
    colours = style.colourise(result.values[None], name, -1 if signed else 0, 1)
    return (colours * 0.5 + 127.5).astype(np.uint8)
