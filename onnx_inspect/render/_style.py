"""How every figure looks: colours, sizes, type, and stacks of small maps composed into one image."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from numpy.typing import ArrayLike, NDArray

from onnx_inspect.render._artists import Labels, Pixels
from onnx_inspect.render._fonts import Weight, characters, ems, families

# Colour. Magnitude: perceptually uniform, dark is little. Signed: white is 0. Overlays: turbo, which users of
# pytorch-grad-cam read as its jet, without jet's false edges; any matplotlib name may be asked for instead.
SEQUENTIAL = "viridis"
DIVERGING = "RdBu_r"
OVERLAY = "turbo"
PAPER = "white"
INK = "#1f2328"
FAINT = "#6e7781"
RULE = "#d0d7de"
WARN = "#b35900"
BAD = (255, 0, 255)  # NaN and infinity; none of the three maps comes near magenta
BAD_NAME = "magenta"

# Size. Points for type, inches for space.
TITLE = 11.0
LABEL = 8.5
SMALL = 6.5
MARGIN = 0.2
DPI = 120

Lines = list[tuple[str, str]]  # text, colour

P = ParamSpec("P")
R = TypeVar("R")


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a `draw`: the user's matplotlibrc neither changes our figures nor is changed by them."""

    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(_settings()):
            return function(*args, **kwargs)

    return inner


@dataclass(frozen=True)
class Page:
    """A figure measured in inches from its top left corner, of the size that a layout is for; else it is stretched."""

    figure: Figure | SubFigure
    width: float
    height: float

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes without ticks or frame, `width` x `height` inches, on whole pixels so that images stay crisp."""
        left, top, width, height = (round(x * DPI) / DPI for x in (left, top, width, height))
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    def text(self, left: float, top: float, text: str, *, size: float = LABEL, **options: Any) -> Text:
        """One line of text whose top left corner is there; `options` are matplotlib's own."""
        options = {"ha": "left", "va": "top", "color": INK} | options
        return self.figure.text(left / self.width, 1 - top / self.height, clean(text), fontsize=size, **options)

    def heading(self, title: str, lines: Lines, *, left: float = MARGIN, top: float = 0.0) -> float:
        """Write a bold title and (text, colour) lines under it, shortened to the page; return where they end.

        To have long lines broken instead, pass them through :func:`wrap_lines` first.
        """
        room = self.width - left - MARGIN
        top += MARGIN
        self.text(left, top, fit(title, room, size=TITLE, weight="bold"), size=TITLE, weight="bold")
        top += line_height(TITLE)
        for text, colour in lines:
            self.text(left, top, fit(text, room), color=colour)
            top += line_height(LABEL)
        return top


def line_height(size: float) -> float:
    """Inches from one line to the next for a type size in points."""
    return size * 1.45 / 72


def whole(inches: float) -> float:
    """Inches rounded up to whole pixels."""
    return math.ceil(inches * DPI) / DPI


def heading_height(lines: int) -> float:
    """Inches that `Page.heading` takes for a title and this many lines."""
    return MARGIN + line_height(TITLE) + lines * line_height(LABEL)


def clean(text: str) -> str:
    """Text that our fonts can show, on one line: control characters become spaces, unknown ones a white square.

    Examples
    --------
    >>> clean("a" + chr(10) + "b")
    'a b'
    """
    text = "".join(c if c.isprintable() else " " for c in text)
    if text.isascii():
        return text
    known = characters()
    return "".join(c if ord(c) in known else "\N{WHITE SQUARE}" for c in text)


def fit(
    text: str, width: float, *, size: float = LABEL, weight: Weight = "normal", keep: Literal["ends", "start"] = "ends"
) -> str:
    """Shorten text to a width by an ellipsis: in the middle, as a layer's name tells most at its ends, or at the end.

    Parameters
    ----------
    width : float
        Inches to fit in.
    size : float
        Type size in points.

    Returns
    -------
    str
        The text itself where it fits; at least the ellipsis.
    """
    text = clean(text)
    if text_width(text, size=size, weight=weight) <= width:
        return text
    low, high = 0, len(text)  # the most characters kept that still fit, by bisection
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(_shorten(text, middle, keep), size=size, weight=weight) <= width:
            low = middle
        else:
            high = middle - 1
    return _shorten(text, low, keep)


def wrap_lines(lines: Lines, width: float, *, size: float = LABEL) -> Lines:
    """Break (text, colour) lines between words to fit a width in inches; a word that can't is shortened."""
    broken: Lines = []
    for text, colour in lines:
        current = ""
        for word in clean(text).split(" "):
            longer = f"{current} {word}".lstrip()
            if current and text_width(longer, size=size) > width:
                broken.append((fit(current, width, size=size), colour))
                longer = word
            current = longer
        broken.append((fit(current, width, size=size), colour))
    return broken


def text_width(text: str, *, size: float = LABEL, weight: Weight = "normal") -> float:
    """Inches that a line of text takes."""
    return ems(clean(text), weight) * size / 72


def lut(name: str) -> NDArray[np.uint8]:
    """Look a colour map up as a read-only table, (256, 3), uint8."""
    return _lut(name)


def limits(values: ArrayLike) -> tuple[float, float, str]:
    """Range and colour map that suit the finite values.

    Returns
    -------
    low, high : float
        Smallest and largest; symmetric about 0 where any value is negative; (0, 0) where none is finite.
    name : str
        `DIVERGING` where any value is negative, else `SEQUENTIAL`.
    """
    array = np.asarray(values)
    finite = array[np.isfinite(array)]
    if not finite.size:
        return 0.0, 0.0, SEQUENTIAL
    low, high = float(finite.min()), float(finite.max())
    if low < 0:
        reach = max(-low, high)
        return -reach, reach, DIVERGING
    return low, high, SEQUENTIAL


def colourise(values: ArrayLike, name: str, low: ArrayLike, high: ArrayLike) -> NDArray[np.uint8]:
    """Turn values into colours through a lookup table.

    Parameters
    ----------
    values : array_like, (...)
        Any real dtype.
    low, high : array_like
        The values that get the first and the last colour, broadcast to `values`; a zero range gives the middle one.

    Returns
    -------
    ndarray, (..., 3), uint8
        NaN and infinity are magenta (`BAD`).
    """
    array = np.asarray(values, np.float64)
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    span = high - low
    finite = np.isfinite(array)
    with np.errstate(invalid="ignore"):
        unit = np.where(span > 0, (array - low) / np.where(span > 0, span, 1), 0.5)
    index = np.where(finite, np.clip(unit, 0, 1) * 255 + 0.5, 0).astype(np.uint8)
    colours = lut(name)[index]
    if not finite.all():
        colours[~finite] = BAD
    return colours


def enlarge(stack: NDArray[Any], factor: int) -> NDArray[Any]:
    """Repeat each cell of (K, h, w) or (K, h, w, 3) `factor` times along both sides."""
    return stack if factor == 1 else stack.repeat(factor, axis=1).repeat(factor, axis=2)


def reduced(size: tuple[int, int], most: int) -> tuple[int, int]:
    """Height and width that `reduce` gives."""
    factor = max(1, -(-max(size) // most))
    return size[0] // min(factor, size[0]), size[1] // min(factor, size[1])


def reduce(image: NDArray[Any], most: int) -> NDArray[Any]:
    """Average blocks of (..., h, w) so that neither side has more than `most` cells; small ones come back as they are.

    Averages are float64, put back into integers where the image has them; NaN spreads over its block.
    """
    height, width = reduced((image.shape[-2], image.shape[-1]), most)
    step_y, step_x = image.shape[-2] // height, image.shape[-1] // width
    if step_y == step_x == 1:
        return image
    total = np.zeros((*image.shape[:-2], height, width))
    for y in range(step_y):  # far faster than the mean of a six-dimensional view
        for x in range(step_x):
            total += image[..., y : height * step_y : step_y, x : width * step_x : step_x]
    total /= step_y * step_x
    return total.astype(image.dtype) if image.dtype.kind in "iu" else total


def tiles(
    stack: NDArray[np.uint8], columns: int, *, gap: int = 1, header: int = 0, background: int | tuple[int, ...] = 255
) -> NDArray[np.uint8]:
    """Compose equal tiles into ONE image, row by row: a hundred times cheaper to draw than one axes each.

    Parameters
    ----------
    stack : ndarray, (K, h, w) or (K, h, w, 3), uint8
        Grey or colour tiles, K at least 1.
    columns : int
        Tiles in a row.
    gap : int
        Pixels between tiles; none around them.
    header : int
        Further pixels above each tile, for a label.
    background : int or (r, g, b)
        Colour of gaps and headers, and of places that no tile takes.

    Returns
    -------
    ndarray, (H, W, 3), uint8
        W = columns * (w + gap) - gap; H = rows * (h + header + gap) - gap.

    Examples
    --------
    >>> tiles(np.zeros((3, 2, 2), np.uint8), 2)[..., 0]
    array([[  0,   0, 255,   0,   0],
           [  0,   0, 255,   0,   0],
           [255, 255, 255, 255, 255],
           [  0,   0, 255, 255, 255],
           [  0,   0, 255, 255, 255]], dtype=uint8)
    """
    if stack.ndim == 3:
        stack = np.broadcast_to(stack[..., None], (*stack.shape, 3))
    count, height, width, _ = stack.shape
    rows = -(-count // columns)
    canvas = np.empty((rows * columns, header + height + gap, width + gap, 3), np.uint8)
    canvas[...] = background
    canvas[:count, header : header + height, :width] = stack
    grid = canvas.reshape(rows, columns, *canvas.shape[1:]).transpose(0, 2, 1, 3, 4)  # (rows, y, columns, x, 3)
    image = grid.reshape(rows * canvas.shape[1], columns * canvas.shape[2], 3)
    return image[: image.shape[0] - gap, : image.shape[1] - gap]


def corners(count: int, columns: int, size: tuple[int, int], *, gap: int = 1, header: int = 0) -> list[tuple[int, int]]:
    """Pixel (x, y) of each tile's top left corner in what `tiles` composes, below its header."""
    height, width = size
    return [((i % columns) * (width + gap), (i // columns) * (height + header + gap) + header) for i in range(count)]


def hatching(height: int, width: int) -> NDArray[np.uint8]:
    """Give a tile that can't be taken for data: pale diagonal stripes, (height, width, 3)."""
    period = min(12, max(4, min(height, width) // 4))
    stripe = (np.add.outer(np.arange(height), np.arange(width)) % period) < max(1, period // 4)
    return np.where(stripe[..., None], np.uint8(196), np.uint8(232)).repeat(3, axis=2)


def show(
    axes: Axes, image: NDArray[np.uint8], *, frame: bool = False, smooth: bool = False, stretch: bool = False
) -> None:
    """Put an image (H, W, 3) on axes, pixel (0, 0) in the top left corner, optionally in a thin frame.

    `smooth` averages where the image has more pixels than the paper, else cells stay sharp; `stretch` fills the axes
    instead of keeping cells square.
    """
    artist = Pixels(axes, interpolation="auto" if smooth else "nearest", origin="upper")
    artist.set_data(image)
    axes.set_aspect("auto" if stretch else "equal")
    axes.add_image(artist)
    artist.set_extent(artist.get_extent())
    if frame:
        for spine in axes.spines.values():
            spine.set(visible=True, color=RULE, linewidth=0.6)


def label(axes: Axes, places: Sequence[tuple[float, float]], texts: Sequence[str], *, size: float = SMALL) -> None:
    """Write many short texts, each with the left end of its baseline at (x, y) of the data; much faster than `text`."""
    font = FontProperties(family=families(), size=size)
    axes.add_artist(Labels(places, [clean(t) for t in texts], font, INK))


def colourbar(axes: Axes, name: str, low: float, high: float, label: str = "") -> None:
    """Make axes that are higher than wide a colour bar from `low` to `high`, its ticks and label on the right."""
    axes.imshow(lut(name)[:, None], origin="lower", aspect="auto", extent=(0, 1, 0, 1))
    middle = (low + high) / 2
    axes.set_yticks([0, 0.5, 1], [number(low), number(middle), number(high)], fontsize=SMALL)
    axes.yaxis.tick_right()
    axes.tick_params(axis="y", length=2, width=0.6, pad=2, colors=FAINT)
    if label:
        axes.yaxis.set_label_position("right")
        axes.set_ylabel(clean(label), fontsize=SMALL, color=FAINT, labelpad=3)


def number(value: float) -> str:
    """Write a number in at most about six characters.

    Examples
    --------
    >>> [number(v) for v in (0, 3.14159, -0.00001234, 12345.6)]
    ['0', '3.14', '−1.2e−05', '1.23e+04']
    """
    return (f"{value:.2g}" if abs(value) < 1e-3 else f"{value:.3g}").replace("-", "−")


def count(number: int, one: str, many: str = "") -> str:
    """Say how many: ``1 channel``, ``1,024 channels``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _shorten(text: str, kept: int, keep: str) -> str:
    if keep == "start":
        return text[:kept].rstrip() + "…"
    tail = kept // 2
    return text[: kept - tail].rstrip() + "…" + (text[len(text) - tail :].lstrip() if tail else "")


@functools.cache
def _lut(name: str) -> NDArray[np.uint8]:
    table = (colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255 + 0.5).astype(np.uint8)
    table.setflags(write=False)
    return table


def _settings() -> Any:
    return {
        "font.family": families(),
        "text.color": INK,
        "text.parse_math": False,  # a layer's name or a label may hold dollar signs
        "text.usetex": False,
        "axes.labelcolor": INK,
        "axes.facecolor": PAPER,
        "axes.unicode_minus": True,
        "axes.grid": False,
        "axes.linewidth": 0.6,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "image.interpolation": "auto",
    }
