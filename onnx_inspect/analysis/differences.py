"""By how much two tensors differ, in float64, summed up over inputs; and whether two sets of outputs agree."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]

FLOOR = 1e-3  # of the largest |a|: below it, relative differences are taken from this
QUANTILES = (0.5, 0.9, 0.99, 0.999)
KEPT = 4096  # |differences| kept for each input, for the quantiles
CHANNELS = 8  # worst channels that are named


@dataclass(frozen=True)
class Tolerance:
    """How far apart two elements may be: ``|a - b| <= atol + rtol * |a|``."""

    atol: float = 0.0
    rtol: float = 0.0


@dataclass(frozen=True)
class Difference:
    """How far B's tensor is from A's, over all inputs; all numbers in A's unit, from float64.

    Attributes
    ----------
    count : int
        Elements compared: those that are finite in both.
    max_abs, mean_abs : float
        Of |a - b|.
    max_rel : float
        Largest ``|a - b| / max(|a|, floor)``, the floor a thousandth of the largest |a|.
    cosine : float or None
        Of the two as vectors, in [-1, 1]; 1 where both are 0, None where only one is.
    sqnr_db : float or None
        ``10 log10(sum a^2 / sum (a - b)^2)``; None where nothing differs, that is, where it is infinite.
    quantiles : tuple of float
        Of |a - b|, at :data:`QUANTILES`.
    strange : int
        Elements that are NaN or infinite in one of the two only, or infinite with another sign.
    excess : float
        Largest ``|a - b| - (atol + rtol * |a|)``; infinite where `strange` isn't 0. None without a tolerance.
    worst : tuple of int
        Input and element of the largest |a - b|: (input, *index in A's layout).
    """

    count: int
    max_abs: float
    mean_abs: float
    max_rel: float
    cosine: float | None
    sqnr_db: float | None
    quantiles: tuple[float, ...]
    strange: int
    excess: float | None = None
    worst: tuple[int, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return self.max_abs == 0 and not self.strange

    @property
    def noise(self) -> float:
        """Share of the energy that differs, ``sum (a - b)^2 / sum a^2``: 0 for nothing, infinite for strange values."""
        if self.strange:
            return math.inf
        return 0.0 if self.sqnr_db is None else 10 ** (-self.sqnr_db / 10)

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is infinite or unknown is null."""
        plain = asdict(self)
        plain["quantiles"] = {f"{q:g}": v for q, v in zip(QUANTILES, self.quantiles, strict=False)}
        return plain


class Differences:
    """Running sums of how far one tensor is from another; nothing of the tensors is kept but a sample."""

    def __init__(self, tolerance: Tolerance | None = None) -> None:
        self.tolerance = tolerance
        self.inputs = self.count = self.strange = 0
        self.aa = self.bb = self.ab = self.dd = self.total = 0.0
        self.max_abs = self.max_rel = 0.0
        self.excess = -math.inf
        self.worst: tuple[int, ...] = ()
        self.sampled: list[Floats] = []

    def add(self, a: Array, b: Array) -> None:
        """Take in what one input left in both, in one layout.

        Parameters
        ----------
        a, b : ndarray of one shape
            Real numbers, integers or booleans; uint8 is widened before anything is subtracted.
        """
        index, self.inputs = self.inputs, self.inputs + 1
        x, y = a.astype(np.float64), b.astype(np.float64)
        finite = np.isfinite(x) & np.isfinite(y)
        if not finite.all():
            agree = (np.isnan(x) & np.isnan(y)) | (x == y)
            self.strange += int((~finite & ~agree).sum())
            x, y = np.where(finite, x, 0.0), np.where(finite, y, 0.0)
        if not x.size:
            return
        gap = np.abs(x - y)
        self.count += int(finite.sum())
        with np.errstate(over="ignore"):  # sums of squares beyond 1e308 are infinite, and say so
            self.aa += float(np.vdot(x, x))
            self.bb += float(np.vdot(y, y))
            self.ab += float(np.vdot(x, y))
            self.dd += float(np.vdot(gap, gap))
        self.total += float(gap.sum())
        at = int(gap.argmax())
        if not self.worst or gap.flat[at] > self.max_abs:
            self.worst = (index, *(int(i) for i in np.unravel_index(at, gap.shape)))
        self.max_abs = max(self.max_abs, float(gap.max()))
        magnitude = np.abs(x)
        floor = FLOOR * float(magnitude.max()) or 1.0
        self.max_rel = max(self.max_rel, float((gap / np.maximum(magnitude, floor)).max()))
        if self.tolerance is not None:
            allowed = self.tolerance.atol + self.tolerance.rtol * magnitude
            self.excess = max(self.excess, float((gap - allowed).max()))
        flat = gap.reshape(-1)
        self.sampled.append(flat if flat.size <= KEPT else flat[np.linspace(0, flat.size - 1, KEPT).astype(np.int64)])

    def found(self) -> Difference:
        """What all inputs together show."""
        sampled = np.concatenate(self.sampled) if self.sampled else np.zeros(1)
        excess = None
        if self.tolerance is not None:
            excess = math.inf if self.strange else max(self.excess, -math.inf)
        return Difference(
            count=self.count,
            max_abs=self.max_abs,
            mean_abs=self.total / max(self.count, 1),
            max_rel=self.max_rel,
            cosine=cosine(self.aa, self.bb, self.ab),
            sqnr_db=sqnr(self.aa, self.dd),
            quantiles=tuple(float(q) for q in np.quantile(sampled, QUANTILES)),
            strange=self.strange,
            excess=excess,
            worst=self.worst,
        )


def difference(a: Array, b: Array, tolerance: Tolerance | None = None) -> Difference:
    """How far one array is from another of its shape; see :class:`Difference`.

    Examples
    --------
    >>> import numpy as np
    >>> found = difference(np.array([3.0, 4.0]), np.array([3.0, 3.5]))
    >>> found.max_abs, round(found.sqnr_db, 2), round(found.cosine, 5)
    (0.5, 20.0, 0.99788)
    """
    sums = Differences(tolerance)
    sums.add(a, b)
    return sums.found()


def cosine(aa: float, bb: float, ab: float) -> float | None:
    """Cosine of two vectors by their scalar products."""
    if aa == 0 or bb == 0:
        return 1.0 if aa == bb else None
    norm = math.sqrt(aa) * math.sqrt(bb)
    return max(-1.0, min(1.0, ab / norm)) if math.isfinite(norm) and norm else None


def sqnr(signal: float, noise: float) -> float | None:
    """Signal to quantisation noise in dB by the sums of squares; None where there is no noise."""
    if noise == 0:
        return None
    return 10 * math.log10(signal / noise) if signal > 0 and math.isfinite(noise) else -math.inf


@dataclass(frozen=True)
class OutputAgreement:
    """Whether two outputs say the same.

    Attributes
    ----------
    a, b : str
        Names of the outputs.
    difference : Difference
    top1 : float or None
        Share of the rows whose largest element is the same one; None where the output has no classes to choose from.
    topk : float or None
        Mean share of the k largest that both have.
    k : int
    rank : float or None
        Mean rank correlation (Spearman) of the rows.
    flips : tuple of (row, A's class, B's class)
        Rows whose largest element is another one.
    """

    a: str
    b: str
    difference: Difference
    top1: float | None = None
    topk: float | None = None
    k: int = 0
    rank: float | None = None
    flips: tuple[tuple[int, int, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, the difference's own among them."""
        flips = [{"input": row, "a": one, "b": other} for row, one, other in self.flips]
        own = {"a": self.a, "b": self.b, "top1": self.top1, "topk": self.topk, "k": self.k, "rank": self.rank}
        return own | {"flips": flips} | self.difference.to_json()


def agreement(
    a: Array, b: Array, names: tuple[str, str], *, classes: bool, k: int = 5, tolerance: Tolerance | None = None
) -> OutputAgreement:
    """Compare two outputs of N samples; `classes` says that their rows are scores of classes.

    Parameters
    ----------
    a, b : ndarray of one shape, (N, ...)
    """
    apart = difference(a, b, tolerance)
    if not classes or a.ndim < 2 or not a.size:
        return OutputAgreement(*names, apart)
    x, y = (np.nan_to_num(v.astype(np.float64).reshape(len(v), -1), nan=-np.inf) for v in (a, b))
    k = min(k, x.shape[1])
    best_x, best_y = (np.argsort(-v, axis=1, kind="stable") for v in (x, y))
    shared = [len(set(p[:k]) & set(q[:k])) / k for p, q in zip(best_x, best_y, strict=True)]
    flips = tuple(
        (row, int(p[0]), int(q[0])) for row, (p, q) in enumerate(zip(best_x, best_y, strict=True)) if p[0] != q[0]
    )
    ranks = [value for p, q in zip(x, y, strict=True) if (value := rank_correlation(p, q)) is not None]
    return OutputAgreement(
        *names,
        apart,
        top1=1 - len(flips) / len(x),
        topk=float(np.mean(shared)),
        k=k,
        rank=float(np.mean(ranks)) if ranks else None,
        flips=flips,
    )


def rank_correlation(x: Array, y: Array) -> float | None:
    """Spearman's: the correlation of the ranks, ties at their mean; None where one of the two has a single value.

    Examples
    --------
    >>> import numpy as np
    >>> rank_correlation(np.array([1, 2, 3]), np.array([10, 200, 3000])), rank_correlation(np.ones(3), np.arange(3))
    (1.0, None)
    """
    p, q = (ranks(v) for v in (x, y))
    p, q = p - p.mean(), q - q.mean()
    norm = float(np.sqrt((p @ p) * (q @ q)))
    return round(float(p @ q) / norm, 12) if norm else None


def ranks(values: Array) -> Floats:
    """Ranks from 0, equal values at their mean rank."""
    order = np.argsort(values, kind="stable")
    ordered = np.asarray(values)[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    stops = np.r_[starts[1:], len(ordered)]
    found = np.empty(len(ordered))
    found[order] = np.repeat((starts + stops - 1) / 2, stops - starts)
    return found
