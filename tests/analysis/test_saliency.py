"""Whether a raw map is cut, scaled and put back on the original as said, and a flat one never becomes a hot spot."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.analysis.saliency import UNSEEN, panel, prepare, to_unit
from onnx_inspect.cam._probe import Attribution
from onnx_inspect.inputs.placement import place

RNG = np.random.default_rng(3)


def attribution(values: NDArray[np.float32], *, aware: bool = True, method: str = "cam") -> Attribution:
    count = len(values)
    return Attribution(
        values=values.astype(np.float32),
        method=method,
        layer="conv",
        params={},
        targets=("dog",) * count,
        classes=np.zeros(count, np.intp),
        scores=np.full(count, 0.75),
        passes=1,
        tail_passes=0,
        seconds=0.1,
        provider="cpu",
        class_aware=aware,
    )


def test_unit_is_relu_then_smallest_to_0_and_largest_to_1() -> None:
    values = np.array([[-4, 0], [1, 4]], np.float32)
    np.testing.assert_array_equal(to_unit(values), [[0, 0], [0.25, 1]])
    np.testing.assert_array_equal(to_unit(values + 5), np.float32([[0, 0.5], [0.625, 1]]))


def test_tiny_values_are_scaled_like_large_ones() -> None:
    values = np.array([[1, 3], [2, 2]], np.float32)
    np.testing.assert_allclose(to_unit(values * 1e-12), to_unit(values), rtol=1e-6)


def test_prepared_maps_lie_between_0_and_1_at_the_size_asked_for() -> None:
    values = RNG.standard_normal((5, 7)).astype(np.float32)
    before = values.copy()
    result, problem = prepare(values, size=(20, 35))
    assert (result.shape, problem) == ((20, 35), "")
    assert result.min() >= 0
    assert result.max() <= 1
    np.testing.assert_array_equal(values, before)


def test_the_strongest_cells_centre_stays_where_it_was() -> None:
    values = np.zeros((4, 6), np.float32)
    values[2, 1] = 1
    result, _ = prepare(values, size=(40, 60))
    rows, columns = np.nonzero(result == result.max())
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == pytest.approx((25, 15))


@pytest.mark.parametrize("level", [-2.0, 0.0, 0.3])
@pytest.mark.parametrize("signed", [False, True])
def test_a_flat_map_is_said_and_drawn_as_nothing(level: float, signed: bool) -> None:
    result, problem = prepare(np.full((3, 3), level, np.float32), size=(6, 6), signed=signed)
    assert problem.startswith("flat map: no evidence")
    assert not result.any()


def test_a_map_below_zero_is_said_but_has_a_signed_view() -> None:
    values = -RNG.random((3, 3)).astype(np.float32) - 0.5
    result, problem = prepare(values)
    assert problem.startswith("all-negative: no positive evidence")
    assert not result.any()
    signed, problem = prepare(values, signed=True)
    assert problem == ""
    np.testing.assert_allclose(signed, values / -values.min(), rtol=1e-6)


def test_the_signed_view_keeps_0_at_0() -> None:
    values = np.array([[-4, 0, 2]], np.float32)
    np.testing.assert_array_equal(prepare(values, signed=True)[0], [[-1, 0, 0.5]])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_map_that_is_not_finite_is_said(bad: float) -> None:
    values = np.ones((2, 2), np.float32)
    values[0, 0] = bad
    result, problem = prepare(values)
    assert problem.startswith("not finite")
    assert not result.any()


def test_outside_a_crop_nothing_is_known() -> None:
    placement = place((60, 120), (32, 32), "crop")
    result, _ = prepare(RNG.random((4, 4)).astype(np.float32), placement=placement)
    assert result.shape == (60, 120)
    assert np.isnan(result[:, 0]).all()
    assert np.isfinite(result[30, 60])


def test_a_panel_gathers_every_methods_map_and_says_what_is_hatched() -> None:
    values = RNG.random((2, 4, 4)).astype(np.float32)
    picture = RNG.integers(0, 255, (60, 120, 3)).astype(np.uint8)
    both = [attribution(values), attribution(values, aware=False, method="eigen-cam")]
    result = panel(both, 1, source="dog.jpg", original=picture, placement=place((60, 120), (32, 32), "crop"))
    first, second = result.maps
    assert (first.method, first.target, first.score) == ("cam", "dog", 0.75)
    assert (second.target, second.score) == ("looks at no class", None)
    assert result.notes == (UNSEEN,)
    assert first.values.shape == (60, 120)


def test_the_peak_is_in_the_originals_pixels() -> None:
    values = np.zeros((1, 4, 4), np.float32)
    values[0, 1, 2] = 1
    picture = np.zeros((40, 80, 3), np.uint8)
    stretched = panel(
        [attribution(values)], 0, source="", original=picture, placement=place((40, 80), (8, 8), "stretch")
    )
    assert stretched.maps[0].peak == pytest.approx((50, 15))
    assert panel([attribution(values)], 0, source="", original=picture).maps[0].peak == pytest.approx((50, 15))


def test_a_peak_in_a_letterbox_bar_is_said() -> None:
    values = np.zeros((1, 8, 8), np.float32)
    values[0, 0, 4], values[0, 4, 4] = 1, 0.5
    picture = np.zeros((40, 80, 3), np.uint8)
    result = panel(
        [attribution(values)], 0, source="", original=picture, placement=place((40, 80), (8, 8), "letterbox")
    )
    assert "letterbox bars: cam" in result.notes[-1]


def test_a_flat_map_has_no_peak() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    assert panel([attribution(np.ones((1, 2, 2)))], 0, source="", original=picture).maps[0].peak is None


def test_a_signals_map_is_as_long_as_the_signal() -> None:
    values = np.array([[[0, 0, 1, 0]]], np.float32)
    result = panel([attribution(values)], 0, source="", array=RNG.standard_normal((2, 100)))
    assert result.signal is not None
    assert result.maps[0].values.shape == (100,)
    assert result.maps[0].peak == pytest.approx((62.5, 0.5))


def test_an_array_without_a_picture_is_shown_and_said() -> None:
    array = RNG.standard_normal((3, 10, 12))
    result = panel([attribution(RNG.random((1, 2, 2)))], 0, source="", array=array)
    assert result.picture is not None
    assert (result.picture.shape, result.picture.min(), result.picture.max()) == ((10, 12, 3), 0, 255)
    assert "no original picture" in result.notes[0]
    low, high = array.min(), array.max()
    np.testing.assert_array_equal(result.picture[4, 5], np.rint(255 * (array[:, 4, 5] - low) / (high - low)))
