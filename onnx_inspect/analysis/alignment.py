"""Which tensors of two models are the same, told by values, neighbours and weights; never by names."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.fingerprints import Fingerprint, Likeness, closeness, likeness, orders
from onnx_inspect.analysis.ties import MOVING, QUANTISING, Tied, classes, kind
from onnx_inspect.graph.points import INPUT, Point

Floats = NDArray[np.float64]

ALIKE = 0.7  # likeness from which on values speak for a match
MARGIN = 1.0  # digits by which the best must be closer than the next best
OVERRULE = 3.0  # the same, where the graph speaks against it
EVIDENCE = 1.5  # digits, or their worth in neighbours, that a match needs
LEAD = 0.45  # of the best over the next best, where neighbours decide
ABSORBED = 0.5  # digits by which a quantised form must be closer than what it is made of, to be more than a form
PRODUCTS, PRODUCT, SCALINGS = ("Conv", "MatMul"), "product", ("Add", "Mul", "Sub", "BatchNormalization")
FORMS = MOVING | QUANTISING
# What other evidence is worth, in digits of closeness
SAME_PAST, SAME_FUTURE, NEIGHBOURS, SAME_KIND, SAME_WEIGHTS = 1.0, 1.0, 1.0, 0.5, 1.0


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
        Sampled weights of the node that makes it; see :mod:`onnx_inspect.analysis.weight_matching`.
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


def align(a: Side, b: Side, given: Sequence[tuple[str, str]] = ()) -> Alignment:
    """Match the tensors of two models that ran on the same inputs.

    Values come first: two classes of tied tensors that are each other's closest, by one digit more than the next best,
    are a match. Where values are too much alike (repeated ones) or too little (other weights, a fault upstream), what
    is matched around them decides: the makers, the readers, a past or a future of the same operators, correlated
    weights. What stays in doubt is left unmatched.

    Parameters
    ----------
    given : sequence of (A's tensor, B's tensor)
        What is known to correspond: the inputs.
    """
    work = _Work(a, b)
    for one, other in given:
        work.accept_given(one, other)
    work.by_values()
    while work.by_evidence():
        work.by_values()
    work.by_order()
    work.attach()
    return work.alignment()


class _Work:
    """Matches in the making, over classes of tied tensors."""

    def __init__(self, a: Side, b: Side) -> None:
        self.sides = a, b
        self.of_a, self.of_b = classes(a.points, a.prints), classes(b.points, b.prints)
        self.likeness = likeness([a.prints[p.name] for p in _known(a)], [b.prints[p.name] for p in _known(b)])
        self.rows, self.columns = _positions(a), _positions(b)
        self.values = self._by_class(self.likeness)
        close: Floats = np.where(self.values >= ALIKE, closeness(self.values), 0)
        self.close = self._without_forms(self._without_forms(close, 1), 0)
        self.sizes = self._comparable()
        course_a, course_b = _Course(a, self.of_a), _Course(b, self.of_b)
        self.past = _equal(course_a.pasts(), course_b.pasts())
        self.future = _equal(course_a.futures(), course_b.futures())
        self.kinds = _equal(course_a.kinds, course_b.kinds)
        self.weights = _same_weights(a, b, self.of_a, self.of_b)
        self.sources = course_a.sources, course_b.sources
        self.readers = _readers(course_a.sources), _readers(course_b.sources)
        self.makers_agree = np.zeros(self.values.shape)
        self.readers_agree = np.zeros(self.values.shape)
        self.matched: dict[int, tuple[int, float, str]] = {}
        self.taken: set[int] = set()
        self.more_a: dict[int, list[int]] = {}  # classes that hold a matched one's values in another form
        self.more_b: dict[int, list[int]] = {}

    # What is known before anything is matched

    def _by_class(self, found: Likeness) -> Floats:
        """Likeness of the classes: of their members of real numbers, where they have some."""
        rows = [[self.rows[m] for m in self._telling(0, tied)] for tied in self.of_a]
        columns = [[self.columns[n] for n in self._telling(1, tied)] for tied in self.of_b]
        best = np.zeros((len(rows), len(columns)))
        for i, own in enumerate(rows):
            reduced = found.values[own].max(axis=0)
            best[i] = [reduced[held].max() for held in columns]
        return best

    def _telling(self, side: int, tied: Tied) -> list[int]:
        model = self.sides[side]
        real = [m for m in tied.members if not model.prints[model.points[m].name].stepped]
        return real or list(tied.members)

    def _without_forms(self, close: Floats, side: int) -> Floats:
        """Take out what is merely a quantised form of a closer one: no rival of it."""
        found, close = (self.of_a, self.of_b)[side], close.T if side == 0 else close
        for number, tied in enumerate(found):
            point = self.sides[side].points[tied.members[0]]
            if point.op_type in QUANTISING and tied.sources and len(close):
                before = tied.sources[0]
                other = int(close[:, before].argmax())
                if 0 < close[other, number] < close[other, before] + ABSORBED:
                    close[other, number] = 0
        return close.T if side == 0 else close

    def _comparable(self) -> NDArray[np.bool_]:
        """Which classes hold as many elements."""
        a = np.array([self._size(0, c) for c in self.of_a])
        b = np.array([self._size(1, c) for c in self.of_b])
        return np.asarray(a[:, None] == b[None])

    def _size(self, side: int, tied: Tied) -> int:
        model = self.sides[side]
        return model.prints[model.points[tied.members[0]].name].size

    # Rounds

    def accept_given(self, a: str, b: str) -> None:
        places = [
            next((k for k, tied in enumerate(found) if any(side.points[m].name == name for m in tied.members)), None)
            for side, found, name in zip(self.sides, (self.of_a, self.of_b), (a, b), strict=True)
        ]
        i, j = places
        if i is not None and j is not None and i not in self.matched and j not in self.taken:
            self._accept(i, j, 1.0, "given")

    def by_values(self) -> None:
        """Accept what is each other's closest by a margin; a part of the graph that says otherwise raises it."""
        close = self._open(self.close)
        i_best, i_lead = _leads(close)
        j_best, j_lead = _leads(close.T)
        rivals = self.past & self.future & self.sizes
        for i, j in enumerate(i_best):
            if close[i, j] <= 0 or j_best[j] != i or i in self.matched or j in self.taken:
                continue
            lead = min(i_lead[i], j_lead[j])
            others = [y for y in np.flatnonzero(rivals[i]) if not self._form(1, int(y), int(j))]
            others += [x for x in np.flatnonzero(rivals[:, j]) if not self._form(0, int(x), i)]
            against = bool(others) and not rivals[i, j]
            if lead >= (OVERRULE if against else MARGIN):
                self._accept(i, int(j), 1 - 0.5 * 10 ** -min(lead, 6.0), "values")

    def _form(self, side: int, number: int, of: int) -> bool:
        """Whether a class only holds another one's values in another form, perhaps cut off."""
        tied = (self.of_a, self.of_b)[side][number]
        return tied.kind in FORMS and tied.sources == (of,)

    def by_evidence(self) -> bool:
        """Accept the pairs that all evidence together puts first, the surest first; tell whether there were any."""
        evidence = self._evidence()
        i_best, i_lead = _leads(evidence)
        j_best, j_lead = _leads(evidence.T)
        found = []
        for i, j in enumerate(i_best):
            total = evidence[i, j]
            if total < EVIDENCE or j_best[j] != i or i in self.matched or j in self.taken:
                continue
            lead = min(i_lead[i], j_lead[j])
            if lead >= LEAD:
                found.append((lead, i, int(j)))
        for lead, i, j in sorted(found, reverse=True)[: max(1, len(found) // 2)]:
            self._accept(i, j, self._confidence(i, j, lead), "values and graph" if self.close[i, j] else "graph")
        return bool(found)

    def by_order(self) -> None:
        """Accept what can't be told apart, in the order of the graph, where both sides have as many."""
        while True:
            evidence = self._evidence()
            for i in range(len(evidence)):
                if i in self.matched:
                    continue
                group = self._alike(evidence, i)
                if group is not None:
                    for one, other in zip(*group, strict=True):
                        self._accept(one, other, 0.5, "values and graph" if self.close[one, other] else "graph")
                    break
            else:
                return

    def attach(self) -> None:
        """Add to a match what only moves or quantises its values, too coarsely to be tied to them by value.

        Not where the other model's next step is a Relu without a partner: the quantiser may have swallowed it.
        """
        done = set(self.matched), set(self.taken)
        for i, (j, _, _) in list(self.matched.items()):
            self.more_a[i] = [] if self._activated(1, j, done[1]) else self._forms(0, i, done[0])
            self.more_b[i] = [] if self._activated(0, i, done[0]) else self._forms(1, j, done[1])

    def _activated(self, side: int, number: int, done: set[int]) -> bool:
        """Whether a class is read by a Relu that is not matched."""
        held = (self.of_a, self.of_b)[side]
        return any(number in tied.sources and tied.kind == "Relu" and k not in done for k, tied in enumerate(held))

    def _forms(self, side: int, number: int, done: set[int]) -> list[int]:
        """Unmatched classes that hold one's values in another form, and what is made of those in the same way."""
        found: list[int] = []
        waiting = [number]
        held = (self.of_a, self.of_b)[side]
        readers = _readers([tied.sources for tied in held])
        while waiting:
            for reader in readers[waiting.pop()]:
                point = self.sides[side].points[held[reader].members[0]]
                form = point.op_type in FORMS and not point.slot
                if form and reader not in done and reader not in found:
                    found.append(reader)
                    waiting.append(reader)
        return found

    def _alike(self, evidence: Floats, i: int) -> tuple[list[int], list[int]] | None:
        """Rows and columns of equal evidence around row i, where they are as many and nothing else comes near."""
        best = evidence[i].max(initial=0)
        if best < EVIDENCE:
            return None
        columns = np.flatnonzero(evidence[i] >= best - LEAD / 2)
        rows = np.flatnonzero((evidence[:, columns] >= best - LEAD / 2).any(axis=1))
        block = evidence[np.ix_(rows, columns)]
        outside = np.delete(evidence[rows], columns, axis=1).max(initial=0)
        beside = np.delete(evidence[:, columns], rows, axis=0).max(initial=0)
        if len(rows) != len(columns) or block.min() < best - LEAD / 2 or max(outside, beside) > best - LEAD:
            return None
        return rows.tolist(), columns.tolist()

    def _evidence(self) -> Floats:
        """Digits of closeness, and what else speaks for each pair; 0 where nothing can be said, or it is matched."""
        graph = self.past * SAME_PAST + self.future * SAME_FUTURE
        graph = graph + (self.makers_agree + self.readers_agree) * NEIGHBOURS + self.weights * SAME_WEIGHTS
        speaks = self.sizes & ((self.close > 0) | (self.kinds & (graph >= EVIDENCE)))
        return self._open(np.where(speaks, self.close + graph + self.kinds * SAME_KIND, 0))

    def _open(self, scores: Floats) -> Floats:
        """Scores of what is not matched yet; 0 elsewhere."""
        scores = scores.copy()
        scores[list(self.matched)] = 0
        scores[:, list(self.taken)] = 0
        return scores

    def _confidence(self, i: int, j: int, lead: float) -> float:
        """From .5 for what only the graph tells to .95 for what agrees in value and in the graph."""
        support = float(self.past[i, j]) + float(self.future[i, j]) + self.makers_agree[i, j] + self.readers_agree[i, j]
        return round(min(0.95, 0.5 + 0.08 * support + 0.05 * min(lead, 2) + 0.1 * min(self.close[i, j], 2) / 2), 3)

    def _accept(self, i: int, j: int, confidence: float, evidence: str) -> None:
        self.matched[i] = (j, float(confidence), evidence)
        self.taken.add(j)
        for x in self.readers[0][i]:
            for y in self.readers[1][j]:
                self.makers_agree[x, y] += 1 / max(len(self.sources[0][x]), len(self.sources[1][y]))
        for x in self.sources[0][i]:
            for y in self.sources[1][j]:
                self.readers_agree[x, y] += 1 / max(len(self.readers[0][x]), len(self.readers[1][y]))

    # The result

    def alignment(self) -> Alignment:
        matches = [self._match(i, *found) for i, found in sorted(self.matched.items())]
        done_a = set(self.matched).union(*self.more_a.values())
        done_b = self.taken.union(*self.more_b.values())
        return Alignment(tuple(matches), self._rest(0, done_a), self._rest(1, done_b))

    def _members(self, i: int, j: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Points of two matched classes, and of those that hold the same values in another form."""
        a = [m for k in (i, *self.more_a.get(i, ())) for m in self.of_a[k].members]
        b = [n for k in (j, *self.more_b.get(i, ())) for n in self.of_b[k].members]
        return tuple(a), tuple(b)

    def _rest(self, side: int, done: set[int]) -> tuple[str, ...]:
        held, found = self.sides[side], (self.of_a, self.of_b)[side]
        return tuple(held.points[m].name for k, tied in enumerate(found) if k not in done for m in tied.members)

    def _match(self, i: int, j: int, confidence: float, evidence: str) -> Match:
        a, b = self.sides
        of_a, of_b = self._members(i, j)
        pairs = self._pairs(of_a, of_b)
        named = tuple((a.points[m].name, b.points[n].name, self._order(m, n)) for m, n in pairs)
        first, paired = named[0], {n for _, n in pairs}
        others = [(max(of_a, key=lambda m: self._fit(m, n)), n) for n in of_b if n not in paired]
        return Match(
            a=first[0],
            b=first[1],
            confidence=confidence,
            likeness=float(self.values[i, j]),
            evidence=evidence,
            order=first[2],
            a_tied=tuple(a.points[m].name for m in of_a if a.points[m].name != first[0]),
            b_tied=tuple(b.points[n].name for n in of_b if b.points[n].name != first[1]),
            pairs=named,
            further=tuple((a.points[m].name, b.points[n].name, self._order(m, n)) for m, n in others),
        )

    def _pairs(self, of_a: Sequence[int], of_b: Sequence[int]) -> list[tuple[int, int]]:
        """Members of two matched classes that correspond: real numbers, the same layout and operator go first."""
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

    def _fit(self, m: int, n: int) -> float:
        one, other = self.sides[0].points[m], self.sides[1].points[n]
        p, q = self.sides[0].prints[one.name], self.sides[1].prints[other.name]
        same = (p.stepped == q.stepped, p.shape == q.shape, kind(one.op_type) == kind(other.op_type))
        ends = one.name in self.sides[0].outputs and other.name in self.sides[1].outputs
        return 8 * ends + 4 * same[0] + same[1] + 2 * same[2] + (not p.stepped)

    def _order(self, m: int, n: int) -> tuple[int, ...]:
        """A's axes in B's layout: told by the values where they are alike, else by the shapes; empty if unchanged."""
        a, b = self.sides
        one, other = a.prints[a.points[m].name].shape, b.prints[b.points[n].name].shape
        known = orders(len(one))
        row, column = self.rows[m], self.columns[n]
        if self.likeness.values[row, column] >= ALIKE:
            number = int(self.likeness.order[row, column])
        else:
            fitting = (k for k, order in enumerate(known) if tuple(one[axis] for axis in order) == other)
            number = next(fitting, 0)
        return known[number] if number else ()


def _known(side: Side) -> list[Point]:
    return [p for p in side.points if p.name in side.prints]


def _positions(side: Side) -> dict[int, int]:
    """Rows of the likeness by the numbers of the points."""
    known = [number for number, p in enumerate(side.points) if p.name in side.prints]
    return {number: row for row, number in enumerate(known)}


def _leads(scores: Floats) -> tuple[NDArray[np.intp], Floats]:
    """The best column of each row, and by how much it is ahead of the next best."""
    if scores.shape[1] == 0:
        return np.zeros(0, np.intp), np.zeros(0)
    best = scores.argmax(axis=1)
    if scores.shape[1] == 1:
        return best, scores[:, 0]
    top = np.partition(scores, -2, axis=1)
    return best, top[:, -1] - top[:, -2]


def _readers(sources: Sequence[Sequence[int]]) -> list[list[int]]:
    readers: list[list[int]] = [[] for _ in sources]
    for number, own in enumerate(sources):
        for source in own:
            readers[source].append(number)
    return readers


class _Course:
    """What each class comes from and what becomes of it, as numbers that tell the same operators in the same order.

    What the two models may have split or fused counts as one step: a product with the scaling and bias that only it
    has, anything with the Relu and the quantiser that only it has. Values that are read in quantised form beside
    their own are the same values.
    """

    def __init__(self, side: Side, found: Sequence[Tied]) -> None:
        self.side, self.found = side, found
        self.readers = _readers([tied.sources for tied in found])
        self.kinds = [PRODUCT if tied.kind in PRODUCTS else tied.kind for tied in found]
        self.sources = [list(tied.sources) for tied in found]
        self.ends: dict[int, int] = {}  # the last part of a step, by its earlier ones
        self.through: dict[int, int] = {}  # what a class merely holds in another form
        for number, tied in enumerate(found):
            before = tied.sources[0] if len(tied.sources) == 1 else None
            if before is None or not self._continues(tied.kind, before):
                continue
            if self._only(before):
                self.kinds[number], self.sources[number] = self.kinds[before], self.sources[before]
                self.kinds[before] = found[before].kind
                self.ends |= {k: number for k, end in self.ends.items() if end == before} | {before: number}
            elif tied.kind in FORMS:
                self.through[number] = self.through.get(before, before)

    def _continues(self, kind: str, before: int) -> bool:
        return kind in FORMS or kind == "Relu" or (kind in SCALINGS and self.kinds[before] == PRODUCT)

    def _only(self, number: int) -> bool:
        """Whether a class has one reader, and isn't an output."""
        first = self.side.points[self.found[number].members[0]]
        names = {self.side.points[m].name for m in self.found[number].members}
        return len(self.readers[number]) == 1 and not names.intersection(self.side.outputs) and first.op_type != INPUT

    def _form(self, number: int) -> tuple[Any, ...]:
        first = self.side.points[self.found[number].members[0]]
        return self.kinds[number], first.slot, self.side.prints[first.name].size

    def pasts(self) -> list[int]:
        """What each class is made by, all the way from the inputs."""
        made: list[int] = []
        for number in range(len(self.found)):
            if number in self.through:
                made.append(made[self.through[number]])
                continue
            sources = [made[s] for s in self.sources[number]]
            made.append(hash((*self._form(number), *(sorted(sources) if self.kinds[number] in SCALINGS else sources))))
        return made

    def futures(self) -> list[int]:
        """What becomes of each class, all the way to the outputs."""
        made = [0] * len(self.found)
        after: list[list[tuple[int, int]]] = [[] for _ in self.found]
        outputs = self.side.outputs
        for number in range(len(self.found) - 1, -1, -1):
            for reader in self.readers[number]:
                own = [(self.found[reader].sources.index(number), made[reader])]
                after[number] += after[reader] if reader in self.through else own
            if number in self.ends:
                made[number] = made[self.ends[number]]
                continue
            names = [self.side.points[m].name for m in self.found[number].members]
            after[number] += [(-1, outputs.index(name)) for name in names if name in outputs]
            form = self._form(self.through.get(number, number))
            made[number] = hash((*form, *sorted(after[number])))
        return made


def _equal(a: Sequence[Any], b: Sequence[Any]) -> NDArray[np.bool_]:
    return np.array([[x == y for y in b] for x in a], bool).reshape(len(a), len(b))


def _same_weights(a: Side, b: Side, of_a: Sequence[Tied], of_b: Sequence[Tied]) -> NDArray[np.bool_]:
    """Which classes are made with weights that correlate, each other's best."""
    same = np.zeros((len(of_a), len(of_b)), bool)
    rows = [(i, a.points[c.members[0]].name) for i, c in enumerate(of_a) if a.points[c.members[0]].name in a.weights]
    columns = [(j, b.points[c.members[0]].name) for j, c in enumerate(of_b) if b.points[c.members[0]].name in b.weights]
    if not rows or not columns:
        return same
    found = likeness([a.weights[name] for _, name in rows], [b.weights[name] for _, name in columns]).values
    for r, (i, _) in enumerate(rows):
        c = int(found[r].argmax())
        if found[r, c] >= 0.9 and found[:, c].argmax() == r:
            same[i, columns[c][0]] = True
    return same
