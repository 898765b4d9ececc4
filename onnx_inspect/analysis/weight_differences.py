"""Which weights of two models are the same ones, whatever they are called, and how far each has moved."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.comparison import SURE, Limits
from onnx_inspect.analysis.differences import Difference, difference
from onnx_inspect.analysis.fingerprints import Fingerprint, closeness, likeness, sketch
from onnx_inspect.graph.weights import LEARNED, LayerWeight

Floats = NDArray[np.float64]

ALIKE, MARGIN = 0.5, 0.2  # correlation, and digits of it, from which on two weights are the same moved ones
BINS = 60
IN_ORDER = 0.6  # confidence of weights matched by their order alone


@dataclass(frozen=True, eq=False)
class WeightPair:
    """One tensor of weights in both models, dequantised and in one layout.

    Attributes
    ----------
    a, b : LayerWeight
    confidence : float
        In (0, 1].
    evidence : str
        ``values``, ``values, rescaled`` where only the units' directions agree, ``layer`` for what belongs to a matched
        layer, ``order``.
    apart : Difference
        Of B's numbers from A's.
    norms : (float, float)
        Of A's and B's numbers.
    edges : ndarray, (BINS + 1,)
        Of the histograms.
    counts : (ndarray, ndarray), (BINS,)
        How many of A's and of B's numbers lie between.
    units : tuple of int
        Rows that moved most relative to their own norm, the first most; empty for what has none.
    """

    a: LayerWeight
    b: LayerWeight
    confidence: float
    evidence: str
    apart: Difference
    norms: tuple[float, float]
    edges: Floats
    counts: tuple[NDArray[np.int64], NDArray[np.int64]]
    units: tuple[int, ...] = ()

    @property
    def moved(self) -> float:
        """``|a - b| / |a|``, both as vectors; infinite where A's are all 0 and B's are not."""
        return math.sqrt(self.apart.noise)

    @property
    def name(self) -> str:
        """A's layer, and the role where it isn't its weight."""
        return self.a.layer.name if self.a.role == "weight" else f"{self.a.layer.name} {self.a.role}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        layers = {"a": self.a.name, "b": self.b.name, "a_layer": self.a.layer.name, "b_layer": self.b.layer.name}
        own = {"role": self.a.role, "shape": list(self.a.shape), "dtypes": [self.a.dtype, self.b.dtype]}
        sure = {"confidence": self.confidence, "evidence": self.evidence}
        moved = {"relative": self.moved, "norm_a": self.norms[0], "norm_b": self.norms[1], "units": list(self.units)}
        bins = {"edges": self.edges.tolist(), "a": self.counts[0].tolist(), "b": self.counts[1].tolist()}
        return layers | own | sure | moved | self.apart.to_json() | {"histogram": bins}


@dataclass(frozen=True)
class WeightComparison:
    """The weights of two models.

    Attributes
    ----------
    a, b : str
        Where the models come from.
    identical : bool
        Whether the files are the same.
    matched : tuple of WeightPair
        In A's order.
    unmatched_a, unmatched_b : tuple of LayerWeight
    offence : str
        What breaks a limit first; "" where nothing does.
    """

    a: str
    b: str
    identical: bool
    matched: tuple[WeightPair, ...]
    unmatched_a: tuple[LayerWeight, ...]
    unmatched_b: tuple[LayerWeight, ...]
    limits: Limits
    offence: str = ""

    @property
    def agree(self) -> bool:
        """Whether the limits are kept; without any, whether no weight's cosine is below .99."""
        return not self.offence

    @property
    def moved(self) -> tuple[WeightPair, ...]:
        """Those that moved, the furthest first."""
        return tuple(sorted((p for p in self.matched if p.moved > 0), key=lambda p: -p.moved))

    def to_json(self) -> dict[str, Any]:
        """What ``compare --weights --json`` prints."""
        return {
            "agree": self.agree,
            "identical": self.identical,
            "offence": self.offence or None,
            "a": self.a,
            "b": self.b,
            "matched": [pair.to_json() for pair in self.matched],
            "unmatched_a": [w.name for w in self.unmatched_a],
            "unmatched_b": [w.name for w in self.unmatched_b],
            "moved_most": [pair.a.name for pair in self.moved[:10]],
        }


def compare_weights(
    a: Sequence[LayerWeight], b: Sequence[LayerWeight], *, sources: tuple[str, str], identical: bool, limits: Limits
) -> WeightComparison:
    """Match the weights of two models and measure how far each has moved.

    Filters and matrices are compared as (out, in, ...), however they are stored, so that a Gemm whose weight is
    transposed is the same. Those that correlate best with each other are matched; then those whose units only differ in
    scale, as folding a normalisation leaves them; then, where both models have as many of one role and shape left, in
    their order. Biases and scales follow their layers.
    """
    matching = _Matching(tuple(a), tuple(b))
    matching.by_values(_print, "values", learned=True)
    matching.by_values(_directions, "values, rescaled", learned=True)
    matching.by_order(learned=True)
    matching.by_layer()
    matching.by_values(_print, "values", learned=False)
    matching.by_order(learned=False)
    pairs = tuple(
        _measured(a[i], b[j], confidence, evidence, limits)
        for i, (j, confidence, evidence) in sorted(matching.found.items())
    )
    rest_a = tuple(w for i, w in enumerate(a) if i not in matching.found)
    rest_b = tuple(w for j, w in enumerate(b) if j not in matching.taken)
    return WeightComparison(*sources, identical, pairs, rest_a, rest_b, limits, _offence(pairs, limits))


class _Matching:
    """Pairs of weights in the making."""

    def __init__(self, a: tuple[LayerWeight, ...], b: tuple[LayerWeight, ...]) -> None:
        self.a, self.b = a, b
        self.found: dict[int, tuple[int, float, str]] = {}
        self.taken: set[int] = set()

    def _open(self, learned: bool) -> tuple[list[int], list[int]]:
        rows = [i for i, w in enumerate(self.a) if i not in self.found and (w.role in LEARNED) == learned]
        columns = [j for j, w in enumerate(self.b) if j not in self.taken and (w.role in LEARNED) == learned]
        return rows, columns

    def by_values(self, look: Callable[[LayerWeight], Fingerprint], evidence: str, *, learned: bool) -> None:
        """Match filters and matrices, or what else there is, that are each other's closest, by a margin."""
        rows, columns = self._open(learned)
        if not rows or not columns:
            return
        prints = [look(self.a[i]) for i in rows], [look(self.b[j]) for j in columns]
        alike = likeness(*prints).values
        shapes = np.array([[not learned or self.a[i].shape == self.b[j].shape for j in columns] for i in rows])
        close = np.where((alike >= ALIKE) & shapes, closeness(alike), 0)
        for r, i in enumerate(rows):
            c = int(close[r].argmax())
            if close[r, c] <= 0 or int(close[:, c].argmax()) != r:
                continue
            rivals = np.concatenate([np.delete(close[r], c), np.delete(close[:, c], r)])
            lead = close[r, c] - rivals.max(initial=0)
            if lead >= MARGIN:
                self._accept(i, columns[c], 1 - 0.5 * 10 ** -min(float(lead), 6.0), evidence)

    def by_order(self, *, learned: bool) -> None:
        """Match what is left of one role, kind and shape, where both models have as many of it."""
        rows, columns = self._open(learned)
        forms_a, forms_b = (
            {k: (w.role, w.kind, w.shape) for k in some for w in (held[k],)}
            for some, held in ((rows, self.a), (columns, self.b))
        )
        counts = Counter(forms_a.values()), Counter(forms_b.values())
        for form in dict.fromkeys(forms_a.values()):
            if counts[0][form] != counts[1][form]:
                continue
            for i, j in zip(
                (i for i in rows if forms_a[i] == form), (j for j in columns if forms_b[j] == form), strict=True
            ):
                self._accept(i, j, IN_ORDER, "order")

    def by_layer(self) -> None:
        """Match biases, scales and statistics of layers whose weights are matched."""
        layers = {self.a[i].layer.name: (self.b[j].layer.name, sure) for i, (j, sure, _) in self.found.items()}
        rows, columns = self._open(False)
        for i in rows:
            partner, sure = layers.get(self.a[i].layer.name, ("", 0.0))
            fitting = (j for j in columns if j not in self.taken and self.b[j].layer.name == partner)
            size = int(np.prod(self.a[i].shape))
            same = (j for j in fitting if self.b[j].role == self.a[i].role and int(np.prod(self.b[j].shape)) == size)
            if (j := next(same, None)) is not None:
                self._accept(i, j, sure, "layer")

    def _accept(self, i: int, j: int, confidence: float, evidence: str) -> None:
        self.found[i] = (j, confidence, evidence)
        self.taken.add(j)


def _print(weight: LayerWeight) -> Fingerprint:
    array = weight.array()
    return sketch(array.reshape(1, -1), 1)


def _directions(weight: LayerWeight) -> Fingerprint:
    """The same with each unit scaled to length 1."""
    rows = weight.array().reshape(weight.shape[0], -1).astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return sketch(np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0).reshape(1, -1), 1)


def _measured(a: LayerWeight, b: LayerWeight, confidence: float, evidence: str, limits: Limits) -> WeightPair:
    x = a.array().astype(np.float64)
    y = b.array().astype(np.float64).reshape(x.shape)
    finite = np.concatenate([v[np.isfinite(v)] for v in (x, y)])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    counts = tuple(np.histogram(v[np.isfinite(v)], edges)[0] for v in (x, y))
    return WeightPair(
        a=a,
        b=b,
        confidence=round(confidence, 6),
        evidence=evidence,
        apart=difference(x, y, limits.tolerance),
        norms=(float(np.linalg.norm(x)), float(np.linalg.norm(y))),
        edges=edges,
        counts=(counts[0], counts[1]),
        units=_units(x, y) if a.role in LEARNED and x.ndim > 1 else (),
    )


def _units(x: Floats, y: Floats) -> tuple[int, ...]:
    """The five rows that moved most relative to their own norm."""
    rows = x.reshape(len(x), -1)
    norms = np.linalg.norm(rows, axis=1)
    apart = np.linalg.norm(rows - y.reshape(len(x), -1), axis=1)
    shares = apart / np.where(norms > 0, norms, 1)
    order = np.argsort(-shares, kind="stable")[:5]
    return tuple(int(k) for k in order if shares[k] > 0)


def _offence(pairs: Sequence[WeightPair], limits: Limits) -> str:
    for pair in pairs:
        found = pair.apart
        if limits.tolerance is not None and found.excess is not None and found.excess > 0:
            return f"{pair.name}: |a - b| up to {found.max_abs:.3g}, beyond the tolerance by {found.excess:.3g}"
        least = limits.min_cosine if limits.min_cosine is not None else None if limits.given else SURE
        if least is not None and (found.cosine is None or found.cosine < least):
            return f"{pair.name}: cosine {0 if found.cosine is None else found.cosine:.4f}, less than {least:g}"
    return ""
