"""What two models' alignment is made of, and which tensors of two matched classes correspond to each other."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from onnx_inspect.analysis.fingerprints import Fingerprint, Likeness, likeness, orders
from onnx_inspect.analysis.ties import kind
from onnx_inspect.graph.points import Point

ALIKE = 0.7  # likeness from which on values speak for a match


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two models as alignment sees it.

    Attributes
    ----------
    points : tuple of Point
        Makers first.
    prints : mapping of tensor name to Fingerprint
        Of the same inputs for both sides. A point without one takes no part.
    outputs : tuple of str
        The model's own, in its order.
    weights : mapping of tensor name to ndarray
        Of the weights that the node which makes it has learned, dequantised, as (out, in, ...).
    """

    points: tuple[Point, ...]
    prints: Mapping[str, Fingerprint]
    outputs: tuple[str, ...] = ()
    weights: Mapping[str, Fingerprint] = field(default_factory=dict)


@dataclass(frozen=True)
class Match:
    """Two classes of tied tensors, one of each model, that are taken for the same.

    Attributes
    ----------
    a, b : str
        The members that correspond best.
    confidence : float
        In (0, 1]; .95 and more where values alone decide.
    likeness : float
        Of the two by value, in [0, 1].
    evidence : str
        ``given``, ``values``, ``values and graph``, ``graph``.
    order : tuple of int
        A's axes in B's order, where the layouts differ; empty where they agree.
    a_tied, b_tied : tuple of str
        Further members, which hold the same values.
    pairs : tuple of (str, str, tuple of int)
        Members that correspond to each other, `a` and `b` first; each tensor is in one of them at most. The third says
        in which order B has A's axes; empty where it has them as they are.
    further : tuple of (str, str, tuple of int)
        B's other members, with that of A which is most like each.
    """

    a: str
    b: str
    confidence: float
    likeness: float
    evidence: str
    order: tuple[int, ...] = ()
    a_tied: tuple[str, ...] = ()
    b_tied: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str, tuple[int, ...]], ...] = ()
    further: tuple[tuple[str, str, tuple[int, ...]], ...] = ()


@dataclass(frozen=True)
class Alignment:
    """What of two models corresponds.

    Attributes
    ----------
    matches : tuple of Match
        In A's order.
    unmatched_a, unmatched_b : tuple of str
        Tensors whose class has no partner that is sure enough.
    """

    matches: tuple[Match, ...]
    unmatched_a: tuple[str, ...]
    unmatched_b: tuple[str, ...]

    def partner(self, name: str) -> str | None:
        """B's tensor for one of A's, tied ones included; None where there is none."""
        for match in self.matches:
            own = next((b for a, b, _ in match.pairs if a == name), None)
            if own is not None or name in match.a_tied:
                return own or match.b
        return None


class Members:
    """The tensors of two models by their numbers among the points, and how alike they are."""

    def __init__(self, a: Side, b: Side) -> None:
        self.a, self.b = a, b

    @cached_property
    def rows(self) -> dict[int, int]:
        """Rows of the likeness by the numbers of A's points."""
        return _positions(self.a)

    @cached_property
    def columns(self) -> dict[int, int]:
        """Columns of the likeness by the numbers of B's points."""
        return _positions(self.b)

    @cached_property
    def likeness(self) -> Likeness:
        """How alike all tensors with a fingerprint are."""
        found = ([s.prints[s.points[k].name] for k in _positions(s)] for s in (self.a, self.b))
        return likeness(*found)

    def match(self, of_a: Sequence[int], of_b: Sequence[int], alike: float, confidence: float, evidence: str) -> Match:
        """Match two classes: their members one to one as far as they go, then B's others with the nearest of A."""
        pairs = self._pairs(of_a, of_b)
        paired = {n for _, n in pairs}
        others = [(self._nearest(of_a, n), n) for n in of_b if n not in paired]
        named, further = ([self._named(m, n) for m, n in some] for some in (pairs, others))
        first = named[0]
        return Match(
            a=first[0],
            b=first[1],
            confidence=confidence,
            likeness=alike,
            evidence=evidence,
            order=first[2],
            a_tied=tuple(name for m in of_a if (name := self.a.points[m].name) != first[0]),
            b_tied=tuple(name for n in of_b if (name := self.b.points[n].name) != first[1]),
            pairs=tuple(named),
            further=tuple(further),
        )

    def _named(self, m: int, n: int) -> tuple[str, str, tuple[int, ...]]:
        return self.a.points[m].name, self.b.points[n].name, self._order(m, n)

    def _pairs(self, of_a: Sequence[int], of_b: Sequence[int]) -> list[tuple[int, int]]:
        """Members that correspond one to one: outputs, real numbers, the same operator and layout go first."""
        every = itertools.product(enumerate(of_a), enumerate(of_b))
        ranked = sorted(((-self._fit(m, n), p + q, m, n) for (p, m), (q, n) in every), key=lambda entry: entry[:2])
        used_a: set[int] = set()
        used_b: set[int] = set()
        pairs = []
        for _, _, m, n in ranked:
            if m not in used_a and n not in used_b:
                pairs.append((m, n))
                used_a.add(m)
                used_b.add(n)
        return pairs

    def _nearest(self, of_a: Sequence[int], n: int) -> int:
        """The member of A's class that one of B's is most like in form."""
        return max(of_a, key=lambda m: self._fit(m, n))

    def _fit(self, m: int, n: int) -> float:
        one, other = self.a.points[m], self.b.points[n]
        p, q = self.a.prints[one.name], self.b.prints[other.name]
        ends = one.name in self.a.outputs and other.name in self.b.outputs
        alike = 4 * (p.stepped == q.stepped) + 2 * (kind(one.op_type) == kind(other.op_type)) + (p.shape == q.shape)
        return 8 * ends + alike + (not p.stepped)

    def _order(self, m: int, n: int) -> tuple[int, ...]:
        """A's axes in B's layout: told by the values where they are alike, else by the shapes; empty if unchanged."""
        one, other = self.a.prints[self.a.points[m].name].shape, self.b.prints[self.b.points[n].name].shape
        known = orders(len(one))
        row, column = self.rows[m], self.columns[n]
        if self.likeness.values[row, column] >= ALIKE:
            number = int(self.likeness.order[row, column])
        else:
            fitting = (k for k, order in enumerate(known) if tuple(one[axis] for axis in order) == other)
            number = next(fitting, 0)
        return known[number] if number else ()


def _positions(side: Side) -> dict[int, int]:
    """Places among the points that have a fingerprint, by the numbers of the points."""
    known = [number for number, p in enumerate(side.points) if p.name in side.prints]
    return {number: row for row, number in enumerate(known)}
