from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from onnx_inspect.inputs.placement import Placement, Resize, place
from onnx_inspect.inputs.preprocess import Preprocess

MODES: tuple[Resize, ...] = ("stretch", "crop", "letterbox")
side = st.integers(8, 90)
size = st.tuples(side, side)


@settings(max_examples=60, deadline=None)
@given(original=size, plane=size, mode=st.sampled_from(MODES), x=st.floats(0, 1), y=st.floats(0, 1))
def test_locate_undoes_point(original, plane, mode, x, y):
    placement = place(original, plane, mode)
    assert placement.locate(*placement.point(x, y)) == pytest.approx((x, y), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(original=size, plane=size)
def test_each_mode_covers_what_it_promises(original, plane):
    top_left, bottom_right = (
        place(original, plane, "stretch").point(0, 0),
        place(original, plane, "stretch").point(1, 1),
    )
    assert top_left == (0, 0) and bottom_right == pytest.approx((original[1], original[0]))
    crop = place(original, plane, "crop")
    left, top = crop.point(0, 0)
    right, bottom = crop.point(1, 1)
    assert left >= 0 and top >= 0 and right <= original[1] + 1e-9 and bottom <= original[0] + 1e-9
    x0, y0 = place(original, plane, "letterbox").locate(0, 0)
    x1, y1 = place(original, plane, "letterbox").locate(original[1], original[0])
    assert min(x0, y0) >= 0 and max(x1, y1) <= 1 + 1e-9


@pytest.mark.parametrize("original", [(300, 500), (500, 300), (257, 257), (40, 90)])
def test_crop_is_torchvisions_resize_256_and_centre_crop_224(original):
    picture = np.random.default_rng(0).integers(0, 256, (*original, 3), np.uint8)
    image = Image.fromarray(picture)
    short, long = sorted((image.width, image.height))
    resized = (256, int(256 * long / short)) if image.width <= image.height else (int(256 * long / short), 256)
    image = image.resize(resized, Image.Resampling.BILINEAR)
    left, top = round((image.width - 224) / 2.0), round((image.height - 224) / 2.0)
    expected = np.asarray(image.crop((left, top, left + 224, top + 224)))
    made, _ = Preprocess((224, 224), "crop", "NHWC", "RGB", 1.0, (0, 0, 0), (1, 1, 1)).apply(picture)
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize(("cells", "original"), [((7, 7), (60, 90)), ((64, 48), (10, 20)), ((5, 40), (23, 17))])
def test_stretch_back_is_pillows_bilinear(cells, original):
    values = np.random.default_rng(1).normal(size=cells).astype(np.float32)
    expected = Image.fromarray(values).resize(original[::-1], Image.Resampling.BILINEAR)
    result = place(original, (224, 224), "stretch").to_original(values)
    np.testing.assert_allclose(result, np.asarray(expected), atol=2e-6)  # Pillow rounds to float32 between the axes


@settings(max_examples=80, deadline=None)
@given(
    original=st.tuples(st.integers(30, 120), st.integers(30, 120)),
    plane=st.tuples(st.integers(30, 120), st.integers(30, 120)),
    mode=st.sampled_from(MODES),
    x=st.floats(0.1, 0.9),
    y=st.floats(0.1, 0.9),
)
def test_a_blob_that_the_network_saw_goes_back_to_where_it_was(original, plane, mode, x, y):
    picture, (row, column) = _blob(original, y, x)
    made, placement = Preprocess(plane, mode, "NHWC", "GRAY", 1.0, (0.0,), (1.0,)).apply(picture)
    seen_x, seen_y = placement.locate(column + 0.5, row + 0.5)
    assume(0.15 < seen_x < 0.85 and 0.15 < seen_y < 0.85)
    values = np.where(made[..., 0] > 120, made[..., 0], 0)  # letterbox bars are 114
    assume(values.any())
    back = np.nan_to_num(placement.to_original(values))
    rows, columns = np.indices(original)
    found = (rows * back).sum() / back.sum(), (columns * back).sum() / back.sum()
    cell = (original[0] / placement.resized[0], original[1] / placement.resized[1])
    assert abs(found[0] - row) <= max(1, cell[0]) and abs(found[1] - column) <= max(1, cell[1])


def _blob(original, y, x):
    row, column = int(original[0] * y), int(original[1] * x)
    rows, columns = np.indices(original)
    bright = 255 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 18)
    return np.repeat(bright.astype(np.uint8)[..., None], 3, axis=2), (row, column)


@settings(max_examples=80, deadline=None)
@given(original=size, plane=size, mode=st.sampled_from(MODES), cells=st.tuples(st.integers(3, 9), st.integers(3, 9)))
def test_one_hot_cell_peaks_where_its_centre_lies(original, plane, mode, cells):
    placement = place(original, plane, mode)
    i, j = cells[0] // 2, cells[1] // 2  # not at an edge, where the value is continued outwards
    x, y = placement.point((j + 0.5) / cells[1], (i + 0.5) / cells[0])
    assume(0 <= x < original[1] and 0 <= y < original[0])
    values = np.zeros(cells, np.float32)
    values[i, j] = 1
    back = np.nan_to_num(placement.to_original(values))
    row, column = np.unravel_index(back.argmax(), original)
    assert abs(row + 0.5 - y) <= 1 + 1e-6 and abs(column + 0.5 - x) <= 1 + 1e-6


@pytest.mark.parametrize("mode", MODES)
def test_nan_marks_just_the_pixels_outside_a_crop(mode):
    placement = place((50, 80), (32, 32), mode)
    back = placement.to_original(np.full((4, 4), 2.5, np.float32))
    (left, top), (right, bottom) = placement.point(0, 0), placement.point(1, 1)
    columns, rows = np.meshgrid(np.arange(80), np.arange(50))
    outside = (columns + 1 <= left) | (columns >= right) | (rows + 1 <= top) | (rows >= bottom)
    np.testing.assert_array_equal(np.isnan(back), outside)
    assert outside.any() == (mode == "crop")
    np.testing.assert_allclose(back[~outside], 2.5, rtol=1e-6)


def test_letterbox_bars_are_cut_off():
    placement = place((40, 80), (64, 64), "letterbox")
    values = np.zeros((64, 64), np.float32)
    values[:16] = values[48:] = 1  # the bars
    back = placement.to_original(values)
    assert placement.corner == (16, 0) and back[1:-1].max() == 0


def test_a_map_finer_than_the_picture_loses_no_cell():
    placement = place((7, 9), (224, 224), "stretch")
    for cell in [(0, 0), (3, 200), (112, 57), (223, 223)]:
        values = np.zeros((224, 224), np.float32)
        values[cell] = 1
        assert placement.to_original(values).sum() > 0


def test_a_bad_cell_spoils_just_its_surroundings():
    values = np.ones((8, 8), np.float32)
    values[0, 0], values[7, 7] = np.nan, np.inf
    back = place((80, 80), (64, 64), "stretch").to_original(values)
    assert np.isnan(back[0, 0]) and np.isnan(back[-1, -1])
    np.testing.assert_allclose(back[20:60, 20:60], 1)


def test_to_original_is_linear_and_leaves_the_map_alone():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 5, 6)).astype(np.float32)
    kept = a.copy()
    placement = Placement((31, 17), (20, 20), (36, 20), (-8, 0))
    both = placement.to_original(a) + 3 * placement.to_original(b)
    np.testing.assert_allclose(placement.to_original(a + 3 * b), both, atol=1e-5)
    np.testing.assert_array_equal(a, kept)
