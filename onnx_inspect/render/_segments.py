"""How parts of a picture are told apart: a colour for each, as strong as the part is there, and a legend."""

from __future__ import annotations

import numpy as np
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from onnx_inspect.analysis.saliency import Map, Picture, Segments
from onnx_inspect.render import _style as style
from onnx_inspect.render._style import INK, SMALL, Page

# Distinct in hue and, as far as twelve can be, in lightness; the first eight are Okabe and Ito's, less black.
PALETTE = (
    "#e69f00", "#0072b2", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#f0e442",
    "#7f3c8d", "#80ba5a", "#8c564b", "#17becf", "#f781bf",
)  # fmt: skip
LEAST = 0.1  # of a part's colour where there is next to nothing of it
SQUARE = 0.09  # inches


def paint(picture: Picture, values: Map, number: NDArray[np.intp], alpha: float) -> Picture:
    """Colour each place by the part that it belongs to, over the picture in grey.

    Parameters
    ----------
    picture : ndarray, (H, W, 3), uint8
    values : ndarray, (H, W), float32, in [0, 1]
        How strong the part is; NaN where nothing is known.
    number : ndarray, (H, W), int
    alpha : float
        The share of half the strongest part's colour, beside the picture's.
    """
    known = np.sqrt(np.nan_to_num(values, nan=0.0))[..., None]  # weak parts are seen too
    share = np.minimum(1, 2 * alpha * (LEAST + (1 - LEAST) * known)) * 0.9
    grey = picture.mean(axis=2, keepdims=True)
    return np.rint(share * colours()[number] + (1 - share) * grey).astype(np.uint8)


def colours() -> NDArray[np.float32]:
    """The palette, (12, 3), in [0, 255]."""
    return np.array([[int(name[i : i + 2], 16) for i in (1, 3, 5)] for name in PALETTE], np.float32)


def legend_height(segments: Segments) -> float:
    """Inches that :func:`legend` takes."""
    return len(segments.names) * style.line_height(SMALL) + 0.08


def legend(page: Page, left: float, top: float, width: float, segments: Segments) -> None:
    """List the parts: colour, share of the picture, and what each stands for."""
    axes = page.axes(left, top, width, legend_height(segments))
    axes.set_xlim(0, width)
    axes.set_ylim(legend_height(segments), 0)
    for part, (name, share) in enumerate(zip(segments.names, segments.shares, strict=True)):
        above = 0.06 + part * style.line_height(SMALL)
        axes.add_patch(Rectangle((0, above), SQUARE, SQUARE, facecolor=PALETTE[part], edgecolor="none"))
        words = style.fit(f"{share:.0%}  {name or f'part {part + 1}'}", width - 0.15, size=SMALL, keep="start")
        page.text(left + 0.15, top + above - 0.02, words, size=SMALL, color=INK)
