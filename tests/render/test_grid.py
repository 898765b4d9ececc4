"""Whether tiles of any shape and number share one picture without overlap, and each keeps its own pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_inspect.render import _grid as grids
from onnx_inspect.render._style import DPI


@given(count=st.integers(1, 130), height=st.integers(1, 400), width=st.integers(1, 400))
def test_a_plan_holds_every_tile_on_a_sensible_piece_of_paper(count: int, height: int, width: int) -> None:
    grid = grids.plan(count, (height, width))
    assert 1 <= grid.columns <= count
    assert grid.tile[1] * grid.scale >= grids.NARROW
    assert grid.cell[0] <= height
    assert grid.cell[1] <= width
    corners = grid.corners
    assert len(set(corners)) == count
    right = max(x for x, _ in corners) + grid.tile[1]
    bottom = max(y for _, y in corners) + grid.tile[0]
    across, down = (inches * DPI / grid.scale for inches in grid.size)
    assert right <= across + 1e-6
    assert bottom == pytest.approx(down)


@pytest.mark.parametrize(("count", "columns"), [(64, 8), (16, 4), (3, 3), (1, 1), (24, 6), (48, 8), (7, 4)])
def test_square_maps_fill_about_a_square(count: int, columns: int) -> None:
    assert grids.plan(count, (14, 14)).columns == columns


def test_few_maps_are_drawn_large_but_not_huge() -> None:
    side = grids.plan(1, (7, 7)).tile[0] * grids.plan(1, (7, 7)).scale
    assert 0.6 * grids.TILE <= side <= 1.3 * grids.TILE


def test_each_tile_shows_its_own_map() -> None:
    colours = np.random.default_rng(0).integers(0, 255, (5, 6, 4, 3)).astype(np.uint8)
    grid = grids.plan(5, (6, 4))
    image = grids.compose(colours, grid)
    height, width = 6 * grid.factor, 4 * grid.factor
    for (x, y), expected in zip(grid.corners, colours, strict=True):
        np.testing.assert_array_equal(image[y : y + height : grid.factor, x : x + width : grid.factor], expected)


def test_a_gauge_is_as_long_as_its_share() -> None:
    grid = grids.plan(3, (9, 9))
    image = grids.compose(np.zeros((3, 9, 9, 3), np.uint8), grid, gauges=np.array([0.0, 0.5, 1.0]))
    lengths = []
    for x, y in grid.corners:
        header = image[y - grid.header : y, x : x + grid.tile[1]]
        lengths.append(int((header == grids.DARK).all(axis=2).any(axis=0).sum()))
    full = round(grid.tile[1] * 0.4)
    assert lengths == [0, round(full * 0.5), full]


def test_a_dead_tile_is_hatched_grey() -> None:
    grid = grids.plan(2, (5, 5))
    image = grids.compose(np.full((2, 5, 5, 3), (10, 200, 30), np.uint8), grid, dead=np.array([False, True]))
    (x0, y0), (x1, y1) = grid.corners
    tile = image[y1 : y1 + grid.tile[0], x1 : x1 + 5 * grid.factor]
    assert (tile[..., 0] == tile[..., 1]).all()
    assert len(np.unique(tile[..., 0])) == 2
    assert image[y0, x0].tolist() == [10, 200, 30]


def test_maps_finer_than_the_paper_are_averaged() -> None:
    stack = np.random.default_rng(0).random((64, 448, 448))
    grid = grids.plan(64, (448, 448))
    assert grid.cell == (112, 112)
    np.testing.assert_allclose(grids.shrink(stack, grid)[0, 0, 0], stack[0, :4, :4].mean(), rtol=1e-12)
