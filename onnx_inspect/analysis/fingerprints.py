"""What of a tensor's values is kept to recognise it elsewhere, and how alike two tensors are, whatever their layout."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]

SAMPLED = 1024  # elements kept of a tensor, over all inputs
CEILING = 12.0  # of closeness: more digits than float32 has
ALIKE = 1 - 10**-CEILING
EQUAL = 1e-10  # likenesses that differ by no more are rounded differently


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """A few of a tensor's elements, at places that depend on nothing but how many it has.

    Attributes
    ----------
    shape : tuple of int
        For one input.
    stepped : bool
        Whether it holds 8-bit integers, which stand for real numbers by a scale that need not be known.
    rows : ndarray, (P, S), float32
        The same places in each order of the axes (see :func:`orders`): another layout of the same values agrees in one
        row with the first row of this one. NaN is 0, infinities are the largest numbers.
    strange : float
        Share of the sampled elements that are NaN or infinite.
    dtype : str
    steps : (float, float) or None
        Scale and zero point of 8-bit integers, where they are known.
    """

    shape: tuple[int, ...]
    stepped: bool
    rows: NDArray[np.float32]
    strange: float = 0.0
    dtype: str = ""
    steps: tuple[float, float] | None = None

    @property
    def size(self) -> int:
        """Elements for one input."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def values(self) -> Floats:
        """The sampled elements in the tensor's own order, float64."""
        return self.rows[0].astype(np.float64)

    @property
    def constant(self) -> bool:
        """Whether all sampled elements are one number."""
        return bool(self.rows[0].min(initial=np.inf) >= self.rows[0].max(initial=-np.inf))


def sketch(array: Array, inputs: int) -> Fingerprint:
    """Keep what one of `inputs` inputs left in a tensor.

    Parameters
    ----------
    array : ndarray
        Real numbers, integers or booleans, at least one.
    """
    places = _places(array.size, max(1, SAMPLED // inputs))
    rows = np.empty((len(orders(array.ndim)), len(places)), np.float32)
    flat = array.reshape(-1)
    strange = 0.0
    for row, order in zip(rows, orders(array.ndim), strict=True):
        found = flat[_moved(places, array.shape, order)].astype(np.float64)
        strange = float(np.mean(~np.isfinite(found)))
        limit = float(np.finfo(np.float32).max)
        row[:] = np.clip(np.nan_to_num(found, nan=0.0, posinf=limit, neginf=-limit), -limit, limit)
    return Fingerprint(
        array.shape, array.dtype.kind in "iu" and array.dtype.itemsize == 1, rows, strange, str(array.dtype)
    )


def joined(parts: Sequence[Fingerprint]) -> Fingerprint:
    """One fingerprint of what several inputs left in the same tensor."""
    rows = np.concatenate([part.rows for part in parts], axis=1)
    strange = float(np.mean([part.strange for part in parts]))
    return Fingerprint(parts[0].shape, parts[0].stepped, rows, strange, parts[0].dtype)


@functools.cache
def orders(rank: int) -> tuple[tuple[int, ...], ...]:
    """Orders of the axes that are looked at: all that leave the first axis, of three axes all, of many the usual two.

    Examples
    --------
    >>> orders(2), len(orders(3)), len(orders(4))
    (((0, 1),), 6, 6)
    """
    own = tuple(range(rank))
    if rank < 3:
        return (own,)
    if rank == 3:
        return tuple(itertools.permutations(own))
    if rank == 4:
        return tuple((0, *rest) for rest in itertools.permutations(own[1:]))
    return own, (0, *own[2:], 1), (0, rank - 1, *own[1:-1])


@functools.lru_cache(4096)
def _places(size: int, count: int) -> NDArray[np.int64]:
    """Numbers of the sampled elements; the same for all tensors of one size."""
    if size <= count:
        return np.arange(size)
    return np.sort(np.random.default_rng(size).choice(size, count, replace=False))


def _moved(places: NDArray[np.int64], shape: tuple[int, ...], order: tuple[int, ...]) -> NDArray[np.int64]:
    """Where elements lie in an array of `shape` whose numbers count it with its axes in another order."""
    if len(shape) < 3 or order == tuple(range(len(shape))):
        return places
    index = np.unravel_index(places, [shape[axis] for axis in order])
    back = [index[order.index(axis)] for axis in range(len(shape))]
    return np.ravel_multi_index(back, shape)


@dataclass(frozen=True, eq=False)
class Likeness:
    """How alike the tensors of two models are.

    Attributes
    ----------
    values : ndarray, (A, B), float64
        ``min(Pearson, 1 - D^2 / 2)``, D the distance relative to the norms; Pearson alone where either is in 8-bit
        steps. 1 means the same values, perhaps in another layout; 0 is also what tensors of other sizes have.
    order : ndarray, (A, B), int
        Number in :func:`orders` of A's axes in B's layout.
    """

    values: Floats
    order: NDArray[np.int64]

    @property
    def closeness(self) -> Floats:
        """``-log10(1 - value)``, the number of digits in which two agree, at most 12."""
        return closeness(self.values)


def closeness(likeness: Any) -> Any:
    """``-log10(1 - likeness)``: 12 for equal values, about 6 for half precision, 2 for int8."""
    return -np.log10(1 - np.clip(likeness, 0, ALIKE))


def likeness(a: Sequence[Fingerprint], b: Sequence[Fingerprint]) -> Likeness:
    """Compare all tensors of equal size."""
    values = np.zeros((len(a), len(b)))
    order = np.zeros((len(a), len(b)), np.int64)
    right = _by_size(b)
    for size, of_a in _by_size(a).items():
        of_b = right.get(size, [])
        if not of_b:
            continue
        other = np.stack([b[j].values for j in of_b])  # (B', S)
        stepped = np.array([b[j].stepped for j in of_b])
        for i in of_a:
            found = _against(a[i], other, stepped)  # (P, B')
            best = (found >= found.max(axis=0) - EQUAL).argmax(axis=0)  # the first of equals: the tensor's own layout
            values[i, of_b] = found[best, range(len(of_b))]
            order[i, of_b] = best
    return Likeness(values, order)


def alike(a: Fingerprint, b: Fingerprint) -> float:
    """How alike two tensors are, from 0 to 1; see :class:`Likeness`."""
    return float(likeness([a], [b]).values[0, 0])


def _by_size(prints: Sequence[Fingerprint]) -> Mapping[tuple[int, int], list[int]]:
    found: dict[tuple[int, int], list[int]] = {}
    for number, one in enumerate(prints):
        found.setdefault((one.size, one.rows.shape[1]), []).append(number)
    return found


def _against(one: Fingerprint, others: Floats, stepped: NDArray[np.bool_]) -> Floats:
    """Likeness of each of one's rows to each of the others: (P, B)."""
    rows = one.rows.astype(np.float64)
    pearson = _products(rows - rows.mean(axis=1, keepdims=True), others - others.mean(axis=1, keepdims=True))
    if one.stepped or rows.shape[1] == 0:
        return _constants(pearson, rows, others)
    # 1 - D^2 / 2 with D^2 = |x - y|^2 / (|x| |y|), by the scalar product of x and y over their larger square
    squares_x, squares_y = (rows**2).sum(axis=1)[:, None], (others**2).sum(axis=1)[None]
    distance = np.maximum(squares_x + squares_y - 2 * rows @ others.T, 0)
    norm = np.sqrt(squares_x * squares_y)
    relative = 1 - np.divide(distance, 2 * norm, out=np.ones_like(distance), where=norm > 0)
    both = np.where(stepped[None], pearson, np.minimum(pearson, relative))
    return np.clip(_constants(both, rows, others), 0, 1)


def _products(x: Floats, y: Floats) -> Floats:
    """Cosines of the rows of two matrices; 0 where either is 0."""
    norms = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(y, axis=1)[None]
    return np.clip(np.divide(x @ y.T, norms, out=np.zeros(norms.shape), where=norms > 0), 0, 1)


def _constants(found: Floats, rows: Floats, others: Floats) -> Floats:
    """Put right what no correlation tells: rows that are one number each are alike where it is the same number."""
    flat, flats = np.ptp(rows, axis=1) == 0, np.ptp(others, axis=1) == 0
    if flat.any() and flats.any():
        same = np.isclose(rows[:, :1], others[:, 0][None], rtol=1e-3, atol=1e-6)
        found = np.where(flat[:, None] & flats[None], same.astype(np.float64), found)
    return found
