"""What a layer's weights look like in numbers: spread, norms, spectrum, dead and duplicate units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from onnx_inspect.graph.weights import LEARNED, LayerWeight

BINS = 61  # odd, so that one bin of a symmetric spread holds the zeros
NEAR_ZERO = 1e-3  # of the largest magnitude
DUPLICATE = 0.999  # cosine
EXACT = 2e10  # rows * columns * the smaller of both, up to which the spectrum is computed whole: about a second
ROUNDING = 1e-6  # of the largest singular value: smaller ones are rounding, of float32 weights and of their products
SKETCH = 64  # singular values found of larger matrices
COMPARED = 4096  # units up to which duplicates are looked for: the comparison is quadratic
SHORT = 4  # numbers that a unit must have to be compared: shorter ones point the same way by chance


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values of the matrix (units, numbers per unit), descending.

    Attributes
    ----------
    values : ndarray, (R,), float64
        Empty where there is no matrix (a vector), or where it holds NaN or infinity.
    note : str
        Why it is empty or not whole; "" for all singular values.
    condition : float or None
        Largest divided by smallest; infinite where that would be over a million, which float32 can't tell from a lack
        of rank; None where the spectrum isn't whole.
    effective_rank : float or None
        exp of the entropy of values / sum (Roy & Vetterli 2007): 1 for a rank-one matrix, R where all are equal.
    """

    values: NDArray[np.float64]
    note: str = ""
    condition: float | None = None
    effective_rank: float | None = None


@dataclass(frozen=True, eq=False)
class WeightView:
    """One weight tensor and what is worth knowing of it; figures over finite values only.

    Attributes
    ----------
    weight : LayerWeight
    values : ndarray, `weight.shape`, float32
    count, zeros, nan, inf : int
        Numbers in all, exact zeros, NaNs, infinities.
    near_zero : float
        Fraction with a magnitude under a thousandth of the largest, zeros included.
    mean, std, low, high : float
        NaN where nothing is finite.
    l1, l2 : ndarray, (U,), float64
        Norm of each unit: output channel, row of a matrix, entry of a table.
    dead : tuple of int
        Units whose numbers are all zero; of weights, not of biases and the like.
    duplicates : tuple of tuple of int
        Groups of units whose numbers point the same way (cosine > 0.999); () where there are too many to compare.
    histogram, edges : ndarray, (B,) and (B + 1,)
    spectrum : Spectrum
    notes : tuple of str
        What a reader must know: where numbers aren't finite, what wasn't computed.
    colour : str
        ``RGB`` or ``BGR``: what the three input channels are of a layer that sees a picture.
    """

    weight: LayerWeight
    values: NDArray[np.float32]
    count: int
    zeros: int
    nan: int
    inf: int
    near_zero: float
    mean: float
    std: float
    low: float
    high: float
    l1: NDArray[np.float64]
    l2: NDArray[np.float64]
    dead: tuple[int, ...]
    duplicates: tuple[tuple[int, ...], ...]
    histogram: NDArray[np.int64]
    edges: NDArray[np.float64]
    spectrum: Spectrum
    notes: tuple[str, ...]
    colour: str = "RGB"

    @property
    def abs_max(self) -> float:
        """Largest magnitude."""
        return max(abs(self.low), abs(self.high))

    @property
    def sparsity(self) -> float:
        """Fraction of exact zeros."""
        return self.zeros / self.count if self.count else 0.0

    def to_json(self) -> dict[str, Any]:
        """Everything but the numbers themselves; what isn't finite is None."""
        weight, spectrum = self.weight, self.spectrum
        return {
            "layer": weight.layer.name,
            "op_type": weight.layer.op_type,
            "tensor": weight.name,
            "role": weight.role,
            "kind": weight.kind,
            "shape": list(weight.shape),
            "dtype": weight.dtype,
            "quantised": weight.quantised,
            "parameters": self.count,
            **{key: _finite(getattr(self, key)) for key in ("mean", "std", "low", "high", "abs_max")},
            "zeros": self.zeros,
            "sparsity": self.sparsity,
            "near_zero": self.near_zero,
            "nan": self.nan,
            "inf": self.inf,
            "norms_l1": [_finite(v) for v in self.l1.tolist()],
            "norms_l2": [_finite(v) for v in self.l2.tolist()],
            "dead": list(self.dead),
            "duplicates": [list(group) for group in self.duplicates],
            "histogram": {"counts": self.histogram.tolist(), "edges": self.edges.tolist()},
            "spectrum": spectrum.values.tolist(),
            "condition": _finite(spectrum.condition),
            "effective_rank": _finite(spectrum.effective_rank),
            "notes": list(self.notes),
        }


def view(weight: LayerWeight, *, colour: str = "RGB") -> WeightView:
    """Read one weight and describe it.

    Sums and norms are taken in float64. NaN and infinity are counted, said, and left out of every figure.

    Parameters
    ----------
    weight : LayerWeight
    colour : str
        What three input channels mean, ``RGB`` or ``BGR``; kept for whoever draws them.

    Raises
    ------
    ModelError
        Its bytes are missing or broken.
    """
    values = weight.array()
    finite = np.isfinite(values)
    whole = bool(finite.all())
    sound = values.ravel() if whole else values[finite]
    units = as_units(values, weight)  # (U, F)
    clean = units if whole else np.where(np.isfinite(units), units, np.float32(0))
    l1 = np.abs(clean).sum(1, dtype=np.float64)
    l2 = np.sqrt(np.einsum("ij,ij->i", clean, clean, dtype=np.float64))
    nan = int(np.isnan(values).sum())
    spectrum = _spectrum(clean, whole)
    duplicates, unsearched = _duplicates(clean, l2)
    dead = (l2 == 0) & np.isfinite(units).all(1) if weight.role in LEARNED else np.zeros(l2.size, bool)
    reach = float(np.abs(sound).max()) if sound.size else 0.0
    notes = [weight.note] if weight.note else []
    if not whole:
        notes.append(f"{nan:,} NaN and {values.size - sound.size - nan:,} infinite numbers left out of all figures")
    notes += [note for note in (spectrum.note, unsearched) if note]
    histogram, edges = _histogram(sound)
    return WeightView(
        weight=weight,
        values=values,
        count=values.size,
        zeros=int(values.size - np.count_nonzero(values)),
        nan=nan,
        inf=values.size - sound.size - nan,
        near_zero=float((np.abs(sound) <= NEAR_ZERO * reach).mean()) if sound.size else 0.0,
        mean=float(sound.mean(dtype=np.float64)) if sound.size else math.nan,
        std=float(sound.std(dtype=np.float64)) if sound.size else math.nan,
        low=float(sound.min()) if sound.size else math.nan,
        high=float(sound.max()) if sound.size else math.nan,
        l1=l1,
        l2=l2,
        dead=tuple(np.flatnonzero(dead).tolist()),
        duplicates=duplicates,
        histogram=histogram,
        edges=edges,
        spectrum=spectrum,
        notes=tuple(notes),
        colour=colour,
    )


def as_units(values: NDArray[np.float32], weight: LayerWeight) -> NDArray[np.float32]:
    """See a weight as (units, numbers per unit): output channels, rows, table entries; single numbers of a vector."""
    if weight.role in LEARNED and values.ndim > 1:
        at = 1 if weight.kind == "conv" else values.ndim - 1
        return values.reshape(math.prod(values.shape[:at]), math.prod(values.shape[at:]))
    long = [n for n in values.shape if n > 1]
    single = len(long) < 2 or weight.kind == "recurrent"
    return values.reshape(-1, 1 if single else long[-1])


def _histogram(sound: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Count in equal bins; where both signs occur they are shifted so that one is centred at zero."""
    if not sound.size:
        return np.zeros(0, np.int64), np.zeros(0, np.float64)
    low, high = float(sound.min()), float(sound.max())
    if low < 0 < high:
        width = (high - low) / (BINS - 1)
        low = (math.floor(low / width + 0.5) - 0.5) * width
        high = low + BINS * width
    elif low == high:
        margin = max(0.5, abs(low) / 1000)
        low, high = low - margin, high + margin
    counts, edges = np.histogram(sound.astype(np.float64), BINS, (low, high))
    return counts.astype(np.int64), edges


def _spectrum(units: NDArray[np.float32], whole: bool) -> Spectrum:
    rows, columns = units.shape
    if min(rows, columns) < 2:
        return Spectrum(np.zeros(0))
    if not whole:
        return Spectrum(np.zeros(0), "no spectrum: some numbers aren't finite")
    matrix = units.astype(np.float64)  # wide enough for the squares of any float32
    if rows * columns * min(rows, columns) > EXACT:
        values = _largest(matrix)
        note = f"spectrum: the {values.size} largest of {min(rows, columns):,} singular values, by a randomised method"
        return Spectrum(values, note)
    gram = matrix @ matrix.T if rows < columns else matrix.T @ matrix  # a few times faster than an SVD
    with threadpool_limits(1, user_api="blas"):  # OpenBLAS's threads gain nothing here, and on a busy machine cost 50 x
        values = np.sqrt(np.linalg.eigvalsh(gram)[::-1].clip(0))
    if not values[0]:
        return Spectrum(values, condition=math.inf, effective_rank=0.0)
    share = values / values.sum()
    entropy = -float((share * np.log(np.where(share > 0, share, 1))).sum())
    full = values[-1] > ROUNDING * values[0]
    return Spectrum(values, "", float(values[0] / values[-1]) if full else math.inf, math.exp(entropy))


def _largest(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest singular values, by a random sketch and two power iterations (Halko, Martinsson & Tropp 2011)."""
    rng = np.random.default_rng(0)
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    basis = matrix @ rng.standard_normal((matrix.shape[1], SKETCH + 16))
    for _ in range(2):
        basis = matrix @ np.linalg.qr(matrix.T @ np.linalg.qr(basis).Q).Q
    small = np.linalg.qr(basis).Q.T @ matrix
    return np.asarray(np.linalg.svd(small, compute_uv=False)[:SKETCH], np.float64)


def _duplicates(units: NDArray[np.float32], norms: NDArray[np.float64]) -> tuple[tuple[tuple[int, ...], ...], str]:
    """Groups of units that point the same way, and why there are none to give."""
    alive = np.flatnonzero(norms > 0)
    if units.shape[1] < SHORT or alive.size < 2:
        return (), ""
    if alive.size > COMPARED:
        return (), f"duplicates not looked for among {alive.size:,} units"
    directions = (units[alive] / norms[alive, None]).astype(np.float32)
    alike = directions @ directions.T > DUPLICATE
    paired = np.flatnonzero(alike.sum(1) > 1)
    alike = alike[np.ix_(paired, paired)]
    labels = np.arange(paired.size, dtype=np.int32)
    while paired.size:  # each takes the smallest label among its likes, until none changes
        lower = np.where(alike, labels, np.int32(paired.size)).min(1)
        if (lower == labels).all():
            break
        labels = lower
    members = alive[paired]
    return tuple(tuple(members[labels == label].tolist()) for label in np.unique(labels)), ""


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
