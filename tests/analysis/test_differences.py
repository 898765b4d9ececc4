"""Metrics of two tensors against numbers worked out by hand, in float64 whatever the tensors hold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnx_inspect.analysis.differences import (
    Differences,
    Tolerance,
    agreement,
    difference,
    rank_correlation,
    ranks,
)


def test_metrics_of_a_small_vector_by_hand() -> None:
    found = difference(np.array([3.0, 4.0, 0.0]), np.array([3.0, 3.0, 1.0]))
    assert found.max_abs == 1
    assert found.mean_abs == pytest.approx(2 / 3)
    assert found.max_rel == pytest.approx(1 / 0.004)  # the floor is a thousandth of the largest, 4
    assert found.cosine == pytest.approx(21 / (5 * math.sqrt(19)))
    assert found.sqnr_db == pytest.approx(10 * math.log10(25 / 2))
    assert found.noise == pytest.approx(2 / 25)
    assert found.quantiles[0] == 1  # the median of 0, 1, 1
    assert found.worst == (0, 1)


def test_uint8_never_wraps_around() -> None:
    found = difference(np.array([3, 250], np.uint8), np.array([5, 255], np.uint8))
    assert found.max_abs == 5
    assert found.mean_abs == 3.5


def test_half_precision_does_not_overflow() -> None:
    big = np.full(1000, 60000, np.float16)  # its square is beyond float16, and so is the sum
    found = difference(big, big * np.float16(0.5))
    assert found.cosine == pytest.approx(1)
    assert found.sqnr_db == pytest.approx(10 * math.log10(4))


def test_booleans_are_compared_as_numbers() -> None:
    assert difference(np.array([True, False]), np.array([False, False])).max_abs == 1


def test_what_is_not_finite_in_both_is_no_difference() -> None:
    a = np.array([np.nan, np.inf, -np.inf, 1.0])
    assert difference(a, a.copy()).equal
    found = difference(a, np.array([np.nan, -np.inf, -np.inf, np.nan]))
    assert found.strange == 2  # the infinity of another sign, and the NaN
    assert found.noise == math.inf
    assert not found.equal


def test_zeros_and_nothing_have_a_defined_cosine() -> None:
    zeros = np.zeros(3)
    assert difference(zeros, zeros).cosine == 1
    assert difference(zeros, np.ones(3)).cosine is None
    assert difference(zeros, np.ones(3)).sqnr_db == -math.inf
    assert difference(np.ones(3), np.ones(3)).sqnr_db is None
    assert difference(np.zeros((0, 2)), np.zeros((0, 2))).equal


def test_sums_over_inputs_are_those_of_one_array() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 40)), rng.normal(size=(5, 40))
    sums = Differences(Tolerance(0.5, 0.1))
    for one, other in zip(a, b, strict=True):
        sums.add(one, other)
    parts, whole = sums.found(), difference(a, b, Tolerance(0.5, 0.1))
    for name in ("count", "max_abs", "mean_abs", "cosine", "sqnr_db", "excess"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-12)
    row, column = np.unravel_index(np.abs(a - b).argmax(), a.shape)
    assert parts.worst == (row, column)


def test_the_excess_is_what_lies_beyond_the_tolerance() -> None:
    a, b = np.array([10.0, 1.0]), np.array([10.5, 1.3])
    assert difference(a, b, Tolerance(0.1, 0.02)).excess == pytest.approx(0.5 - (0.1 + 0.02 * 10))
    assert difference(a, b, Tolerance(0.5, 0.0)).excess == pytest.approx(0.0)
    assert difference(np.array([np.nan]), np.array([0.0]), Tolerance(1e9)).excess == math.inf


def test_ranks_of_ties_are_their_mean() -> None:
    np.testing.assert_array_equal(ranks(np.array([10, 30, 10, 20])), [0.5, 3, 0.5, 2])
    assert rank_correlation(np.array([1, 2, 3, 4]), np.array([4, 3, 2, 1])) == -1
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([1.0, 2, 2])) == pytest.approx(math.sqrt(3) / 2)


def test_classes_flips_and_the_best_five() -> None:
    a = np.array([[0.1, 0.7, 0.2], [0.6, 0.3, 0.1]])
    b = np.array([[0.1, 0.6, 0.3], [0.3, 0.6, 0.1]])
    found = agreement(a, b, ("p", "q"), classes=True, k=2)
    assert found.top1 == 0.5
    assert found.flips == ((1, 0, 1),)
    assert found.topk == 1.0  # the best two are the same two, in another order
    assert found.rank == pytest.approx((1 + 0.5) / 2)
    assert agreement(a, b, ("p", "q"), classes=False).top1 is None
