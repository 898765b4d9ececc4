"""How tokens are set as lines of type, each on a ground of its own colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.collections import PolyCollection
from numpy.typing import NDArray

from onnx_inspect.render import _style as style
from onnx_inspect.render._style import FAINT, INK, Page

TYPE = 10.0  # points
LEADING = 0.3  # inches from line to line
GROUND = 0.225  # a ground's height
PAD, SPACE = 0.03, 0.055  # inches beside a token inside its ground, and between two grounds


@dataclass(frozen=True)
class Set:
    """Where a token stands: inches from the block's left edge, its line, and the width of its ground."""

    text: str
    left: float
    line: int
    width: float


def lay(pieces: Sequence[str], glued: Sequence[bool], width: float) -> tuple[list[Set], int]:
    """Break tokens into lines of a width in inches; one that is longer than a line is shortened.

    Tokens that follow without a space stay with the one before them, unless they fill more than a line together.

    Returns
    -------
    places : list of Set
    lines : int
    """
    texts = [style.fit(piece, width - 2 * PAD, size=TYPE, keep="start") for piece in pieces]
    widths = [style.text_width(text, size=TYPE) + 2 * PAD for text in texts]
    places, left, line = [], 0.0, 0
    for i, (text, own) in enumerate(zip(texts, widths, strict=True)):
        if not glued[i]:
            group = own + sum(widths[j] for j in range(i + 1, _group_end(glued, i)))
            left += SPACE if left else 0.0
            if left and left + min(group, width) > width:
                left, line = 0.0, line + 1
        elif left + own > width:
            left, line = 0.0, line + 1
        places.append(Set(text, left, line, own))
        left += own
    return places, line + 1


def _group_end(glued: Sequence[bool], start: int) -> int:
    end = start + 1
    while end < len(glued) and glued[end]:
        end += 1
    return end


def draw(
    page: Page, left: float, top: float, places: Sequence[Set], colours: NDArray[np.uint8], grounded: Sequence[bool]
) -> None:
    """Put tokens on a page: on their colours (T, 3) where `grounded`, else in faint type on plain paper."""
    corners, faces = [], []
    for place, colour, there in zip(places, colours, grounded, strict=True):
        x, y = left + place.left, top + place.line * LEADING
        if there:
            box = ((x, y), (x + place.width, y), (x + place.width, y + GROUND), (x, y + GROUND))
            corners.append([(a / page.width, 1 - b / page.height) for a, b in box])
            faces.append(np.asarray(colour) / 255)
    if corners:
        ground = PolyCollection(
            corners, facecolors=faces, edgecolors="none", antialiaseds=False, transform=page.figure.transFigure
        )
        page.figure.add_artist(ground)
    for place, colour, there in zip(places, colours, grounded, strict=True):
        middle = top + place.line * LEADING + GROUND / 2
        page.text(
            left + place.left + PAD,
            middle,
            place.text,
            size=TYPE,
            va="center_baseline",
            color=contrasting(colour) if there else FAINT,
        )


def contrasting(colour: NDArray[np.uint8]) -> str:
    """Ink or white, whichever can be read on a colour (r, g, b)."""
    linear = (np.asarray(colour, np.float64) / 255) ** 2.2
    return INK if float(linear @ (0.2126, 0.7152, 0.0722)) > 0.22 else "white"
