"""How a detector's raw outputs become boxes and class scores: one file per family, its name is its registration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect import discover
from onnx_inspect.errors import TargetError

Arrays = Sequence[NDArray[Any]]
Shapes = Mapping[str, tuple[int, ...]]  # of the outputs, in their order, for one sample
Size = tuple[int, int]  # height and width of the input's plane


@dataclass(frozen=True)
class Detections:
    """Every box that a detector proposes, before any is dropped.

    Attributes
    ----------
    boxes : ndarray, (B, n, 4), float64
        Corners x0, y0, x1, y1 in [0, 1] of the input's plane; may reach beyond it.
    scores : ndarray, (B, n, classes), floats
        Probability of each class; 0 for a background class, which keeps its place.
    objects : ndarray, (B, n), floats, or None
        Probability that there is anything, where the detector says it apart from the classes.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[Any]
    objects: NDArray[Any] | None = None


@dataclass(frozen=True)
class Picked:
    """One proposal of each sample, and the slopes of a number by it.

    Attributes
    ----------
    rows : ndarray, (B,), int
        0 to B - 1.
    which : ndarray, (B,), int
        The proposal's number.
    boxes : ndarray, (B, 4), float64
        Slopes by its corners, as in :class:`Detections`.
    scores : ndarray, (B, classes), float64
        Slopes by its scores.
    """

    rows: NDArray[np.intp]
    which: NDArray[np.intp]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]

    @property
    def at(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Index of the proposals into (B, n, ...)."""
        return self.rows, self.which


@dataclass(frozen=True)
class Layout:
    """Which outputs a decoder reads.

    Attributes
    ----------
    family : str
        The decoder's name.
    tensors : tuple of str
        In the order in which it wants them.
    """

    family: str
    tensors: tuple[str, ...]

    def decode(self, arrays: Arrays, size: Size) -> Detections:
        """Make detections of outputs, (B, ...) each."""
        found: Detections = _load(self.family).decode(arrays, size)
        return found

    def slopes(self, arrays: Arrays, size: Size, picked: Picked) -> list[NDArray[np.float64]]:
        """Bring slopes by one proposal of each sample to the outputs that it was read from, of their shapes."""
        found: list[NDArray[np.float64]] = _load(self.family).slopes(arrays, size, picked)
        return found


def find(outputs: Shapes, size: Size, family: str | None = None) -> Layout:
    """Find how a detector's outputs are read: by their shapes, or as `family` says.

    A decoder gives ``fits(outputs, size, strict)``, the names of the tensors that it reads or None,
    ``decode(arrays, size)``, and its derivative ``slopes(arrays, size, picked)``. Unless it is asked for, the number of
    boxes must be what the input's size leads to.

    Raises
    ------
    TargetError
        No decoder fits, or not the one asked for.
    """
    known = discover.names(__name__)
    if family is not None and family not in known:
        raise TargetError(f"unknown decoder {family!r}; there are: {', '.join(known)}")
    for name in known if family is None else [family]:
        tensors = _load(name).fits(outputs, size, family is None)
        if tensors is not None:
            return Layout(name, tuple(tensors))
    forms = ", ".join(f"{name!r} {list(shape)}" for name, shape in list(outputs.items())[:4])
    what = f"{family!r} doesn't fit" if family is not None else f"none of {', '.join(known)} fits"
    raise TargetError(f"no boxes can be read from the outputs ({forms}): {what}; say which with --decoder")


def _load(name: str) -> ModuleType:
    return discover.load(__name__, name)
