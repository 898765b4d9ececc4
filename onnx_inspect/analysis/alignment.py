"""Which tensors of two models are the same, told by values, neighbours and weights; never by names."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.correspondence import ALIKE, Members
from onnx_inspect.analysis.correspondence import Alignment as Alignment
from onnx_inspect.analysis.correspondence import Match as Match
from onnx_inspect.analysis.correspondence import Side as Side
from onnx_inspect.analysis.courses import FORMS, Course, readers
from onnx_inspect.analysis.fingerprints import Fingerprint, closeness, likeness
from onnx_inspect.analysis.ties import QUANTISING, Tied, classes

Floats = NDArray[np.float64]

MARGIN = 1.0  # digits by which the best must be closer than the next best
OVERRULE = 3.0  # the same, where the graph speaks against it
EVIDENCE = 1.5  # digits, or their worth in neighbours, that a match needs
LEAD = 0.45  # of the best over the next best, where neighbours decide
CORRELATED = 0.9  # weights that are one layer's, perhaps pruned or quantised
ABSORBED = 0.5  # digits by which a quantised form must be closer than what it is made of, to be more than a form
ONLY = 1.5  # times the worth of a past or a future that only one class of each model has
# What other evidence is worth, in digits of closeness
SAME_PAST, SAME_FUTURE, NEIGHBOURS, SAME_KIND, SAME_OPERATOR, SAME_WEIGHTS = 1.0, 1.0, 1.0, 0.5, 0.5, 1.0


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
        self.members = Members(a, b)
        self.values = self._by_class()
        close: Floats = np.where(self.values >= ALIKE, closeness(self.values), 0)
        self.close = self._without_forms(self._without_forms(close, 1), 0)
        self.sizes = self._comparable()
        course_a = Course(a.points, a.prints, a.outputs, self.of_a)
        course_b = Course(b.points, b.prints, b.outputs, self.of_b)
        self.past = _equal(course_a.pasts(), course_b.pasts())
        self.future = _equal(course_a.futures(), course_b.futures())
        self.kinds = _equal(course_a.kinds, course_b.kinds)  # of whole steps
        self.operators = _equal([tied.kind for tied in self.of_a], [tied.kind for tied in self.of_b])
        self.weights = self._same_weights(course_a, course_b)
        self.sources = course_a.sources, course_b.sources
        self.readers = readers(course_a.sources), readers(course_b.sources)
        self.forms = _forms(self.of_a, FORMS), _forms(self.of_b, FORMS)
        self.relus = _forms(self.of_a, {"Relu"}), _forms(self.of_b, {"Relu"})
        self.makers_agree = np.zeros(self.values.shape)
        self.readers_agree = np.zeros(self.values.shape)
        self.matched: dict[int, tuple[int, float, str]] = {}
        self.taken: set[int] = set()
        self.more_a: dict[int, list[int]] = {}  # classes that hold a matched one's values in another form
        self.more_b: dict[int, list[int]] = {}

    # What is known before anything is matched

    def _by_class(self) -> Floats:
        """Likeness of the classes: of their members of real numbers, where they have some."""
        found, place = self.members.likeness.values, (self.members.rows, self.members.columns)
        rows = [[place[0][m] for m in self._telling(0, tied)] for tied in self.of_a]
        columns = [[place[1][n] for n in self._telling(1, tied)] for tied in self.of_b]
        best = np.zeros((len(rows), len(columns)))
        if rows and columns:
            reduced = np.stack([found[own].max(axis=0) for own in rows])  # (A's classes, B's tensors)
            for j, held in enumerate(columns):
                best[:, j] = reduced[:, held].max(axis=1)
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

    def _same_weights(self, course_a: Course, course_b: Course) -> NDArray[np.bool_]:
        """Which classes belong to steps whose weights correlate, each other's best."""
        (rows, prints), (columns, others) = (self._weighted(side) for side in (0, 1))
        same = np.zeros(self.values.shape, bool)
        if not rows or not columns:
            return same
        found = likeness(prints, others).values
        steps = course_a.steps(), course_b.steps()
        for r, i in enumerate(rows):
            c = int(found[r].argmax())
            if found[r, c] >= CORRELATED and int(found[:, c].argmax()) == r:
                same |= np.logical_and.outer(steps[0] == steps[0][i], steps[1] == steps[1][columns[c]])
        return same

    def _weighted(self, side: int) -> tuple[list[int], list[Fingerprint]]:
        """Classes whose first member is made with weights, and these."""
        model, found = self.sides[side], (self.of_a, self.of_b)[side]
        names = [(k, model.points[tied.members[0]].name) for k, tied in enumerate(found)]
        held = [(k, name) for k, name in names if name in model.weights]
        return [k for k, _ in held], [model.weights[name] for _, name in held]

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
        return any(k not in done for k in self.relus[side].get(number, []))

    def _forms(self, side: int, number: int, done: set[int]) -> list[int]:
        """Unmatched classes that hold one's values in another form, and what is made of those in the same way."""
        found: list[int] = []
        waiting = [number]
        held = (self.of_a, self.of_b)[side]
        read_by = readers([tied.sources for tied in held])
        while waiting:
            for reader in read_by[waiting.pop()]:
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
        graph = _telling(self.past) * SAME_PAST + _telling(self.future) * SAME_FUTURE
        graph = graph + (self.makers_agree + self.readers_agree) * NEIGHBOURS + self.weights * SAME_WEIGHTS
        speaks = self.sizes & ((self.close > 0) | (self.kinds & (graph >= EVIDENCE)))
        kinds = self.kinds * SAME_KIND + self.operators * SAME_OPERATOR
        return self._open(np.where(speaks, self.close + graph + kinds, 0))

    def _open(self, scores: Floats) -> Floats:
        """Scores of what is not matched yet; 0 elsewhere."""
        scores = scores.copy()
        scores[list(self.matched)] = 0
        scores[:, list(self.taken)] = 0
        for i, (j, _, _) in self.matched.items():  # what holds a matched one's values in another form is no rival
            scores[self.forms[0].get(i, []) if not self._activated(1, j, self.taken) else []] = 0
            scores[:, self.forms[1].get(j, []) if not self._activated(0, i, set(self.matched)) else []] = 0
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

    def _rest(self, side: int, done: set[int]) -> tuple[str, ...]:
        held, found = self.sides[side], (self.of_a, self.of_b)[side]
        return tuple(held.points[m].name for k, tied in enumerate(found) if k not in done for m in tied.members)

    def _match(self, i: int, j: int, confidence: float, evidence: str) -> Match:
        """Match of two classes, with what holds the same values in another form."""
        of_a = [m for k in (i, *self.more_a.get(i, ())) for m in self.of_a[k].members]
        of_b = [n for k in (j, *self.more_b.get(i, ())) for n in self.of_b[k].members]
        return self.members.match(of_a, of_b, float(self.values[i, j]), confidence, evidence)


def _leads(scores: Floats) -> tuple[NDArray[np.intp], Floats]:
    """The best column of each row, and by how much it is ahead of the next best."""
    if scores.shape[1] == 0:
        return np.zeros(0, np.intp), np.zeros(0)
    best = scores.argmax(axis=1)
    if scores.shape[1] == 1:
        return best, scores[:, 0]
    top = np.partition(scores, -2, axis=1)
    return best, top[:, -1] - top[:, -2]


def _forms(found: Sequence[Tied], kinds: Set[str]) -> dict[int, list[int]]:
    """Classes of some kinds that are made of a single other one, by that one."""
    forms: dict[int, list[int]] = {}
    for number, tied in enumerate(found):
        if tied.kind in kinds and len(tied.sources) == 1:
            forms.setdefault(tied.sources[0], []).append(number)
    return forms


def _telling(same: NDArray[np.bool_]) -> Floats:
    """What equality is worth: half as much again where nothing else in either model is equal to the two."""
    alone = (same.sum(axis=0, keepdims=True) == 1) & (same.sum(axis=1, keepdims=True) == 1)
    return np.asarray(same.astype(np.float64) * np.where(alone, ONLY, 1.0))


def _equal(a: Sequence[Any], b: Sequence[Any]) -> NDArray[np.bool_]:
    return np.array([[x == y for y in b] for x in a], bool).reshape(len(a), len(b))
