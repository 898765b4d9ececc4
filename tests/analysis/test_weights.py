"""What is said of a weight equals closed forms and plain numpy; broken numbers are said, never fatal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from onnx_inspect.analysis import weights
from onnx_inspect.analysis.weights import WeightView, view
from onnx_inspect.graph.model import Layer, TensorSpec
from onnx_inspect.graph.weights import LayerWeight

LAYER = Layer("fc", "Gemm", TensorSpec("y", "float32", (1, 4)), 3)


def of(values: Any, kind: str = "matrix", role: str = "weight", **more: Any) -> LayerWeight:
    array = np.asarray(values)
    quantised = {"quantised": False, "dtype": "float32"} | more
    return LayerWeight(LAYER, "w", role, kind, array.shape, load=lambda: array, **quantised)


def seen(values: Any, **more: Any) -> WeightView:
    return view(of(values, **more))


def test_statistics_equal_numpys_in_double_precision() -> None:
    values = np.random.default_rng(0).normal(3, 2, (40, 30)).astype(np.float32)
    values[:5] = 0
    found, double = seen(values), values.astype(np.float64)
    assert (found.count, found.zeros, found.nan, found.inf) == (1200, 150, 0, 0)
    np.testing.assert_allclose([found.mean, found.std], [double.mean(), double.std()], rtol=1e-6)
    assert (found.low, found.high) == (values.min(), values.max())
    assert found.abs_max == np.abs(values).max()
    assert found.sparsity == 0.125
    assert found.near_zero == (np.abs(values) <= 1e-3 * np.abs(values).max()).mean()
    np.testing.assert_allclose(found.l1, np.abs(double).sum(1), rtol=1e-13)
    np.testing.assert_allclose(found.l2, np.linalg.norm(double, axis=1), rtol=1e-13)


def test_half_precision_sums_do_not_overflow() -> None:
    found = seen(np.full((2, 1000), 60_000, np.float16), dtype="float16")
    np.testing.assert_allclose(found.l2, 60_000 * math.sqrt(1000), rtol=1e-3)
    assert found.mean == pytest.approx(60_000, rel=1e-3)


@pytest.mark.parametrize(
    ("shape", "kind", "role", "units"),
    [
        ((6, 3, 5, 5), "conv", "weight", (6, 75)),
        ((6, 3, 5), "conv", "weight", (6, 15)),
        ((6,), "conv", "bias", (6, 1)),
        ((7, 4), "matrix", "weight", (7, 4)),
        ((2, 7, 4), "matrix", "weight", (14, 4)),
        ((9, 4), "embedding", "weight", (9, 4)),
        ((4, 5, 3), "recurrent", "recurrent", (20, 3)),
        ((8, 5), "recurrent", "bias", (40, 1)),
        ((16, 1, 1), "other", "bias", (16, 1)),
        ((1, 10, 8), "other", "bias", (10, 8)),
        ((), "other", "slope", (1, 1)),
    ],
)
def test_units_are_what_a_reader_counts(shape: tuple[int, ...], kind: str, role: str, units: tuple[int, int]) -> None:
    values = np.zeros(shape, np.float32)
    assert weights.as_units(values, of(values, kind, role)).shape == units


# Spectrum


def orthogonal(rows: int, columns: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
    rng = np.random.default_rng(1)
    left = np.linalg.qr(rng.normal(size=(rows, rows))).Q[:, : len(values)]
    right = np.linalg.qr(rng.normal(size=(columns, columns))).Q[:, : len(values)]
    return (left * values) @ right.T


@pytest.mark.parametrize("shape", [(20, 50), (50, 20)])
def test_singular_values_are_those_put_in(shape: tuple[int, int]) -> None:
    values = np.geomspace(100, 0.1, 20)
    found = seen(orthogonal(*shape, values)).spectrum
    np.testing.assert_allclose(found.values, values, rtol=1e-4)  # float32 weights round
    assert found.condition == pytest.approx(1000, rel=1e-3)
    share = values / values.sum()
    assert found.effective_rank == pytest.approx(math.exp(-(share * np.log(share)).sum()), rel=1e-5)


def test_equal_singular_values_have_full_effective_rank() -> None:
    found = seen(orthogonal(16, 30, np.full(16, 2.5))).spectrum
    assert found.effective_rank == pytest.approx(16, rel=1e-6)
    assert found.condition == pytest.approx(1, rel=1e-5)


def test_a_lack_of_rank_is_an_infinite_condition() -> None:
    found = seen(np.outer(np.arange(1, 9), np.arange(1, 6))).spectrum
    assert found.condition == math.inf
    assert found.effective_rank == pytest.approx(1, abs=1e-4)
    assert found.values[0] == pytest.approx(np.linalg.norm(np.arange(1, 9)) * np.linalg.norm(np.arange(1, 6)), rel=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_huge_and_tiny_weights_keep_their_spectrum(scale: float) -> None:
    found = seen(orthogonal(6, 9, np.arange(6.0, 0, -1)) * scale).spectrum
    np.testing.assert_allclose(found.values, np.arange(6.0, 0, -1) * scale, rtol=1e-5)


def test_the_spectrum_of_a_large_matrix_is_its_largest_values_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.concatenate([np.geomspace(50, 5, 30), np.full(170, 0.1)])
    matrix = orthogonal(200, 260, values)
    monkeypatch.setattr(weights, "EXACT", 0)
    found = seen(matrix)
    np.testing.assert_allclose(found.spectrum.values[:30], values[:30], rtol=1e-4)
    assert found.spectrum.values.size == weights.SKETCH
    assert "64 largest of 200 singular values" in found.notes[0]
    assert (found.spectrum.condition, found.spectrum.effective_rank) == (None, None)
    np.testing.assert_array_equal(found.spectrum.values, seen(matrix).spectrum.values)  # the same every time


def test_vectors_have_no_spectrum() -> None:
    assert seen(np.ones(5), role="bias").spectrum.values.size == 0
    assert seen(np.ones((1, 5))).spectrum.values.size == 0


# Dead and duplicate units


def test_dead_units_are_those_of_zeros() -> None:
    values = np.random.default_rng(0).normal(size=(6, 2, 3, 3))
    values[[1, 4]] = 0
    assert seen(values, kind="conv").dead == (1, 4)
    assert seen(np.zeros(4), kind="conv", role="bias").dead == ()


def test_duplicates_point_the_same_way_whatever_their_length() -> None:
    values = np.random.default_rng(0).normal(size=(8, 10))
    values[3], values[6], values[5] = values[0] * 2, values[0] * 0.1, values[2]
    values[7] = -values[1]
    assert seen(values).duplicates == ((0, 3, 6), (2, 5))


def test_duplicates_are_found_through_their_likes() -> None:
    """A chain: neighbours are alike though its ends are not; one group all the same."""
    angles = np.arange(5) * math.acos(0.9995)
    values = np.zeros((5, 4))
    values[:, 0], values[:, 1] = np.cos(angles), np.sin(angles)
    assert seen(values).duplicates == ((0, 1, 2, 3, 4),)
    assert values[0] @ values[4] < weights.DUPLICATE


def test_too_many_units_to_compare_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "COMPARED", 5)
    found = seen(np.ones((6, 8)))
    assert found.duplicates == ()
    assert found.notes == ("duplicates not looked for among 6 units",)


def test_short_units_are_not_called_alike() -> None:
    assert seen(np.ones((6, 3))).duplicates == ()


# Histogram


def test_the_histogram_counts_every_number_once() -> None:
    values = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
    found = seen(values)
    assert found.histogram.sum() == 1200
    width = np.diff(found.edges)
    np.testing.assert_allclose(width, width[0])
    for number in range(0, len(width), 7):
        low, high = found.edges[number : number + 2]
        assert found.histogram[number] == ((values >= low) & (values < high)).sum()


def test_zero_has_a_bin_of_its_own_middle() -> None:
    found = seen(np.array([[-1.0, 0, 0, 0.3, 2.7]]))
    middle = (found.edges[:-1] + found.edges[1:]) / 2
    at = int(np.abs(middle).argmin())
    assert abs(middle[at]) < 1e-12
    assert found.histogram[at] == 2


def test_equal_numbers_still_have_a_histogram() -> None:
    found = seen(np.full((2, 3), 7.0))
    assert found.histogram.sum() == 6
    assert found.edges[0] < 7 < found.edges[-1]


# What is broken


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_said_and_left_out(bad: float) -> None:
    values = np.random.default_rng(0).normal(size=(5, 6))
    values[2, 3] = bad
    found = seen(values)
    rest = np.delete(values.ravel(), 15)
    assert found.mean == pytest.approx(rest.mean(), rel=1e-5)
    assert (found.nan, found.inf) == ((1, 0) if math.isnan(bad) else (0, 1))
    assert found.l2[2] == pytest.approx(np.linalg.norm(np.delete(values[2], 3)), rel=1e-5)
    assert found.spectrum.values.size == 0
    assert "left out of all figures" in found.notes[0]
    assert "no spectrum" in found.notes[1]
    assert found.histogram.sum() == 29


def test_a_row_of_nothing_but_nan_is_not_dead() -> None:
    assert seen([[math.nan] * 4, [0.0] * 4, [1.0] * 4]).dead == (1,)


@pytest.mark.parametrize("values", [np.full((3, 4), np.nan), np.zeros((3, 4)), np.zeros((0, 4)), np.float32(3)])
def test_degenerate_weights_are_described(values: Any) -> None:
    found = seen(values)
    json.dumps(found.to_json(), allow_nan=False)
    assert found.count == np.size(values)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, array_shapes(min_dims=1, max_dims=4, max_side=6), elements=st.floats(width=32)))
def test_any_weight_becomes_valid_json(values: NDArray[np.float32]) -> None:
    text = json.dumps(seen(values, kind="conv").to_json(), allow_nan=False)
    assert json.loads(text)["parameters"] == values.size


def test_json_holds_what_scripts_need() -> None:
    found = seen(np.eye(4, 6), dtype="int8", quantised=True).to_json()
    assert found["layer"] == "fc"
    assert found["shape"] == [4, 6]
    assert (found["dtype"], found["quantised"], found["parameters"]) == ("int8", True, 24)
    assert found["sparsity"] == pytest.approx(20 / 24)
    assert found["norms_l2"] == [1, 1, 1, 1]
    np.testing.assert_allclose(found["spectrum"], np.ones(4))
    assert found["condition"] == pytest.approx(1)


@pytest.mark.parametrize(
    "change",
    [lambda v: v[np.random.default_rng(2).permutation(len(v))], lambda v: -v, lambda v: v[:, ::-1]],
    ids=["units permuted", "sign", "inputs reversed"],
)
def test_the_spectrum_does_not_depend_on_order_or_sign(change: Callable[[Any], Any]) -> None:
    values = np.random.default_rng(0).normal(size=(8, 12))
    np.testing.assert_allclose(seen(change(values)).spectrum.values, seen(values).spectrum.values, rtol=1e-6)


def test_an_unread_note_is_kept() -> None:
    assert seen(np.ones((2, 2)), note="in steps").notes[0] == "in steps"
