"""Whether statistics of activations are those of numpy in float64, whatever the blocks, and JSON has no NaN."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnx_inspect.analysis import statistics as module
from onnx_inspect.analysis.statistics import LayerStatistics, statistics
from onnx_inspect.graph.model import Layer, TensorSpec
from onnx_inspect.graph.spatial import Spatial
from onnx_inspect.trace import Trace

RNG = np.random.default_rng(11)


def of(array: NDArray[Any], *, op: str = "Conv", reading: Spatial | None = None) -> LayerStatistics:
    layer = Layer("layer", op, TensorSpec("tensor", str(array.dtype), None), 0)
    sources = tuple(map(str, range(len(array)))) if array.ndim else ("0",)
    trace = Trace("digest", (layer,), {"layer": array}, {}, sources, "cpu")
    return statistics(trace, readings={"tensor": reading} if reading else None)[0]


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (2, 7, 4), (6, 5), (2, 3, 2, 4, 3), (9,), (2, 2, 2, 2, 2, 2)])
def test_moments_are_numpys(shape: tuple[int, ...]) -> None:
    array = (RNG.standard_normal(shape) * 3 + 100).astype(np.float32)
    found, exact = of(array), array.astype(np.float64)
    assert found.mean == pytest.approx(exact.mean(), rel=1e-12)
    assert found.std == pytest.approx(exact.std(), rel=1e-9)
    assert (found.min, found.max) == (exact.min(), exact.max())
    assert found.shape == shape


@given(block=st.integers(1, 200), samples=st.integers(1, 4))
def test_blocks_do_not_change_the_result(block: int, samples: int) -> None:
    array = np.random.default_rng(samples).standard_normal((samples, 3, 4, 5)).astype(np.float32)
    array[0, 1] = 0
    array[-1, 2, 0, 0] = np.nan
    whole = of(array, op="Tanh")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        parts = of(array, op="Tanh")
    assert parts.mean == pytest.approx(whole.mean, rel=1e-12)
    assert parts.std == pytest.approx(whole.std, rel=1e-12)
    for name in ("min", "max", "zeros", "dead", "constant", "saturated", "nan", "inf"):
        assert getattr(parts, name) == getattr(whole, name)


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_of_a_batch_give_what_the_whole_gives(parts: int) -> None:
    array = np.random.default_rng(parts).standard_normal((7, 3, 4, 5)).astype(np.float32)
    array[:, 1], array[-1, 2, 0, 0] = 0, np.nan
    whole = of(array, op="Tanh")
    running = module.Running(Layer("layer", "Tanh", TensorSpec("tensor", "float32", None), 0))
    for part in np.array_split(array, parts):
        running.add(part, len(part))
    found = running.result()
    assert (found.mean, found.std) == pytest.approx((whole.mean, whole.std), rel=1e-12)
    for name in ("shape", "min", "max", "zeros", "channels", "dead", "constant", "saturated", "nan", "inf"):
        assert getattr(found, name) == getattr(whole, name)


def test_the_deviation_survives_a_large_mean() -> None:
    array = (RNG.standard_normal((4, 3, 50, 50)) * 0.01 + 4096).astype(np.float64)
    assert of(array).std == pytest.approx(array.std(), rel=1e-9)


def test_zeros_are_a_share() -> None:
    array = np.ones((1, 2, 4, 4), np.float32)
    array[0, 0, 0] = 0
    assert of(array).zeros == 4 / 32


def test_dead_means_zero_on_every_sample() -> None:
    array = RNG.random((2, 3, 2, 2)).astype(np.float32) + 0.1
    array[0, 0] = 0
    array[:, 1] = 0
    assert of(array).dead == (1,)


def test_constant_means_one_other_value_everywhere() -> None:
    array = RNG.random((2, 3, 2, 2)).astype(np.float32)
    array[:, 2] = -4
    array[0, 1], array[1, 1] = 1, 2  # constant within each sample, but not over the batch
    found = of(array)
    assert (found.dead, found.constant) == ((), (2,))


def test_one_value_per_channel_says_nothing_of_dead_ones() -> None:
    found = of(np.zeros((1, 5), np.float32))
    assert (found.channels, found.dead, found.constant) == (5, None, None)
    assert of(np.zeros((2, 5), np.float32)).dead == (0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("op", "low", "high"), [("Sigmoid", 0, 1), ("HardSigmoid", 0, 1), ("Tanh", -1, 1), ("Softsign", -1, 1)]
)
def test_saturated_means_near_a_bound_nearly_everywhere(op: str, low: float, high: float) -> None:
    array = np.full((1, 4, 10, 10), (low + high) / 2, np.float32)
    inside = 0.009 * (high - low)
    array[0, 1] = high - inside
    array[0, 2, :5], array[0, 2, 5:] = low + inside, high - inside  # both ends together
    array[0, 3] = high - inside
    array[0, 3, 0, :6] = (low + high) / 2  # 94 of 100 at a bound: not saturated
    assert of(array, op=op).saturated == (1, 2)


def test_a_clipped_channel_is_saturated_at_the_layers_own_maximum() -> None:
    array = RNG.random((1, 4, 10, 10)).astype(np.float32) * 5
    array[0, 0] = 6
    array[0, 0, 0, :4] = 1  # 96 of 100
    array[0, 1] = 3  # constant below the ceiling
    array[0, 2] = 0  # dead
    found = of(array, op="Clip")
    assert (found.saturated, found.constant, found.dead) == ((0,), (1,), (2,))


def test_a_sparse_relu6_is_not_saturated() -> None:
    array = np.zeros((1, 2, 10, 10), np.float32)
    array[0, 0, 0, 0] = 2
    assert of(array, op="Clip").saturated == ()


def test_bytes_saturate_at_their_own_maximum() -> None:
    array = RNG.integers(0, 200, (1, 2, 10, 10)).astype(np.uint8)
    array[0, 1] = 255
    assert of(array, op="QLinearConv").saturated == (1,)


def test_nothing_bounds_a_convolution() -> None:
    assert of(np.ones((1, 2, 3, 3), np.float32)).saturated is None


def test_nan_and_infinity_are_counted_and_left_out() -> None:
    array = np.ones((1, 2, 2, 2), np.float32)
    array[0, 0, 0] = np.nan, np.inf
    array[0, 1, 1, 1] = -np.inf
    found = of(array)
    assert (found.nan, found.inf) == (1, 2)
    assert (found.mean, found.std, found.min, found.max) == (1, 0, 1, 1)
    assert found.constant == ()  # neither channel holds one value throughout


def test_nothing_finite_leaves_only_counts() -> None:
    found = of(np.full((1, 2, 3, 3), np.nan, np.float32))
    assert (found.mean, found.std, found.min, found.max, found.zeros) == (None,) * 5
    assert found.nan == 18


@pytest.mark.parametrize("shape", [(1, 0, 4), (0, 3)])
def test_empty_layers_have_no_numbers(shape: tuple[int, ...]) -> None:
    found = of(np.zeros(shape, np.float32))
    assert (found.mean, found.dead, found.nan) == (None, None, 0)


def test_channels_lie_where_the_reading_says() -> None:
    array = RNG.random((2, 4, 5, 3)).astype(np.float32) + 1
    array[..., 2] = 0
    assert of(array, reading=Spatial("channels-last", (4, 5))).dead == (2,)
    tokens = RNG.random((2, 4, 3)).astype(np.float32) + 1
    tokens[:, :, 1] = 0
    assert of(tokens).dead == (1,)
    assert of(np.swapaxes(tokens, 1, 2), reading=Spatial("flat", (2, 2))).dead == (1,)


@pytest.mark.parametrize("dtype", [np.bool_, np.int64, np.uint8])
def test_whole_numbers_and_truths_are_counted_too(dtype: Any) -> None:
    array = np.array([[0, 1, 1, 0]]).astype(dtype)
    found = of(array)
    assert (found.mean, found.zeros, found.dtype) == (0.5, 0.5, str(np.dtype(dtype)))


def test_json_is_valid_even_where_nothing_is_finite() -> None:
    array = np.full((2, 3), np.inf, np.float32)
    text = json.dumps(of(array).to_json(), allow_nan=False)
    assert json.loads(text)["mean"] is None
    assert json.loads(text)["inf"] == 6


def test_squares_beyond_float64_give_no_number() -> None:
    found = of(np.array([[1e200, -1e200]]))
    assert found.std is None
    assert (found.min, found.max) == (-1e200, 1e200)


def test_arrays_are_not_changed() -> None:
    array = RNG.random((2, 3, 4, 4)).astype(np.float32)
    before = array.copy()
    of(array)
    np.testing.assert_array_equal(array, before)
