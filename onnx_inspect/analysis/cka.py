"""How alike the layers of two networks see the same inputs: minibatch centred kernel alignment, and a path through it.

Linear CKA with the unbiased estimator of HSIC, averaged over minibatches: T. Nguyen, M. Raghu, S. Kornblith, "Do Wide
and Deep Networks Learn the Same Things?", ICLR 2021; HSIC_1 of L. Song et al., "Feature Selection via Dependence
Maximization", JMLR 2012. Rotating, scaling or moving a layer's features changes nothing, and a layer's width doesn't
matter. It measures likeness: 1 doesn't say that two layers are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError

Floats = NDArray[np.float64]
LEAST = 4  # samples of a minibatch: the estimator divides by n (n - 1) (n - 2) (n - 3)
BLOCK = 1 << 22  # values turned into float64 at a time
SHUFFLES = 20  # of the pairing of samples, to tell what chance gives
CHANCE = 0.95  # quantile of what the shuffles give
LEAN = 1e-6  # of CKA, towards the diagonal: layers that only move or copy values are exactly alike
WORST = 1e6
STILL = 1e-24  # of the Gram matrix's own squares: what is left of a layer that says the same of every sample


def gram(activations: NDArray[Any]) -> Floats:
    """U-centred Gram matrix of one layer on one minibatch, (n, n), with a zero diagonal.

    Parameters
    ----------
    activations : ndarray, (n, ...), any real dtype
        Flattened to (n, p). The same for every choice of the features' axes and origin.

    Returns
    -------
    ndarray, (n, n), float64
        Its inner product with another layer's, over n (n - 3), is HSIC_1. All 0 where the layer says the same of every
        sample; NaN where an activation isn't finite.

    Raises
    ------
    InputError
        Fewer than 4 samples.
    """
    count = len(activations)
    enough(count)
    rows = activations.reshape(count, -1)
    kernel, scale = np.zeros((count, count)), 0.0
    step = max(1, BLOCK // count)
    for start in range(0, rows.shape[1], step):
        block = rows[:, start : start + step].astype(np.float64)
        if not np.isfinite(block).all():
            return np.full((count, count), np.nan)
        middle = block.mean(axis=0)
        scale += float(middle @ middle)
        block -= middle  # the centring below would take it off too, but not as exactly
        kernel += block @ block.T
    np.fill_diagonal(kernel, 0.0)
    sums = kernel.sum(axis=0)
    kernel -= (sums[:, None] + sums) / (count - 2)
    kernel += sums.sum() / ((count - 1) * (count - 2))
    np.fill_diagonal(kernel, 0.0)
    return kernel if float((kernel**2).mean()) > STILL * scale**2 else np.zeros_like(kernel)


def enough(count: int) -> None:
    """Refuse fewer samples than CKA can be estimated from.

    Raises
    ------
    InputError
        There are fewer than 4.
    """
    if count < LEAST:
        raise InputError(
            f"CKA compares how layers tell samples apart: it needs at least {LEAST} inputs, and tells more with 100;"
            f" got {count}: name a folder of pictures, or an array of samples"
        )


@dataclass(frozen=True)
class Likeness:
    """How alike every layer of A is to every layer of B.

    Attributes
    ----------
    a, b : tuple of str
        Names of the layers, in topological order.
    values : ndarray, (layers of A, layers of B), float64
        CKA: about 0 for unrelated layers, at most 1 for alike ones, up to the estimator's noise on both sides; NaN
        where one of the two says the same of every sample, or isn't finite.
    chance : ndarray, (layers of A,), float64
        What the best of all layers of B reaches by chance for each of A's: the 95 % quantile over shuffles of the
        samples. NaN where nothing can be said.
    nearest : tuple of int or None
        The layer of B that is most like each of A's; None where none can be told.
    path : tuple of int or None
        The best monotone way through the matrix: one layer of B for each of A's, never going back, of the largest sum.
    samples : int
    minibatches : tuple of int
        Samples of each.
    """

    a: tuple[str, ...]
    b: tuple[str, ...]
    values: Floats
    chance: Floats
    nearest: tuple[int | None, ...]
    path: tuple[int | None, ...]
    samples: int
    minibatches: tuple[int, ...]

    @property
    def path_mean(self) -> float:
        """Mean CKA along the path; NaN where there is none."""
        found = [self.values[i, j] for i, j in enumerate(self.path) if j is not None]
        return float(np.mean(found)) if found else float("nan")

    def above_chance(self, index: int) -> bool:
        """Whether the nearest layer of one of A's is more alike than chance makes the best of B's."""
        column = self.nearest[index]
        return column is not None and bool(self.values[index, column] > self.chance[index])

    def to_json(self) -> dict[str, Any]:
        """What ``compare --cka --json`` prints under ``cka``."""
        return {
            "samples": self.samples,
            "minibatches": list(self.minibatches),
            "layers_a": list(self.a),
            "layers_b": list(self.b),
            "matrix": self.values,
            "nearest": [self._pair(i, j) | {"above_chance": self.above_chance(i)} for i, j in enumerate(self.nearest)],
            "path": [self._pair(i, j) for i, j in enumerate(self.path)],
            "path_mean": self.path_mean,
        }

    def _pair(self, row: int, column: int | None) -> dict[str, Any]:
        found = None if column is None else float(self.values[row, column])
        return {"a": self.a[row], "b": None if column is None else self.b[column], "cka": found}


class Sums:
    """Running sums of HSIC over minibatches, from each layer's Gram matrices."""

    def __init__(self, rows: int, columns: int, *, seed: int = 0, shuffles: int = SHUFFLES) -> None:
        self.between = np.zeros((shuffles + 1, rows, columns))  # first the true pairing
        self.within = np.zeros(rows), np.zeros(columns)
        self.sizes: list[int] = []
        self.rng = np.random.default_rng(seed)

    def add(self, a: Sequence[Floats], b: Sequence[Floats]) -> None:
        """Add one minibatch: a Gram matrix (n, n) for each layer of A and of B, as :func:`gram` makes them."""
        ours, theirs = np.stack(a), np.stack(b)  # (La, n, n), (Lb, n, n)
        count = ours.shape[1]
        self.sizes.append(count)
        flat = ours.reshape(len(ours), -1)
        for number, sums in enumerate(self.between):
            order = np.arange(count) if not number else self.rng.permutation(count)
            sums += hsic(flat, theirs[:, order][:, :, order].reshape(len(theirs), -1), count)
        for sums, kernels in zip(self.within, (ours, theirs), strict=True):
            sums += (kernels**2).sum(axis=(1, 2)) / (count * (count - 3))

    def likeness(self, a: Sequence[str], b: Sequence[str]) -> Likeness:
        """What the minibatches so far say of layers with these names."""
        values = normalised(self.between, *self.within)
        best = np.where(np.isfinite(values[1:]), values[1:], -np.inf).max(axis=2)  # (shuffles, La)
        some = np.isfinite(values[0]).any(axis=1)
        chance = np.where(some, np.quantile(np.where(some, best, 0), CHANCE, axis=0), np.nan)
        return Likeness(
            a=tuple(a),
            b=tuple(b),
            values=values[0],
            chance=chance,
            nearest=nearest(values[0]),
            path=monotone_path(values[0]),
            samples=sum(self.sizes),
            minibatches=tuple(self.sizes),
        )


def hsic(a: Floats, b: Floats, count: int) -> Floats:
    """HSIC_1 of flattened U-centred Gram matrices (La, n n) and (Lb, n n) of `count` samples, as (La, Lb)."""
    return np.asarray(a @ b.T / (count * (count - 3)))


def normalised(between: Floats, a: Floats, b: Floats) -> Floats:
    """CKA (..., La, Lb) from summed HSIC between layers, and of the layers (La,) and (Lb,) with themselves."""
    scale = np.sqrt(np.outer(a, b))
    return np.divide(between, scale, out=np.full(between.shape, np.nan), where=np.isfinite(scale) & (scale > 0))


def nearest(values: Floats) -> tuple[int | None, ...]:
    """Column of each row's largest number, of equal ones the nearest in relative depth; None where a row holds none."""
    leaning = _leaning(values)
    return tuple(int(row.argmax()) if np.isfinite(row).any() else None for row in leaning)


def monotone_path(values: Floats) -> tuple[int | None, ...]:
    """One column for each row, never going back, so that the sum of what they name is the largest.

    One cell a row, so that no detour pays, as it would where a path may also move along a row. Rows that hold no number
    name no column. Of equal sums the path nearest to the diagonal.

    Examples
    --------
    >>> monotone_path(np.array([[0.9, 0.1, 0.8], [0.2, 0.7, 0.6], [0.9, 0.1, 0.6]]))
    (0, 1, 2)
    """
    known = np.isfinite(values)
    rows = np.flatnonzero(known.any(axis=1))
    if not rows.size:
        return (None,) * len(values)
    scores = np.maximum(_leaning(values), -WORST)[rows]  # a cell that holds nothing is never worth a step
    total, came = scores[0].copy(), []
    for row in scores[1:]:
        before = np.maximum.accumulate(total)
        reached = np.concatenate([[True], before[1:] > before[:-1]])  # where a column beats all to its left
        came.append(np.maximum.accumulate(np.where(reached, np.arange(len(total)), 0)))
        total = before + row
    column = int(total.argmax())
    columns = [column]
    for back in reversed(came):
        column = int(back[column])
        columns.append(column)
    found: list[int | None] = [None] * len(values)
    for row, chosen in zip(rows, reversed(columns), strict=True):
        found[row] = chosen if known[row, chosen] else None
    return tuple(found)


def _leaning(values: Floats) -> Floats:
    """The numbers, leaning towards the diagonal by less than they are known to; minus infinity where there is none."""
    down, across = (np.linspace(0, 1, n) if n > 1 else np.array([0.5]) for n in values.shape)
    away = np.abs(down[:, None] - across)
    return np.where(np.isfinite(values), values - LEAN * away, -np.inf)
