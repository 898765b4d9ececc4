"""What an axis of a tensor is made of: pieces of the axes it came from, and which of their entries it holds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["sample", "position", "channel", "constant", "other"]
Index = NDArray[np.intp]
RANK: dict[Kind, int] = {"sample": 4, "position": 3, "channel": 2, "constant": 1, "other": 0}  # which says most


@dataclass(frozen=True, eq=False)
class Base:
    """An axis as it was born, at a tensor named `origin`.

    `parts` say which entries of other axes it holds, one after the other; an axis without them is a new beginning.
    `parents` are axes that it was computed from without holding their entries (a strided convolution's).
    """

    kind: Kind
    size: int
    origin: str
    axis: int
    parts: tuple[Part, ...] = ()
    parents: tuple[Factor, ...] = ()
    order: int = field(default_factory=itertools.count().__next__)  # a Base is younger than those it has parts of


@dataclass(frozen=True, eq=False)
class Part:
    """Entries `index` of an axis made of `factors`, from the tensor `source`; without factors they are padding."""

    source: str
    factors: Axis
    index: Index


@dataclass(frozen=True)
class Factor:
    """Every `stride`-th entry of a Base, `size` of them; entries of several factors of an axis count like digits."""

    base: Base
    size: int
    stride: int = 1


Axis = tuple[Factor, ...]
Axes = tuple[Axis, ...]


def born(kind: Kind, shape: Sequence[int], origin: str, first: int = 0) -> Axes:
    """Axes without a past."""
    return tuple((Factor(Base(kind, n, origin, first + i), n),) for i, n in enumerate(shape))


def size(axis: Axis) -> int:
    """Entries of an axis."""
    return math.prod(f.size for f in axis)


def kind(axis: Axis) -> Kind:
    """What most of an axis stands for; the largest factor decides."""
    best = max(axis, key=lambda f: (f.size, RANK[f.base.kind]), default=None)
    return "other" if best is None else best.base.kind


def reshaped(axes: Axes, shape: Sequence[int]) -> Axes | None:
    """Deal the factors of axes out to a new shape; None where a factor doesn't divide as the shape asks."""
    waiting = [f for axis in axes for f in axis]
    result: list[Axis] = []
    for position, wanted in enumerate(shape):
        taken: list[Factor] = []
        if wanted == 1:
            if waiting and waiting[0].size == 1:
                taken.append(waiting.pop(0))
        else:
            rest = wanted
            while rest > 1:
                if not waiting:
                    return None
                factor = waiting.pop(0)
                if factor.size > rest:
                    if factor.size % rest:
                        return None
                    inner = factor.size // rest
                    waiting.insert(0, Factor(factor.base, inner, factor.stride))
                    factor = Factor(factor.base, rest, factor.stride * inner)
                if rest % factor.size:
                    return None
                rest //= factor.size
                taken.append(factor)
        if position == len(shape) - 1:
            taken += waiting
            waiting = []
        result.append(_merged(taken))
    return None if any(f.size > 1 for f in waiting) else _settled(result)


def _merged(factors: list[Factor]) -> Axis:
    """Join neighbours that are the outer and the inner part of one factor."""
    result: list[Factor] = []
    for f in factors:
        last = result[-1] if result else None
        if last is not None and last.base is f.base and last.stride == f.stride * f.size and f.size > 1:
            result[-1] = Factor(f.base, last.size * f.size, f.stride)
        else:
            result.append(f)
    return tuple(result)


def _settled(axes: list[Axis]) -> Axes:
    """Move a lone sample that was dealt to tokens over to the heads before them: (heads * samples, tokens, ...)."""
    for i in range(1, len(axes)):
        head = axes[i][0] if axes[i] else None
        alone = head is not None and head.base.kind == "sample" and head.size == 1 and len(axes[i]) > 1
        if alone and head is not None and kind(axes[i][1:]) == "position" and kind(axes[i - 1]) == "channel":
            axes[i - 1], axes[i] = (*axes[i - 1], head), axes[i][1:]
    return tuple(axes)


def picked(axis: Axis, index: Index, origin: str, position: int, source: str) -> Axis:
    """Axis of some entries of another; -1 stands for padding."""
    parts = _parts(axis, source)
    starts = np.cumsum([0, *(len(p.index) for p in parts)])
    number = np.searchsorted(starts, index, side="right") - 1  # which part; -1 for padding
    cuts = np.flatnonzero(np.diff(number)) + 1
    runs = []
    for entries, which in zip(np.split(index, cuts), np.split(number, cuts), strict=True):
        if len(which) and which[0] < 0:
            runs.append(Part("", (), entries))
        elif len(which):
            part = parts[which[0]]
            runs.append(Part(part.source, part.factors, part.index[entries - starts[which[0]]]))
    return _strung(runs, kind(axis), origin, position)


def joined(axes: Sequence[Axis], origin: str, position: int, sources: Sequence[str]) -> Axis:
    """Axis of other axes' entries, one after the other."""
    best = max((kind(a) for a in axes), key=lambda k: RANK[k])
    parts = [part for axis, source in zip(axes, sources, strict=True) for part in _parts(axis, source)]
    return _strung(parts, best, origin, position)


def _parts(axis: Axis, source: str) -> Sequence[Part]:
    """What an axis was strung together from; itself where it wasn't."""
    whole = len(axis) == 1 and axis[0].size == axis[0].base.size
    return (whole and axis[0].base.parts) or (Part(source, axis, np.arange(size(axis))),)


def _strung(parts: Sequence[Part], of: Kind, origin: str, position: int) -> Axis:
    """Axis of parts; neighbours from the same axis become one, and one that holds all of an axis is that axis."""
    kept: list[Part] = []
    for part in parts:
        if not len(part.index):
            continue
        if kept and kept[-1].factors == part.factors:
            part = Part(kept[-1].source, part.factors, np.concatenate([kept[-1].index, part.index]))
            kept.pop()
        kept.append(part)
    if len(kept) == 1 and kept[0].factors and np.array_equal(kept[0].index, np.arange(size(kept[0].factors))):
        return kept[0].factors
    total = sum(len(p.index) for p in kept)
    return (Factor(Base(of, total, origin, position, tuple(kept)), total),)


def resolve(axes: Sequence[Axis]) -> dict[Base, Index]:
    """Which entry of the first beginnings each entry of an outer product of axes holds.

    Returns
    -------
    dict of Base to ndarray of int, (size of the first axis, size of the second, ...)
        -1 where an entry holds none of that Base.
    """
    shape = tuple(size(axis) for axis in axes)
    found: dict[Base, Index] = {}
    waiting = _Places(math.prod(shape))
    for number, axis in enumerate(axes):
        of = np.indices(shape)[number].ravel()
        waiting.add(axis, of, np.ones(len(of), bool))
    while waiting.entries:
        base = max(waiting.entries, key=lambda b: b.order)  # the youngest: nothing more can come to it
        entries, missing = waiting.entries.pop(base), waiting.missing.pop(base)
        if base.parts:
            waiting.follow(base, entries, ~missing)
        else:
            found[base] = np.where(missing, -1, entries).reshape(shape)
    return found


class _Places:
    """For some entries, which of each Base they hold: sums of what several factors of it say."""

    def __init__(self, count: int) -> None:
        self.entries: dict[Base, Index] = {}
        self.missing: dict[Base, NDArray[np.bool_]] = {}
        self.count = count

    def add(self, axis: Axis, of: Index, there: NDArray[np.bool_]) -> None:
        """Say which entry of an axis is held; nothing where `there` is False."""
        digits = np.unravel_index(np.where(there, of, 0), [f.size for f in axis] or [1])
        for f, digit in zip(axis, digits, strict=False):
            before = self.entries.setdefault(f.base, np.zeros(self.count, np.intp))
            self.missing.setdefault(f.base, np.zeros(self.count, bool))
            self.entries[f.base] = before + np.asarray(digit * f.stride * there, np.intp)

    def follow(self, base: Base, entries: Index, there: NDArray[np.bool_]) -> None:
        """Go from a Base to those that its parts were taken from; what no part tells of is missing in them."""
        told: dict[Base, NDArray[np.bool_]] = {}
        start = 0
        for part in base.parts:
            inside = there & (entries >= start) & (entries < start + len(part.index))
            of = np.full(self.count, -1, np.intp)
            of[inside] = part.index[entries[inside] - start]
            start += len(part.index)
            self.add(part.factors, of, of >= 0)
            for f in part.factors:
                told[f.base] = told.get(f.base, np.zeros(self.count, bool)) | (of >= 0)
        for inner, where in told.items():
            self.missing[inner] |= ~where


def pieces(axis: Axis) -> Iterator[tuple[str, int]]:
    """Tensors that an axis was strung together from and how many entries each gave; "" stands for padding."""
    for part in _parts(axis, ""):
        yield part.source if part.factors else "", len(part.index)


def beginnings(axes: Sequence[Axis]) -> set[Base]:
    """Every Base that axes come from, however computed."""
    found: set[Base] = set()
    waiting = [f.base for axis in axes for f in axis]
    while waiting:
        base = waiting.pop()
        if base not in found:
            found.add(base)
            waiting += [f.base for f in base.parents]
            waiting += [f.base for part in base.parts for f in part.factors]
    return found
