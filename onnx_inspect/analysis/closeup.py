"""Where one tensor of two models differs most: its worst channels on the input where it is worst."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.graph.spatial import Spatial

Kind = Literal["maps", "matrix", "vector"]

CHANNELS = 4  # shown
ELEMENTS = 24  # of a vector


@dataclass(frozen=True, eq=False)
class Closeup:
    """One tensor of both models on one input, arranged for drawing.

    Attributes
    ----------
    a, b : str
        Tensors.
    what : str
        Why it is shown: ``culprit``, ``worst``.
    source : str
        The input on which it is.
    kind : str
        ``maps`` (K, h, w), the channels that differ most first; ``matrix`` (rows, columns) whole; ``vector`` (K,), the
        elements that differ most, in their own order.
    of_a, of_b : ndarray, float64
        In A's layout and unit.
    numbers : tuple of int
        Of the channels or elements shown.
    total : int
        How many there are.
    """

    a: str
    b: str
    what: str
    source: str
    kind: Kind
    of_a: NDArray[np.float64]
    of_b: NDArray[np.float64]
    numbers: tuple[int, ...]
    total: int


def closeup(
    a: NDArray[Any], b: NDArray[Any], names: tuple[str, str], *, what: str, source: str, reading: Spatial | None
) -> Closeup:
    """Arrange one sample of a tensor, (1, ...), that both models hold in one layout.

    Parameters
    ----------
    reading : Spatial or None
        How it lies over the input's plane; by its rank where nobody knows: channels first.
    """
    one, other = _single(a), _single(b)
    if one.ndim == 3 and reading is not None and reading.form == "channels-last":
        one, other = np.moveaxis(one, -1, 0), np.moveaxis(other, -1, 0)
    single = one.ndim == 3 and one.shape[1:] == (1, 1)
    if one.ndim == 1 or single or one.size == max(one.shape):
        return _vector(one.reshape(-1), other.reshape(-1), names, what, source)
    if one.ndim == 2:
        return Closeup(*names, what, source, "matrix", one, other, (), one.shape[0])
    one, other = (v.reshape(-1, *v.shape[-2:]) for v in (one, other))
    apart = np.nan_to_num(np.abs(one - other), nan=np.inf).max(axis=(1, 2))
    chosen = np.argsort(-apart, kind="stable")[:CHANNELS]
    numbers = tuple(int(k) for k in chosen)
    return Closeup(*names, what, source, "maps", one[chosen], other[chosen], numbers, len(one))


def _single(array: NDArray[Any]) -> NDArray[np.float64]:
    """One sample without its axis of samples, at least one axis long."""
    shape = array.shape[1:] if array.ndim > 1 and len(array) == 1 else array.shape
    return array.astype(np.float64).reshape(shape or (1,))


def _vector(
    one: NDArray[np.float64], other: NDArray[np.float64], names: tuple[str, str], what: str, source: str
) -> Closeup:
    apart = np.nan_to_num(np.abs(one - other), nan=np.inf)
    chosen = np.sort(np.argsort(-apart, kind="stable")[:ELEMENTS])
    numbers = tuple(int(k) for k in chosen)
    return Closeup(*names, what, source, "vector", one[chosen], other[chosen], numbers, len(one))
