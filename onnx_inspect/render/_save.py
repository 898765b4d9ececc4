"""How a figure becomes a file: whole or not at all, and the same bytes from the same figure."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from onnx_inspect.atomic import replacing
from onnx_inspect.errors import OutputError
from onnx_inspect.render._style import DPI, PAPER

# How each format is written; None keeps out what the writer would add of itself or of the clock.
WRITERS: dict[str, dict[str, Any]] = {
    ".png": {
        "backend": "agg",
        "metadata": {"Software": None},
        "pil_kwargs": {"compress_level": 2},  # 6 takes up to twice as long
    },
    ".svg": {"backend": "svg", "metadata": {"Creator": None, "Date": None, "Format": None, "Type": None}},
    ".pdf": {"backend": "pdf", "metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
}
# Ids in an SVG are salted hashes: without a salt of our own they'd differ from run to run. Type is drawn as outlines in
# an SVG, since the reader's machine may lack the font, and embedded whole in a PDF, where it stays searchable.
SETTINGS: Any = {"svg.hashsalt": "onnx-inspect", "svg.fonttype": "path", "pdf.fonttype": 42}


def drawn(renderer: Any, result: Any) -> Figure:
    """Draw a result with its renderer (a module with `figure_size` and `draw`) on a figure of its own."""
    figure = Figure(figsize=renderer.figure_size(result))
    renderer.draw(result, figure)
    return figure


def png(figure: Figure) -> bytes:
    """A figure as the PNG file that :func:`save` would write."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(buffer, format="png", dpi=DPI, facecolor=PAPER, **WRITERS[".png"])
    return buffer.getvalue()


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """A figure as a picture, (H, W, 3), uint8."""
    with Image.open(io.BytesIO(png(figure))) as picture:
        return np.asarray(picture.convert("RGB"))


def save(figure: Figure, path: str | Path, *, dpi: float = DPI) -> None:
    """Write a figure as PNG, SVG or PDF, by the path's suffix.

    Parameters
    ----------
    figure : Figure
        Left as it was.
    path : str or Path
        Written beside and renamed, so that a failure leaves what was there before.
    dpi : float
        Pixels per inch of a PNG, and of the pictures inside an SVG or PDF.

    Raises
    ------
    OutputError
        The suffix names no format, or the place can't be written.
    """
    suffix = check(path)
    with replacing(path) as temporary, matplotlib.rc_context(SETTINGS):
        figure.savefig(temporary, format=suffix[1:], dpi=dpi, facecolor=PAPER, **WRITERS[suffix])


def check(path: str | Path) -> str:
    """Return the path's suffix in lower case; to be called before any work whose result would be saved there.

    Raises
    ------
    OutputError
        It is not .png, .svg or .pdf.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in WRITERS:
        known = ", ".join(WRITERS)
        raise OutputError(
            f"can't draw {path}: figures are {known}, not {suffix or 'without a suffix'}; name one of them"
        )
    return suffix
