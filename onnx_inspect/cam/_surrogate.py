"""What masks that were not run would have scored: a Gaussian process over what they have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from onnx_inspect.cam._probe import Index, Maps

Floats = NDArray[np.float64]
LENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the kernel: multiples of the median squared distance of what was run
SHARES = (0.0, 0.5, 1.0)  # of the kernel's linear part; the rest falls off with the distance
NOISES = (1e-3, 1e-2, 0.1, 0.3)  # variance that the features don't explain, as a share of the kernel's
FEW = 200  # of what was run is enough to choose between these
MANY = 500  # from here on the uncertainty is no longer worth its cost
ROUNDS = 10  # of k-means


@dataclass(frozen=True)
class Surrogate:
    """Scores of Q masks, predicted from those of some of them.

    Attributes
    ----------
    mean : ndarray, (Q, b), float64
        Predicted scores; of masks that were run, what they scored.
    spread : ndarray, (Q,), float64
        Standard deviation of the prediction, in the score's unit; 0 of masks that were run.
    kernel : Kernel
    """

    mean: Floats
    spread: Floats
    kernel: Kernel
    _whitened: Floats  # (n, Q): the kernel's columns of what was run, seen through its Cholesky factor
    _scale: float

    def pick(self, count: int, weight: Floats) -> Index:
        """Choose masks that were not run, the most informative first.

        One after the other, each with the largest `weight` times spread, where the spread counts that those chosen
        before it will be known.
        """
        left, free = self.spread.copy(), self.spread > 0
        with threadpool_limits(1):
            return self._picked(count, weight, left, free)

    def _picked(self, count: int, weight: Floats, left: Floats, free: NDArray[np.bool_]) -> Index:
        count, before = min(count, int(free.sum())), len(self._whitened)
        known = np.concatenate([self._whitened, np.empty((count, len(left)))])
        chosen = np.empty(count, np.intp)
        for step in range(count):
            best = int(np.argmax(np.where(free, weight * left, -1.0)))
            chosen[step], free[best] = best, False
            seen = known[: before + step]
            column = self.kernel.of(*self.kernel.apart(slice(None), np.array([best])))[:, 0] - seen[:, best] @ seen
            known[before + step] = column / np.sqrt(max(column[best], 0.0) + self.kernel.noise)
            left = np.sqrt(np.maximum(left**2 - (self._scale * known[before + step]) ** 2, 0))
        return chosen


@dataclass(frozen=True)
class Kernel:
    """How alike scores are: ``share <m, m'> / scale + (1 - share) exp(-|m - m'|^2 / (2 length))``, of centred masks.

    `noise` is the variance that this leaves unexplained.
    """

    features: Floats  # (Q, F), centred
    squares: Floats  # (Q,)
    share: float = 0.0
    length: float = 1.0
    noise: float = NOISES[0]

    @property
    def scale(self) -> float:
        """Mean squared length of the masks."""
        return float(self.squares.mean()) or 1.0

    def apart(self, rows: Index | slice, columns: Index) -> tuple[Floats, Floats]:
        """Inner products and squared distances, (rows, columns) each."""
        products = self.features[rows] @ self.features[columns].T
        return products, np.maximum(self.squares[rows, None] + self.squares[columns] - 2 * products, 0)

    def of(self, products: Floats, apart: Floats) -> Floats:
        """The kernel of masks with those inner products and distances."""
        found = self.share * products / self.scale
        return found if self.share == 1 else found + (1 - self.share) * np.exp(-apart / (2 * self.length))

    def diagonal(self) -> Floats:
        return np.asarray(self.share * self.squares / self.scale + 1 - self.share)


def predict(features: Maps, run: Index, scores: Floats, kernel: Kernel | None = None) -> Surrogate:
    """Predict scores from those of the masks that were run.

    Parameters
    ----------
    features : ndarray, (Q, F)
        Masks that are close score alike.
    run : ndarray, (n,), int
    scores : ndarray, (n, b), float64
        Of those that were run. Columns share the kernel.
    kernel : Kernel, optional
        Chosen where None: the one, of a few dozen, under which the scores are likeliest (type II maximum likelihood),
        their own scale taken off.
    """
    from scipy.linalg import solve_triangular

    with threadpool_limits(1):  # BLAS's threads would spin on beside the runtime's and slow the next forward pass
        mean, scale = scores.mean(axis=0), scores.std(axis=0)
        units = (scores - mean) / np.where(scale > 0, scale, 1.0)
        kernel = _likeliest(features, run, units) if kernel is None else kernel
        columns = kernel.of(*kernel.apart(slice(None), run))  # (Q, n)
        factor = np.linalg.cholesky(columns[run] + kernel.noise * np.eye(len(run)))
        answer = solve_triangular(factor, units, lower=True, check_finite=False)
        found = columns @ solve_triangular(factor, answer, lower=True, trans=1, check_finite=False) * scale + mean
        found[run] = scores
        size = float(np.sqrt((answer**2).mean()) * scale.mean())  # amplitude of the kernel, in the score's unit
        whitened, spread = np.zeros((0, len(features))), size * np.sqrt(np.maximum(kernel.diagonal(), 1e-12))
        if len(run) <= MANY:
            whitened = solve_triangular(factor, columns.T, lower=True, check_finite=False)
            spread = size * np.sqrt(np.maximum(kernel.diagonal() - (whitened**2).sum(axis=0), 1e-12))
        spread[run] = 0
    return Surrogate(found, spread, kernel, whitened, size)


def _likeliest(features: Maps, run: Index, units: Floats) -> Kernel:
    """The kernel that makes the scores likeliest, judged on the first of them."""
    from scipy.linalg import solve_triangular

    centred = np.asarray(features, np.float64) - features.mean(axis=0, dtype=np.float64)
    blank = Kernel(centred, (centred**2).sum(axis=1))
    judged, answers = run[:FEW], units[:FEW]
    products, apart = blank.apart(judged, judged)
    best, chosen = -np.inf, blank
    for kernel in _kernels(blank, apart):
        matrix = kernel.of(products, apart)
        for noise in NOISES:
            factor = np.linalg.cholesky(matrix + noise * np.eye(len(judged)))
            energy = float((solve_triangular(factor, answers, lower=True, check_finite=False) ** 2).mean())
            likelihood = -0.5 * len(judged) * np.log(max(energy, 1e-30)) - float(np.log(np.diag(factor)).sum())
            if likelihood > best:
                best, chosen = likelihood, replace(kernel, noise=noise)
    return chosen


def _kernels(blank: Kernel, apart: Floats) -> Iterator[Kernel]:
    """The kernels to choose from; distances are in units of those between the masks that were run."""
    positive = apart[apart > 1e-9 * blank.scale]
    middle = float(np.median(positive)) if len(positive) else blank.scale
    for share in SHARES:
        for length in LENGTHS if share < 1 else LENGTHS[:1]:
            yield replace(blank, share=share, length=middle * length)


def centres(features: Maps, count: int, seed: int) -> Index:
    """Group masks by k-means and take of each group the one nearest to its centre; large groups first.

    There may be fewer than asked for, where masks repeat each other.
    """
    points = np.asarray(features, np.float64)
    with threadpool_limits(1):
        means = _seeds(points, count, np.random.default_rng(seed))
        for _ in range(ROUNDS):
            label, _ = _nearest(points, means)
            sizes = np.bincount(label, minlength=len(means))
            moved = np.eye(len(means))[label].T @ points
            means = np.where(sizes[:, None] > 0, moved / np.maximum(sizes, 1)[:, None], means)
        label, distance = _nearest(points, means)
    sizes = np.bincount(label, minlength=len(means))
    groups = [group for group in np.argsort(-sizes, kind="stable") if sizes[group]]
    members = [np.flatnonzero(label == group) for group in groups]
    return np.array([own[np.argmin(distance[own])] for own in members], np.intp)


def _seeds(points: Floats, count: int, rng: np.random.Generator) -> Floats:
    """First centres (count, F), each likely far from those before it (k-means++)."""
    chosen = [int(rng.integers(len(points)))]
    apart = ((points - points[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < count and apart.max() > 0:
        reach = np.cumsum(apart)
        chosen.append(min(int(np.searchsorted(reach, rng.random() * reach[-1], side="right")), len(points) - 1))
        apart = np.minimum(apart, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
    return points[chosen]


def _nearest(points: Floats, means: Floats) -> tuple[Index, Floats]:
    """Label of each point's nearest centre, and the squared distance to it."""
    apart = (means**2).sum(axis=1) - 2 * points @ means.T
    label = np.argmin(apart, axis=1)
    own = apart[np.arange(len(points)), label] + (points**2).sum(axis=1)
    return label, np.maximum(own, 0)
