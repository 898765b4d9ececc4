"""Results of several runs are put together by sample; when two agree is told with the tolerance of their type."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_inspect.errors import RunError
from onnx_inspect.results import by_sample, difference, join, largest_difference

A = np.array([[1.0, -2.0, 4.0]], np.float32)


@pytest.mark.parametrize(
    ("one", "other", "dtype", "agree"),
    [
        (A, A, "float32", True),
        (A, A + np.float32(3e-4), "float32", True),  # 1e-4 of the largest value, 4
        (A, A + np.float32(6e-4), "float32", False),
        (A.astype(np.float16), (A + np.float32(0.02)).astype(np.float16), "float16", True),
        (A.astype(np.float16), (A + np.float32(0.1)).astype(np.float16), "float16", False),
        (A, A + np.float32(0.1), "bfloat16", True),  # came as float32, but was rounded to 3 digits before
        (np.array([3, 7], np.uint8), np.array([4, 7], np.uint8), "uint8", True),
        (np.array([3, 7], np.uint8), np.array([5, 7], np.uint8), "uint8", False),
        (np.array([0, 255], np.uint8), np.array([255, 255], np.uint8), "uint8", False),  # no wrapping
        (np.array([3, 7]), np.array([4, 7]), "int64", False),
        (np.array([True]), np.array([False]), "bool", False),
        (np.array(["a"], object), np.array(["b"], object), "string", False),
        (np.array(["a"], object), np.array(["a"], object), "string", True),
        (np.array([np.nan, np.inf]), np.array([np.nan, np.inf]), "float32", True),
        (np.array([np.nan, 1.0]), np.array([1.0, 1.0]), "float32", False),
        (np.array([np.inf, 1.0]), np.array([-np.inf, 1.0]), "float32", False),
        (np.zeros(3), np.full(3, 1e-9), "float32", False),  # nothing to be relative to
        (np.zeros((0, 2)), np.zeros((0, 2)), "float32", True),
    ],
)
def test_agreement(one: np.ndarray, other: np.ndarray, dtype: str, agree: bool) -> None:  # type: ignore[type-arg]
    found = difference(one, other, dtype)
    assert found is not None
    assert (found <= 1) == agree


def test_other_shapes_and_kinds_never_agree() -> None:
    assert difference(A, A[0], "float32") is None
    assert difference(A, A.astype(object), "float32") is None


def test_the_largest_difference() -> None:
    assert largest_difference(A, A + 1) == 1
    assert largest_difference(np.array([250], np.uint8), np.array([2], np.uint8)) == 248
    assert largest_difference(np.array([True]), np.array([False])) == 1
    assert largest_difference(np.array([1.0]), np.array([np.nan])) == np.inf
    assert largest_difference(np.zeros(0), np.zeros(0)) == 0


def test_samples_are_told_apart() -> None:
    value = np.arange(12).reshape(4, 3)
    assert by_sample("y", value, 0, 4) is value
    assert by_sample("y", value, 1, 3) is value
    np.testing.assert_array_equal(by_sample("y", value, None, 2), value.reshape(2, 2, 3))
    assert by_sample("y", np.float32(1), None, 1).shape == (1,)
    for axis, count in ((0, 3), (2, 1), (None, 3)):
        with pytest.raises(RunError, match="another shape for each sample"):
            by_sample("y", value, axis, count)


def test_parts_are_joined_along_their_samples() -> None:
    np.testing.assert_array_equal(join("y", [A, 2 * A], 0), np.concatenate([A, 2 * A]))
    np.testing.assert_array_equal(join("y", [A.T, 2 * A.T], 1), np.concatenate([A.T, 2 * A.T], 1))
    with pytest.raises(RunError, match=r"another shape for each sample \(one is \[1, 2\]\)"):
        join("y", [A, A[:, :2]], 0)
