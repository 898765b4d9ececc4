"""How one picture over the checkpoints is drawn: side by side in a figure, and one after the other in a GIF."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties, findfont
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from onnx_inspect.analysis.strip import Strip
from onnx_inspect.atomic import replacing
from onnx_inspect.render import _style as style
from onnx_inspect.render import cam
from onnx_inspect.render._style import DPI, FAINT, LABEL, MARGIN, SMALL, Page

# Inches
SIDE = 1.5
GUTTER, CAPTIONS, COLOURBAR = 0.14, 0.36, 0.75
SLIM = 0.3  # of a side: what a signal's single row is drawn as, at least
ROW = 7  # frames side by side
# Pixels of a GIF
SCREEN, BANNER, FONT = 320, 40, 17
PAPER, LETTERS, SMALLER, BAR = "#ffffff", "#1f2328", "#57606a", "#0969da"
NEAR = 8  # of 255: colours that are taken for one
PACE = 700  # milliseconds of a frame
HOLD = 2  # how many times as long the last one stays

Picture = NDArray[np.uint8]


def figure_size(strip: Strip) -> tuple[float, float]:
    """Width and height in inches that :func:`draw` lays out for."""
    width, height = _cell(strip)
    count = len(strip.labels) + (strip.picture is not None)
    columns = min(ROW, count)
    rows = math.ceil(count / columns)
    across = 2 * MARGIN + columns * (_pitch(width)) + COLOURBAR
    return style.whole(max(across, 4.0)), style.whole(
        style.heading_height(1) + MARGIN / 2 + rows * (CAPTIONS + height + GUTTER) + MARGIN
    )


@style.styled
def draw(strip: Strip, figure: Figure | SubFigure) -> None:
    """Draw the input and its frames from left to right, each below its checkpoint's name.

    Parameters
    ----------
    strip : Strip
    figure : Figure
        Of :func:`figure_size`; on another size the layout is stretched.
    """
    page = Page(figure, *figure_size(strip))
    top = page.heading(_short(strip.source), [(strip.what, FAINT)]) + MARGIN / 2
    width, height = _cell(strip)
    shown: list[tuple[str, str, Picture]] = []
    if strip.picture is not None:
        shown.append(("input", f"{strip.picture.shape[1]} × {strip.picture.shape[0]} pixels", strip.picture))
    shown += zip(strip.labels, strip.captions, frames(strip), strict=True)
    columns = min(ROW, len(shown))
    for number, (label, caption, image) in enumerate(shown):
        row, column = divmod(number, columns)
        left, above = MARGIN + column * _pitch(width), top + row * (CAPTIONS + height + GUTTER)
        room = _pitch(width) - GUTTER
        page.text(left, above, style.fit(label, room, weight="bold"), weight="bold")
        below = above + style.line_height(LABEL)
        page.text(left, below, style.fit(caption, room, size=SMALL, keep="start"), size=SMALL, color=FAINT)
        resized = _resized(image, (round(width * DPI), round(height * DPI)))
        style.show(page.axes(left, above + CAPTIONS, width, height), resized, frame=True)
    bar = page.axes(MARGIN + columns * _pitch(width) + 0.06, top + CAPTIONS, 0.1, min(height, 1.4))
    low, high, name = _scale(strip)
    style.colourbar(bar, name, low, high, "relative evidence" if strip.over else "activation")


def frames(strip: Strip) -> list[Picture]:
    """The maps as pictures, (h, w, 3), uint8: over the input, or by themselves on one scale for all."""
    if strip.over and strip.picture is not None:
        return [cam.overlay(strip.picture, values) for values in strip.maps]
    low, high, name = _scale(strip)
    return [style.colourise(values, name, low, high) for values in strip.maps]


def gif_frames(strip: Strip) -> list[Image.Image]:
    """The frames of the GIF: each picture under a banner with its checkpoint's name and a bar of how far it is."""
    found = []
    font = ImageFont.truetype(findfont(FontProperties(family="DejaVu Sans")), FONT)
    small = font.font_variant(size=12)
    for number, (label, caption, image) in enumerate(zip(strip.labels, strip.captions, frames(strip), strict=True)):
        height, width = image.shape[:2]
        factor = SCREEN / max(height, width)
        size = max(160, round(width * factor)), max(1, round(height * factor))
        frame = Image.new("RGB", (size[0], size[1] + BANNER), PAPER)
        frame.paste(Image.fromarray(_resized(image, (round(width * factor), size[1]))), (0, BANNER))
        pen = ImageDraw.Draw(frame)
        pen.text((6, 3), _cut(label, font, size[0] - 12), fill=LETTERS, font=font)
        pen.text((6, 23), _cut(caption, small, size[0] - 12), fill=SMALLER, font=small)
        pen.rectangle((0, BANNER - 3, round(size[0] * (number + 1) / len(strip.labels)), BANNER - 1), fill=BAR)
        found.append(frame)
    return found


def save_gif(strip: Strip, path: str | Path) -> None:
    """Write the frames as a GIF that turns for ever, one palette for all.

    Raises
    ------
    OutputError
        The place can't be written.
    """
    made = gif_frames(strip)
    palette = _palette(made)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in made]
    pace = [PACE] * (len(indexed) - 1) + [PACE * HOLD]
    with replacing(path) as temporary:
        indexed[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=indexed[1:],
            duration=pace,
            loop=0,
            optimize=False,
            disposal=1,
        )


def _palette(made: list[Image.Image]) -> Image.Image:
    """One palette for all frames, in which the banner's colours are exact."""
    whole = Image.new("RGB", (made[0].width, sum(frame.height for frame in made)))
    for number, frame in enumerate(made):
        whole.paste(frame, (0, number * frame.height))
    own = np.array([ImageColor.getrgb(colour) for colour in (PAPER, LETTERS, SMALLER, BAR)])
    mixed = whole.quantize(colors=256 - len(own), method=Image.Quantize.MEDIANCUT).getpalette() or []
    others = np.array(mixed, np.int64).reshape(-1, 3)
    near = np.abs(others[:, None] - own).max(axis=2).min(axis=1) < NEAR  # Pillow's search would take these instead
    palette = Image.new("P", (1, 1))
    palette.putpalette([int(v) for v in np.concatenate([own, others[~near]])[:256].ravel()])
    return palette


def _cut(text: str, font: ImageFont.FreeTypeFont, room: int) -> str:
    text = style.clean(text)
    while len(text) > 1 and font.getlength(text) > room:
        text = text[:-2] + "…"
    return text


def _scale(strip: Strip) -> tuple[float, float, str]:
    if strip.over:
        return 0.0, 1.0, style.OVERLAY
    return style.limits(np.concatenate([values.ravel() for values in strip.maps]))


def _cell(strip: Strip) -> tuple[float, float]:
    """Width and height in inches of a frame."""
    height, width = strip.maps[0].shape if strip.picture is None else strip.picture.shape[:2]
    return SIDE * max(SLIM, min(1.0, width / height)), SIDE * max(SLIM, min(1.0, height / width))


def _pitch(width: float) -> float:
    return max(width, 1.0) + GUTTER


def _resized(image: Picture, size: tuple[int, int]) -> Picture:
    """An image at (width, height) pixels: averaged when it is larger, its cells kept as squares when far smaller."""
    way = Image.Resampling.BOX if image.shape[1] > size[0] else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((max(1, size[0]), max(1, size[1])), way))


def _short(source: str) -> str:
    return source.replace("\\", "/").rsplit("/", 1)[-1]
