"""A sketch against its definition in plain integers, and against the lengths and cosines that it estimates."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.analysis import sketch as sketches
from onnx_inspect.analysis.sketch import BUCKETS, Sketch, Sketcher, count_sketch
from onnx_inspect.errors import InputError
from onnx_inspect.graph.model import TensorSpec


def sketched(values: NDArray[np.generic], parts: int = 1, seed: int = 0) -> Sketch:
    sketcher = Sketcher("layer", "Relu", TensorSpec("t", str(values.dtype), None), len(values), seed)
    for part in np.array_split(values, parts):
        sketcher.add(part)
    return sketcher.sketch()


def plain(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """The same with Python's own integers."""
    sums, whole = np.zeros(BUCKETS), 2**64
    for place, value in enumerate(values):
        x = ((place + seed * 0x9E3779B97F4A7C15) % whole * 0x9E3779B97F4A7C15) % whole
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % whole
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % whole
        x ^= x >> 31
        sums[x % BUCKETS] += value if x >> 63 else -value
    return sums


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_buckets_and_signs_are_the_published_generators(seed: int) -> None:
    values = np.random.default_rng(0).normal(0, 1, 300)
    np.testing.assert_allclose(
        count_sketch(values, seed), plain(values, seed), atol=1e-12
    )  # sums of 5 in another order


def test_a_sketch_is_linear() -> None:
    x, y = np.random.default_rng(1).normal(0, 1, (2, 1000))
    both = 2 * count_sketch(x, 7) - 3 * count_sketch(y, 7)
    np.testing.assert_allclose(count_sketch(2 * x - 3 * y, 7), both, atol=1e-11)


def test_estimates_are_right_on_average_and_within_their_error() -> None:
    """|x|^2 is estimated without bias, with a relative deviation of sqrt(2 / 64) = 0.18: 400 seeds leave 0.009."""
    rng = np.random.default_rng(2)
    x = rng.normal(0, 1, 2000)
    squares = [float(np.sum(count_sketch(x, seed) ** 2)) / float(x @ x) for seed in range(400)]
    assert np.mean(squares) == pytest.approx(1, abs=4 * 0.009)
    assert 0.12 < np.std(squares) < 0.24


@pytest.mark.parametrize("size", [1e-1, 1e-3, 1e-5])
def test_relative_distances_are_found_at_every_size(size: int) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(0, 2, (3, 40, 50))
    noise = rng.normal(0, 1, x.shape)
    y = x + noise / np.linalg.norm(noise) * np.linalg.norm(x) * size
    assert sketches.relative_distance(sketched(x), sketched(y)) == pytest.approx(size, rel=0.5)  # five deviations


def test_one_changed_value_is_seen_wherever_it_is() -> None:
    x = np.random.default_rng(4).normal(0, 1, (2, 3000))
    for place in (0, 1499, 2999):
        y = x.copy()
        y[1, place] += 0.5
        expected = 0.5 / np.linalg.norm(x)
        # alone in the difference, its sketch is exact; the estimate of |x| isn't
        assert sketches.relative_distance(sketched(x), sketched(y)) == pytest.approx(expected, rel=0.5)


def test_sketches_do_not_depend_on_how_samples_are_parted() -> None:
    x = np.random.default_rng(5).normal(1, 2, (7, 4, 6, 6)).astype(np.float32)
    whole, parted = sketched(x), sketched(x, 4)
    np.testing.assert_allclose(parted.sums, whole.sums, rtol=1e-12)
    assert parted.quantiles == whole.quantiles
    assert (parted.mean, parted.std) == pytest.approx((x.mean(dtype=np.float64), x.std(dtype=np.float64)), rel=1e-9)
    assert whole.shape == (4, 6, 6)


def test_quantiles_of_few_values_are_numpys() -> None:
    x = np.random.default_rng(6).normal(0, 1, (5, 11))
    assert sketched(x).quantiles == pytest.approx(np.quantile(x, sketches.SHARES))


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    x = np.array([[1.0, np.nan, -np.inf, 3.0]])
    found = sketched(x)
    assert (found.nan, found.inf, found.mean) == (1, 1, 2.0)
    np.testing.assert_array_equal(found.sums, sketched(np.array([[1.0, 0, 0, 3]])).sums)


def test_json_keeps_what_float32_holds() -> None:
    found = sketched(np.random.default_rng(7).normal(0, 1e6, (3, 100)).astype(np.float32))
    again = sketches.from_json(found.to_json())
    np.testing.assert_allclose(again.sums, found.sums, rtol=1e-7)
    assert again.quantiles == pytest.approx(found.quantiles, rel=1e-8)
    assert (again.name, again.tensor, again.op_type, again.shape, again.dtype) == (
        "layer",
        "t",
        "Relu",
        (100,),
        "float32",
    )


def test_tensors_that_are_zero_throughout_have_no_distance_and_all_others_are_infinitely_far() -> None:
    nothing, something = sketched(np.zeros((2, 9))), sketched(np.eye(2, 9))
    assert sketches.relative_distance(nothing, nothing) == 0
    assert sketches.relative_distance(nothing, something) == np.inf
    assert sketches.cosine(nothing, nothing) == 1
    assert sketches.cosine(nothing, something) == 0


def test_samples_of_another_shape_are_refused() -> None:
    sketcher = Sketcher("boxes", "Gather", TensorSpec("t", "float32", None), 2, 0)
    sketcher.add(np.zeros((1, 4)))
    with pytest.raises(InputError, match="'boxes' gives"):
        sketcher.add(np.zeros((1, 5)))
