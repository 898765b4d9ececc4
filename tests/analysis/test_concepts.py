"""Concepts are the parts that non-negative data were made of; amounts are non-negative least squares."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls

from onnx_inspect.analysis.concepts import amounts, correlations, factorise
from onnx_inspect.errors import LayerError

RNG = np.random.default_rng(5)
PARTS = np.array([[3, 0, 0, 1, 0], [0, 2, 2, 0, 0], [0, 0, 0, 1, 4]], np.float32)
MIXED = (RNG.exponential(size=(400, 3)) * (RNG.random((400, 3)) < 0.6)).astype(np.float32) @ PARTS


def test_the_parts_are_found_again() -> None:
    basis = factorise(MIXED, 3, seed=0)
    wanted = PARTS / np.linalg.norm(PARTS, axis=1, keepdims=True)
    likeness = basis @ wanted.T
    assert sorted(likeness.argmax(axis=1).tolist()) == [0, 1, 2]
    np.testing.assert_allclose(likeness.max(axis=1), 1, atol=2e-3)  # NMF ends at a relative change of 1e-4
    np.testing.assert_allclose(np.linalg.norm(basis, axis=1), 1, atol=1e-6)


def test_the_same_seed_gives_the_same_concepts_and_the_largest_come_first() -> None:
    basis = factorise(MIXED, 3, seed=1)
    np.testing.assert_array_equal(basis, factorise(MIXED, 3, seed=1))
    made = amounts(MIXED, basis).sum(axis=0) * basis.sum(axis=1)
    assert (np.diff(made) <= 0).all()


def test_amounts_are_scipys_non_negative_least_squares() -> None:
    basis = factorise(RNG.random((50, 9)).astype(np.float32), 4, seed=0)
    rows = RNG.random((30, 9)).astype(np.float32)
    wanted = np.stack([nnls(basis.T.astype(np.float64), row.astype(np.float64))[0] for row in rows])
    np.testing.assert_allclose(amounts(rows, basis), wanted, atol=1e-5)  # descent ends at a relative step of 1e-6


def test_an_amount_depends_on_its_own_position_alone() -> None:
    basis = factorise(MIXED, 3, seed=0)
    np.testing.assert_allclose(amounts(MIXED[:7], basis), amounts(MIXED, basis)[:7], atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "count", "words"),
    [
        (MIXED - 1, 2, "negative"),
        (np.zeros((9, 4), np.float32), 2, "0 everywhere"),
        (MIXED[:, :2], 3, "no 3 concepts"),
    ],
)
def test_what_has_no_concepts_is_said(rows: np.ndarray, count: int, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        factorise(rows, count, seed=0)


def test_correlations_are_numpys() -> None:
    amount, scores = RNG.random((20, 3)), RNG.random((20, 2))
    amount[:, 2] = 1
    found = correlations(amount, scores)
    np.testing.assert_allclose(found[:, :2], np.corrcoef(scores.T, amount[:, :2].T)[:2, 2:])
    assert (found[:, 2] == 0).all()
