"""Superpixels: numbered from 0, connected, of one colour where the picture has clear regions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import label

from onnx_inspect.cam._superpixels import grid, rectangles, slic


def picture(height: int = 40, width: int = 60) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    disc = ((y - 18) ** 2 + (x - 25) ** 2 < 120)[None] * np.array([3.0, -1, 2])[:, None, None]
    return (disc + rng.normal(0, 0.1, (3, height, width))).astype(np.float32)


def assert_numbered_and_connected(labels: NDArray[np.int64]) -> None:
    assert sorted(np.unique(labels)) == list(range(labels.max() + 1))
    for value in range(labels.max() + 1):
        assert label(labels == value)[1] == 1, f"superpixel {value} is in pieces"


@pytest.mark.parametrize("size", [(40, 60), (17, 90), (1, 64), (64, 1), (5, 4), (1, 1)])
@pytest.mark.parametrize("count", [1, 7, 50])
def test_labels_are_numbered_from_zero_and_connected(size: tuple[int, int], count: int) -> None:
    for labels in (slic(picture(*size), count, 0.5), grid(size, count)):
        assert labels.shape == size
        assert_numbered_and_connected(labels)
        assert labels.max() + 1 <= 2 * count


def test_superpixels_respect_a_clear_border() -> None:
    """Hardly a superpixel holds pixels of both the disc and the ground: the border is found within the blur."""
    image = picture()
    labels = slic(image, 30, 0.5)
    disc = image[0] > 1.5
    mixed = sum(min(disc[labels == v].sum(), (~disc)[labels == v].sum()) for v in range(labels.max() + 1))
    squares = grid(disc.shape, 30)
    mixed_squares = sum(min(disc[squares == v].sum(), (~disc)[squares == v].sum()) for v in range(squares.max() + 1))
    assert mixed < 0.25 * mixed_squares
    assert mixed < 0.1 * disc.sum()


def test_about_as_many_as_asked_for() -> None:
    for count in (10, 30, 60):
        assert 0.7 * count <= slic(picture(), count, 0.5).max() + 1 <= 1.3 * count


def test_a_constant_picture_keeps_the_lattice() -> None:
    np.testing.assert_array_equal(slic(np.full((3, 12, 20), 5.0, np.float32), 8, 0.5), grid((12, 20), 8))


def test_scale_and_offset_of_the_colours_change_nothing() -> None:
    np.testing.assert_array_equal(slic(picture(), 20, 0.5), slic(127.5 * picture() + 40, 20, 0.5))


def test_rectangles_are_equal_and_run_row_by_row() -> None:
    labels = rectangles((6, 8), (3, 2))
    np.testing.assert_array_equal(labels[::2, ::4], [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(np.bincount(labels.ravel()), 8)
