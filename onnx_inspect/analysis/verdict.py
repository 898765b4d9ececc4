"""Whether a model still gives what was locked, layer by layer, and which layer now stands for which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis import sketch as sketches
from onnx_inspect.analysis.lock import Lock
from onnx_inspect.analysis.sketch import Sketch
from onnx_inspect.errors import InputError

TOLERANCE = 1e-3  # relative: float32 sums in another order differ by 1e-6, one step of 8 bits by 4e-3
SAME_OP, SAME_NAME = 0.3, 0.3  # what these count beside the cosine, which is 1 at most
LEAST = 0.5  # score of a pair: less is no pair
ALIKE = 0.9  # cosine of a pair out of order


@dataclass(frozen=True)
class Limits:
    """What counts as drift.

    A layer's relative error above `rtol` or its cosine below `min_cosine`; more than `max_flips` inputs of another best
    class; where `strict`, also a layer that is missing or new.
    """

    rtol: float = TOLERANCE
    min_cosine: float = -1.0
    max_flips: int = 0
    strict: bool = False


@dataclass(frozen=True)
class Pair:
    """A locked tensor and what stands for it now.

    Attributes
    ----------
    locked, now : Sketch
    by : str
        How they were found to belong together: ``name``, ``place``, ``values``, or ``input``, ``output``.
    error : float
        Estimate of ``|now - locked| / |locked|``; infinite where only one of them holds numbers.
    cosine : float
    quantiles : float
        Largest shift of a quantile, as a part of the largest magnitude.
    drift : str
        What is beyond the limits, in words; "" where nothing is.
    """

    locked: Sketch
    now: Sketch
    by: str
    error: float
    cosine: float
    quantiles: float
    drift: str

    def to_json(self) -> dict[str, Any]:
        """One entry of ``verify --json``."""
        return {
            "locked": self.locked.name,
            "now": self.now.name,
            "op_type": self.now.op_type,
            "matched_by": self.by,
            "relative_error": self.error,
            "cosine": self.cosine,
            "quantile_shift": self.quantiles,
            "mean": [self.locked.mean, self.now.mean],
            "std": [self.locked.std, self.now.std],
            "drift": self.drift or None,
        }


@dataclass(frozen=True)
class Verdict:
    """Whether a model still gives what a lockfile holds.

    Attributes
    ----------
    pairs : tuple of Pair
        Inputs first, then layers in the order of the model now.
    missing : tuple of str
        Locked layers that nothing stands for: gone, fused, or not to be recognised.
    added : tuple of str
        Layers that stand for none.
    flips : tuple of int
        Samples whose best class is another.
    limits : Limits
    identical : bool
        Whether it is the very file that was locked.
    """

    pairs: tuple[Pair, ...]
    missing: tuple[str, ...]
    added: tuple[str, ...]
    flips: tuple[int, ...]
    limits: Limits
    identical: bool = False

    @property
    def first(self) -> Pair | None:
        """The first tensor that drifted."""
        return next((pair for pair in self.pairs if pair.drift), None)

    @property
    def agree(self) -> bool:
        """Whether nothing is beyond the limits."""
        whole = not (self.limits.strict and (self.missing or self.added))
        return self.first is None and len(self.flips) <= self.limits.max_flips and whole

    def to_json(self) -> dict[str, Any]:
        """What ``verify --json`` prints."""
        first = self.first
        return {
            "agree": self.agree,
            "first": first.to_json() if first is not None else None,
            "drifted": sum(bool(pair.drift) for pair in self.pairs),
            "matched": [pair.to_json() for pair in self.pairs],
            "missing": list(self.missing),
            "added": list(self.added),
            "flips": list(self.flips),
            "rtol": self.limits.rtol,
            "identical_file": self.identical,
        }


def verify(locked: Lock, now: Lock, limits: Limits) -> Verdict:
    """Compare what a model gives now with what was locked, on the same inputs.

    Raises
    ------
    InputError
        Nothing can be compared: no output is like a locked one.
    """
    ends = _outputs(locked, now)
    if not ends:
        there = ", ".join(f"{la.tensor!r} {list(la.shape)}" for la in now.layers if la.tensor in now.outputs)
        were = ", ".join(f"{la.tensor!r} {list(la.shape)}" for la in locked.layers if la.tensor in locked.outputs)
        raise InputError(
            f"nothing can be compared: {now.model} gives {there or 'no numbers'}, but {were} of {locked.model} were"
            " locked; is it another model?"
        )
    entries = [
        _pair(a, b, "input", limits)
        for a, b in zip(locked.entries, now.entries, strict=False)
        if (a.shape, a.dtype) == (b.shape, b.dtype)  # else another convention, which each model is fed by
    ]
    matched = align(locked.layers, now.layers, ends)
    found = {j: _pair(locked.layers[i], now.layers[j], by, limits) for i, j, by in matched}
    rows = {i for i, _, _ in matched}
    flips: tuple[int, ...] = ()
    if locked.classes is not None and now.classes is not None and len(locked.classes) == len(now.classes):
        flips = tuple(n for n, (a, b) in enumerate(zip(locked.classes, now.classes, strict=True)) if a != b)
    return Verdict(
        pairs=(*entries, *(found[j] for j in sorted(found))),
        missing=tuple(layer.name for i, layer in enumerate(locked.layers) if i not in rows),
        added=tuple(layer.name for j, layer in enumerate(now.layers) if j not in found),
        flips=flips,
        limits=limits,
        identical=bool(locked.digest) and locked.digest == now.digest,
    )


Match = tuple[int, int, str]  # locked layer, layer now, how they were found


def align(locked: Sequence[Sketch], now: Sequence[Sketch], ends: Mapping[int, int]) -> list[Match]:
    """Find which layer now stands for which locked one; `ends` are pairs of outputs, known beforehand.

    By name where every name, operator and shape is as it was; by place where operators and shapes are, and no values
    say otherwise. Else in order, by how alike their values are, operators and names counting too; then what is left,
    out of order, where each is the best for the other. Layers of different shapes are never paired, and what is like
    nothing stays alone.
    """
    if [(la.name, la.op_type, la.shape) for la in locked] == [(la.name, la.op_type, la.shape) for la in now]:
        return [(i, i, "name") for i in range(len(locked))]
    errors, cosines = _likeness(locked, now)
    same = errors <= TOLERANCE
    if [(la.op_type, la.shape) for la in locked] == [(la.op_type, la.shape) for la in now]:
        moved = same.any(axis=1) & ~np.diag(same)
        if not moved.any():
            return [(i, i, "place") for i in range(len(locked))]
    scores = _scores(locked, now, cosines)
    pairs = {i: j for i, j in _in_order(scores).items() if i not in ends and j not in ends.values()} | dict(ends)
    pairs |= _left_over(np.where(cosines >= ALIKE, scores, -np.inf), pairs)
    return [(i, j, _how(locked[i], now[j], i in ends)) for i, j in sorted(pairs.items())]


def _how(one: Sketch, other: Sketch, end: bool) -> str:
    return "output" if end else "name" if one.name == other.name else "values"


def _likeness(locked: Sequence[Sketch], now: Sequence[Sketch]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Relative error and cosine of all pairs, (locked, now); infinite and -1 where shapes differ."""
    a, b = np.stack([la.sums for la in locked]), np.stack([la.sums for la in now])
    lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    products = a @ b.T
    scale = np.outer(*lengths)
    both_nothing = (lengths[0] == 0)[:, None] & (lengths[1] == 0)
    cosines = np.divide(products, scale, out=both_nothing.astype(np.float64), where=scale > 0)
    apart = np.stack([np.linalg.norm(b - row, axis=1) for row in a])
    own = np.broadcast_to(lengths[0][:, None], apart.shape)
    errors = np.divide(apart, own, out=np.where(apart > 0, np.inf, 0.0), where=own > 0)
    fits = np.array([[one.shape == other.shape for other in now] for one in locked])
    return np.where(fits, errors, np.inf), np.where(fits, cosines, -1.0)


def _scores(locked: Sequence[Sketch], now: Sequence[Sketch], cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    """How well layers go together; minus infinity where their shapes differ."""
    operators = np.array([[one.op_type == other.op_type for other in now] for one in locked])
    names = np.array([[one.name == other.name for other in now] for one in locked])
    fits = np.array([[one.shape == other.shape for other in now] for one in locked])
    scores = np.maximum(cosines, 0) + SAME_OP * operators + SAME_NAME * names
    return np.where(fits, scores, -np.inf)


def _in_order(scores: NDArray[np.float64]) -> dict[int, int]:
    """Pairs in order with the largest sum of scores above `LEAST`: a dynamic programme with gaps."""
    gains = np.maximum(scores - LEAST, 0)
    rows, columns = gains.shape
    best = np.zeros((rows + 1, columns + 1))
    for i in range(rows):
        paired = np.concatenate([[0.0], best[i, :-1] + gains[i]])
        best[i + 1] = np.maximum.accumulate(np.maximum(best[i], paired))
    found: dict[int, int] = {}
    i, j = rows, columns
    while i and j:
        if best[i, j] == best[i, j - 1]:
            j -= 1
        elif best[i, j] == best[i - 1, j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            found[i] = j
    return found


def _left_over(scores: NDArray[np.float64], pairs: Mapping[int, int]) -> dict[int, int]:
    """Pairs among what is left, each the best for the other."""
    free = np.array(scores)
    free[list(pairs)] = -np.inf
    free[:, list(pairs.values())] = -np.inf
    found = {}
    for i, row in enumerate(free):
        j = int(row.argmax())
        if np.isfinite(row[j]) and int(free[:, j].argmax()) == i:
            found[i] = j
    return found


def _outputs(locked: Lock, now: Lock) -> dict[int, int]:
    """Which layers are the same output: of the same place where there are as many, else of the same name."""
    before = {la.tensor: i for i, la in enumerate(locked.layers)}
    after = {la.tensor: j for j, la in enumerate(now.layers)}
    names = zip(locked.outputs, now.outputs, strict=True) if len(locked.outputs) == len(now.outputs) else ()
    pairs = list(names) or [(name, name) for name in locked.outputs if name in now.outputs]
    found = {before[a]: after[b] for a, b in pairs if a in before and b in after}
    return {i: j for i, j in found.items() if locked.layers[i].shape == now.layers[j].shape}


def _pair(locked: Sketch, now: Sketch, by: str, limits: Limits) -> Pair:
    error, cosine = sketches.relative_distance(locked, now), sketches.cosine(locked, now)
    drift = ""
    if (locked.nan, locked.inf) != (now.nan, now.inf):
        drift = f"{now.nan} NaN and {now.inf} infinite values, where {locked.nan} and {locked.inf} were locked"
    elif error > limits.rtol:
        drift = (
            f"relative error {error:.2g} above {limits.rtol:g}" if math.isfinite(error) else "no longer 0 throughout"
        )
    elif cosine < limits.min_cosine:
        drift = f"cosine {cosine:.4f} below {limits.min_cosine:g}"
    return Pair(locked, now, by, error, cosine, sketches.quantile_distance(locked, now), drift)
