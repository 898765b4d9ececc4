"""Whether a view shows the right channels of a layer, in the right order, and counts the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.analysis.activations import ActivationView, fits, view
from onnx_inspect.errors import InputError, LayerError
from onnx_inspect.graph.model import Layer, TensorSpec
from onnx_inspect.graph.spatial import Spatial
from onnx_inspect.trace import Trace

RNG = np.random.default_rng(7)


def trace_of(array: NDArray[Any], *, samples: int = 1, op: str = "Relu") -> Trace:
    layer = Layer("layer", op, TensorSpec("tensor", str(array.dtype), None), 0)
    return Trace("digest", (layer,), {"layer": array}, {}, tuple(f"s{n}" for n in range(samples)), "cpu")


def seen(array: NDArray[Any], *, reading: Spatial | None = None, samples: int = 1, **options: Any) -> ActivationView:
    readings = {"tensor": reading} if reading else None
    return view(trace_of(array, samples=samples), "layer", readings=readings, **options)


def test_most_active_channels_come_first_and_the_rest_are_counted() -> None:
    array = RNG.standard_normal((1, 100, 5, 6)).astype(np.float32)
    result = seen(array, limit=10)
    strengths = [np.abs(array[0, k].astype(np.float64)).mean() for k in range(100)]
    expected = sorted(range(100), key=lambda k: -strengths[k])[:10]
    assert result.channels.tolist() == expected
    np.testing.assert_allclose(result.strengths, [strengths[k] for k in expected], rtol=1e-12)
    assert (result.total, result.hidden) == (100, 90)
    np.testing.assert_array_equal(result.values, array[0, expected])


def test_order_is_by_magnitude_not_by_sign_and_ties_keep_their_numbers() -> None:
    array = np.zeros((1, 4, 2, 2), np.float32)
    array[0, 1], array[0, 2], array[0, 3] = -3, 1, -1
    assert seen(array).channels.tolist() == [1, 2, 3, 0]


def test_mean_is_over_all_channels_also_the_hidden_ones() -> None:
    array = RNG.standard_normal((1, 9, 4, 3)).astype(np.float32)
    result = seen(array, limit=2)
    assert result.mean is not None
    np.testing.assert_allclose(result.mean, np.abs(array[0].astype(np.float64)).mean(axis=0), rtol=1e-12)


def test_range_is_the_whole_layers() -> None:
    array = np.zeros((1, 3, 2, 2), np.float32)
    array[0, 0], array[0, 2, 0, 0], array[0, 2, 0, 1] = 1, -5, 4
    result = seen(array, limit=1)
    assert (result.low, result.high, result.signed) == (-5, 4, True)


def test_a_sample_is_seen_alone() -> None:
    array = np.stack([np.zeros((3, 2, 2)), np.ones((3, 2, 2))]).astype(np.float32)
    assert seen(array, samples=2, sample=0).high == 0
    result = seen(array, samples=2, sample=1)
    assert result.low == result.high == 1
    assert result.source == "s1"


@pytest.mark.parametrize(
    ("shape", "reading", "kind", "kept"),
    [
        ((1, 3, 4, 5), None, "maps", (3, 4, 5)),
        ((1, 4, 5, 3), Spatial("channels-last", (4, 5)), "maps", (3, 4, 5)),
        ((1, 3, 7), Spatial("channels-first", (7,)), "series", (3, 7)),
        ((1, 7, 3), Spatial("channels-last", (7,)), "series", (3, 7)),
        ((1, 7, 3), None, "tokens", (7, 3)),
        ((1, 7, 3), Spatial("tokens", (2, 3), 1), "tokens", (7, 3)),
        ((1, 3, 6), Spatial("flat", (2, 3)), "maps", (3, 2, 3)),
        ((1, 3, 7), Spatial("flat", (2, 3), 1), "tokens", (7, 3)),
        ((1, 5), None, "vector", (5,)),
        ((1, 5, 1, 1), None, "vector", (5,)),
        ((1, 1, 5), None, "vector", (5,)),
        ((1,), None, "vector", (1,)),
        ((1, 2, 3, 4, 5, 6), None, "tokens", (120, 6)),
        ((1, 0, 4), None, "empty", (0, 4)),
    ],
)
def test_kind_follows_from_reading_and_rank(
    shape: tuple[int, ...], reading: Spatial | None, kind: str, kept: tuple[int, ...]
) -> None:
    result = seen(RNG.random(shape).astype(np.float32), reading=reading, limit=100)
    assert result.kind == kind
    assert result.values.shape == kept
    assert result.shape == shape[1:]


def test_channels_last_maps_hold_the_same_values() -> None:
    array = RNG.random((1, 4, 5, 3)).astype(np.float32)
    result = seen(array, reading=Spatial("channels-last", (4, 5)))
    for place, channel in enumerate(result.channels):
        np.testing.assert_array_equal(result.values[place], array[0, :, :, channel])


def test_a_reading_of_another_shape_is_not_believed() -> None:
    result = seen(RNG.random((1, 3, 4, 5)).astype(np.float32), reading=Spatial("channels-first", (9, 9)))
    assert result.kind == "maps"
    assert not fits(Spatial("channels-first", (9, 9)), (3, 4, 5))


def test_volumes_say_their_slices_and_count_tiles() -> None:
    array = RNG.random((1, 20, 12, 3, 4)).astype(np.float32)
    result = seen(array)
    assert (result.kind, result.depth, result.total, result.hidden) == ("volume", 12, 20, 12)
    assert len(result.slices) == 8
    assert result.slices[0] == 0
    assert result.slices[-1] == 11
    np.testing.assert_array_equal(result.values[3], array[0, result.channels[3], list(result.slices)])


def test_tokens_on_a_grid_give_a_map_without_their_prefix() -> None:
    array = RNG.standard_normal((1, 7, 3)).astype(np.float32)
    result = seen(array, reading=Spatial("tokens", (2, 3), 1))
    assert result.mean is not None
    expected = np.abs(array[0, 1:].astype(np.float64)).mean(axis=1).reshape(2, 3)
    np.testing.assert_allclose(result.mean, expected, rtol=1e-12)


def test_long_vectors_show_the_largest_magnitudes_short_ones_keep_their_order() -> None:
    array = RNG.standard_normal((1, 1000)).astype(np.float32)
    result = seen(array)
    assert result.channels.tolist() == np.argsort(-np.abs(array[0]), kind="stable")[:24].tolist()
    assert result.hidden == 976
    assert result.values.shape == (1000,)
    assert seen(array[:, :10]).channels.tolist() == list(range(10))


def test_dead_and_constant_channels_are_told_apart() -> None:
    array = RNG.random((1, 5, 3, 3)).astype(np.float32)
    array[0, 1], array[0, 3] = 0, 0.5
    result = seen(array)
    assert (result.dead, result.constant) == (1, 1)


def test_a_vector_of_one_sample_has_no_dead_channels() -> None:
    result = seen(np.zeros((1, 6), np.float32))
    assert (result.dead, result.constant) == (0, 0)


def test_nan_and_infinity_are_counted_and_left_out() -> None:
    array = np.ones((1, 2, 2, 2), np.float32)
    array[0, 0, 0, 0], array[0, 1, 0, 0], array[0, 1, 0, 1] = np.nan, np.inf, -np.inf
    result = seen(array)
    assert (result.nan, result.inf) == (1, 2)
    assert (result.low, result.high) == (1, 1)
    np.testing.assert_array_equal(result.strengths, [1, 1])
    assert (result.dead, result.constant) == (0, 0)
    assert result.mean is not None
    assert result.mean[0, 1] == 1


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int8, np.int64, np.float64])
def test_any_number_type_is_seen(dtype: Any) -> None:
    array = np.arange(-8, 10).clip(0 if dtype in (np.bool_, np.uint8) else -8).reshape(1, 2, 3, 3).astype(dtype)
    result = seen(array)
    assert result.dtype == str(array.dtype)
    assert result.high == float(array.max())


def test_the_smallest_int8_has_a_magnitude() -> None:
    array = np.full((1, 1, 2, 2), -128, np.int8)
    assert seen(array).strengths.tolist() == [128]


def test_what_has_no_batch_axis_is_shown_whole_and_said() -> None:
    array = RNG.random((16, 49, 8)).astype(np.float32)
    result = seen(array)
    assert (result.kind, result.values.shape, result.shape) == ("tokens", (784, 8), (16, 49, 8))
    assert "16 × 49 as rows" in result.notes[0]


def test_labels_are_kept_only_where_they_fit() -> None:
    array = RNG.random((1, 3)).astype(np.float32)
    assert seen(array, labels=("a", "b", "c")).labels == ("a", "b", "c")
    assert seen(array, labels=("a", "b")).labels is None


def test_views_are_read_only_and_leave_the_trace_alone() -> None:
    array = RNG.random((1, 3, 4, 4)).astype(np.float32)
    before = array.copy()
    result = seen(array)
    assert not result.values.flags.writeable
    assert array.flags.writeable
    np.testing.assert_array_equal(array, before)


def test_an_unknown_layer_names_those_captured() -> None:
    with pytest.raises(LayerError, match=r"'other' was not captured.*layer"):
        view(trace_of(np.zeros((1, 2), np.float32)), "other")


def test_an_unknown_sample_is_an_error() -> None:
    with pytest.raises(InputError, match="sample 3"):
        view(trace_of(np.zeros((1, 2), np.float32)), "layer", sample=3)


def test_text_is_no_activation() -> None:
    with pytest.raises(LayerError, match="not numbers"):
        view(trace_of(np.array([["a"]], object)), "layer")
