"""What an input looks like under a mask, and what stands in where the mask hides it."""

from __future__ import annotations

import numpy as np

from onnx_inspect.cam._probe import Index, Maps

BLUR = 0.05  # standard deviation of the blur, of each side: 11 pixels of 224


def check_fill(fill: str) -> None:
    """Refuse a fill that is neither a known word nor a finite number.

    Raises
    ------
    ValueError
    """
    if fill in ("zero", "mean", "blur"):
        return
    try:
        number = float(fill)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise ValueError(f"fill is 'zero', 'mean', 'blur' or a number, got {fill!r}")


def background(inputs: Maps, fill: str) -> Maps | None:
    """What is seen where inputs are hidden, (N, C, H, W) or broadcasting to it; None for zeros.

    Parameters
    ----------
    inputs : ndarray, (N, C, H, W), float32
        Preprocessed: zero is the preprocessing's mean where it subtracts one.
    fill : str
        ``zero``; ``mean`` of each input and channel; ``blur`` of the input; or a number in preprocessed units.
    """
    if fill == "mean":
        return inputs.mean(axis=tuple(range(2, inputs.ndim)), keepdims=True, dtype=np.float64).astype(np.float32)
    if fill == "blur":
        from scipy.ndimage import gaussian_filter

        sigma = (0.0, 0.0, *(BLUR * side if side > 1 else 0.0 for side in inputs.shape[2:]))
        return np.asarray(gaussian_filter(inputs, sigma, mode="nearest"), np.float32)
    if fill == "zero" or float(fill) == 0:
        return None
    return np.full((*inputs.shape[:2], *(1,) * (inputs.ndim - 2)), float(fill), np.float32)


def masked(inputs: Maps, hidden: Maps | None, of: Index, masks: Maps) -> Maps:
    """Lay masks on inputs: ``x * M + hidden * (1 - M)``, (B, C, H, W).

    Parameters
    ----------
    hidden : ndarray or None
        What `background` gave.
    of : ndarray, (B,), int
        The input that each mask is laid on.
    masks : ndarray, (B, H, W), float32
        1 shows the input, 0 hides it.
    """
    shown = masks[:, None]
    variants = np.asarray(inputs[of] * shown, np.float32)
    if hidden is not None:
        variants += hidden[of] * (1 - shown)
    return variants
