"""Fills and masks: what stands where a mask hides the input."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.cam._masking import background, check_fill, masked


def inputs() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(2, 3, 8, 14)).astype(np.float32)


def test_a_mask_blends_input_and_fill() -> None:
    x, rng = inputs(), np.random.default_rng(1)
    masks = rng.uniform(size=(4, 8, 14)).astype(np.float32)
    of = np.array([0, 1, 1, 0])
    for fill in ("zero", "mean", "blur", "0.25"):
        hidden = background(x, fill)
        found = masked(x, hidden, of, masks)
        there = np.zeros_like(x) if hidden is None else np.broadcast_to(hidden, x.shape)
        for row, n in enumerate(of):
            expected = x[n] * masks[row] + there[n] * (1 - masks[row])
            np.testing.assert_allclose(found[row], expected, rtol=1e-5, atol=1e-6)


def test_fills_are_what_their_names_say() -> None:
    x = inputs()
    assert background(x, "zero") is None
    assert background(x, "0.0") is None
    np.testing.assert_allclose(background(x, "mean")[1, 2], x[1, 2].mean(), rtol=1e-5)
    np.testing.assert_array_equal(background(x, "-2")[0, 0], -2)
    blurred = background(x, "blur")
    assert blurred.shape == x.shape
    assert blurred.std() < x.std()
    np.testing.assert_allclose(background(np.full_like(x, 3), "blur"), 3, rtol=1e-6)


@pytest.mark.parametrize("fill", ["grey", "nan", "inf", ""])
def test_an_unknown_fill_is_refused(fill: str) -> None:
    with pytest.raises(ValueError, match="fill is 'zero', 'mean', 'blur' or a number"):
        check_fill(fill)


def test_a_signal_is_blurred_along_its_length_only() -> None:
    signal = np.random.default_rng(2).normal(size=(1, 2, 1, 100)).astype(np.float32)
    blurred = background(signal, "blur")
    assert blurred.shape == signal.shape
    assert blurred.std() < 0.5 * signal.std()
