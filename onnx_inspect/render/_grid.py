"""How many equal maps share one picture: columns, sizes in pixels, labels, and the image composed of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.render import _style as style
from onnx_inspect.render._style import DPI, Page

# Pixels of the paper
PLANE = 820  # a grid's side, about
TILE = 220  # a tile's longer side at most, about
NARROW = 46  # a tile is padded to this, for its label
GAP, HEADER, GAUGE = 5, 15, 4
DARK, PALE = (101, 109, 118), (232, 232, 232)  # of a gauge


@dataclass(frozen=True)
class Grid:
    """A composed image in pixels, each of which takes `scale` x `scale` pixels of the paper.

    Drawing by repetition is far faster than by interpolation, so cells, gaps and headers are whole numbers of pixels.
    """

    count: int
    columns: int
    cell: tuple[int, int]  # the maps' height and width, after averaging
    factor: int  # pixels that one cell of a map takes along each side
    scale: int
    gap: int
    header: int

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of a tile with its padding."""
        return self.cell[0] * self.factor, max(self.cell[1] * self.factor, -(-NARROW // self.scale))

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        rows = -(-self.count // self.columns)
        across = self.columns * (self.tile[1] + self.gap) - self.gap
        down = rows * (self.tile[0] + self.header + self.gap) - self.gap
        return across * self.scale / DPI, down * self.scale / DPI

    @property
    def head(self) -> float:
        """Inches above the first row's tiles."""
        return self.header * self.scale / DPI

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Each tile's top left pixel (x, y)."""
        return style.corners(self.count, self.columns, self.tile, gap=self.gap, header=self.header)


def plan(count: int, cell: tuple[int, int], *, columns: int | None = None) -> Grid:
    """Lay out `count` maps of a height and width on about a square of paper, with few places left empty.

    Maps with more cells than their place has pixels are to be averaged to the grid's `cell` by :func:`shrink`.
    """
    columns = columns or _columns(count, cell)
    longer = max(cell)
    room = min(TILE, PLANE / columns * longer / cell[1], PLANE / math.ceil(count / columns) * longer / cell[0])
    shrunk = style.reduced(cell, round(1.45 * room))
    enlargement = max(1, round(room / max(shrunk)))
    factor = -(-enlargement // 4)
    scale = enlargement // factor
    return Grid(count, columns, shrunk, factor, scale, max(1, round(GAP / scale)), -(-HEADER // scale))


def shrink(stack: NDArray[np.generic], grid: Grid) -> NDArray[np.generic]:
    """Average maps (K, h, w) to the grid's cells."""
    return style.reduce(stack, max(grid.cell))


def compose(
    colours: NDArray[np.uint8],
    grid: Grid,
    *,
    dead: NDArray[np.bool_] | None = None,
    gauges: NDArray[np.float64] | None = None,
) -> NDArray[np.uint8]:
    """Make one image (H, W, 3) of coloured maps (K, h, w, 3).

    `dead` maps are hatched instead, so that nobody takes them for data; `gauges` in [0, 1] draws a bar above each tile.
    """
    enlarged = style.enlarge(colours, grid.factor)
    if dead is not None and dead.any():
        enlarged = enlarged.copy()
        enlarged[dead] = style.hatching(*enlarged.shape[1:3])
    padding = grid.tile[1] - enlarged.shape[2]
    padded = np.pad(enlarged, ((0, 0), (0, 0), (0, padding), (0, 0)), constant_values=255)
    image = style.tiles(padded, grid.columns, gap=grid.gap, header=grid.header)
    if gauges is not None:
        full, thick = max(1, round(grid.tile[1] * 0.4)), max(1, round(GAUGE / grid.scale))
        for (x, y), share in zip(grid.corners, gauges, strict=True):
            rows = slice(y - 2 * thick, y - thick)
            start = x + grid.tile[1] - full
            image[rows, start : start + full] = PALE
            image[rows, start : start + round(full * float(share))] = DARK
    return image


def draw(page: Page, left: float, top: float, image: NDArray[np.uint8], grid: Grid, labels: list[str]) -> None:
    """Put a composed image on a page, and each tile's label above it."""
    axes = page.axes(left, top, *grid.size)
    style.show(axes, image)
    style.label(axes, [(x - 0.5, y - 0.5 - 3 / grid.scale) for x, y in grid.corners], labels)


def _columns(count: int, cell: tuple[int, int]) -> int:
    """Columns that make the whole about square, or up to 1.6 times as wide where that leaves fewer places empty."""
    square = math.sqrt(count * cell[0] / cell[1])
    least = min(count, max(1, round(square)))
    most = min(count, max(1, round(1.6 * square)))
    return min(range(least, most + 1), key=lambda c: (-count % c, abs(c - 1.1 * square)))
