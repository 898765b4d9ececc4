"""How a method's masks are run: all of them, or the most informative first until a budget or a stable map ends it.

Under a budget, masks that were not run get the scores that a Gaussian process predicts from those that were, and the
method's own formula makes the map of both: with all masks run it is the definition. The first masks are the centres
that k-means finds among them, one of each kind; then those that the map hangs on most and that are least certain.
The map is stable when its rank order is the same whichever half of the masks that were run predicts the others, each
prediction drawn at random from what that half leaves likely, so that what nobody knows yet counts as a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._budget import Estimate, Meter
from onnx_inspect.cam._probe import Index, Maps, Probe, is_flat
from onnx_inspect.cam._surrogate import MANY, Surrogate, centres, predict
from onnx_inspect.ops import resize

Floats = NDArray[np.float64]
FIRST = 12  # masks of each input that are run before it is asked which matter
ENOUGH = 16  # masks, for two halves to say something
GROWTH = 4  # further masks at a time, as a divisor of those already run
DRAWS = 64  # masks that a budget of passes should reach before each is run with several draws of noise
COARSE = 24  # cells along a side, of maps and masks that are compared


@dataclass(frozen=True)
class Plan:
    """Variants of the inputs that a method runs, and what it makes of their scores.

    Attributes
    ----------
    rows : callable
        Positions of variants -> the variants.
    of : ndarray, (V,), int
        The input that each variant stems from.
    make : callable
        The variants' scores (V,) -> the maps.
    masks : sequence of N ndarrays, (Q, b), int
        For each input the variants that belong to each of its masks: b columns, one where a mask is run once.
    features : callable
        An input -> what its masks have in common, (Q, F).
    probability, tail : bool
        Which score is read, and whether variants are activations.
    first : int
        Masks of each input that the method can't do without; they come first.
    draws : bool
        Whether the columns are draws of noise, so that any of them stand for all.
    weight : callable or None
        An input, what its masks score as far as is known -> how much of the map hangs on each score, (Q,).
    sketch : callable or None
        As `make`, coarser and cheaper: maps, or what has the same rank order, for telling whether they are stable.
    """

    rows: Callable[[Index], Maps]
    of: Index
    make: Callable[[Floats], Maps]
    masks: Sequence[Index]
    features: Callable[[int], Maps]
    probability: bool = False
    tail: bool = False
    first: int = 0
    draws: bool = False
    weight: Callable[[int, Surrogate], Floats] | None = None
    sketch: Callable[[Floats], Maps] | None = None

    def run(self, probe: Probe, which: Index | None = None) -> Floats:
        """Scores of some variants, or of all."""
        ask = probe.tail_scores if self.tail else probe.scores
        if which is None:
            return ask(self.rows, self.of, probability=self.probability)
        return ask(lambda positions: self.rows(which[positions]), self.of[which], probability=self.probability)


def maps(probe: Probe, plan: Plan) -> Maps:
    """Run a plan: in full without a budget, else as far as the probe's meter lets it."""
    if probe.meter is None:
        return plan.make(plan.run(probe))
    return _Run(probe, plan, probe.meter).maps()


def coarse(maps: Maps) -> Maps:
    """Maps (Q, h, w), or volumes, at a resolution at which they can still be told apart, and no finer."""
    size = coarse_size(maps.shape[1:])
    return resize(maps, size) if size != maps.shape[1:] else maps


def coarse_size(size: Sequence[int]) -> tuple[int, ...]:
    """Sides at which maps of a size are compared."""
    return tuple(min(side, COARSE) for side in size)


def rank_correlation(one: Maps, other: Maps) -> float:
    """Spearman's rank correlation of two maps, at a coarse resolution; 1 of two flat ones, 0 of a flat and another."""
    flat = is_flat(one), is_flat(other)
    if any(flat):
        return float(all(flat))
    ranks = [_ranks(m.ravel()) for m in coarse(np.stack([one, other]))]
    ranks = [r - r.mean() for r in ranks]
    lengths = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float(ranks[0] @ ranks[1]) / lengths if lengths else 0.0


def _ranks(values: Maps) -> Floats:
    """Ranks from 1, equal values sharing their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])


@dataclass
class _Search:
    """One input's masks: which were run, in their order, and whether its map is stable.

    Attributes
    ----------
    index : int
        The input.
    columns : int
        How many of a mask's variants are run.
    order : list of int
        Masks to run next.
    scores : ndarray, (Q, b)
        NaN where not run.
    """

    plan: Plan
    index: int
    features: Maps
    columns: int
    order: list[int]
    scores: Floats
    rng: np.random.Generator
    done: list[int] = field(default_factory=list)
    stability: float = float("nan")
    over: bool = False
    latest: tuple[int, Surrogate] | None = None  # what is known, and of how many masks

    def choose(self) -> None:
        """Find masks to run next, where none wait."""
        left = len(self.features) - len(self.done)
        if self.order or not left:
            return
        count = min(left, max(2, len(self.done) // GROWTH))
        if len(self.done) > MANY:
            self.order = [int(q) for q in np.setdiff1d(np.arange(len(self.features)), self.done)[:count]]
            return
        known = self.known()
        weight = self.plan.weight(self.index, known) if self.plan.weight is not None else np.ones(len(self.features))
        self.order = [int(q) for q in known.pick(count, weight)]

    def take(self, room: int) -> list[int]:
        """At most so many of the masks that wait."""
        found, self.order = self.order[:room], self.order[room:]
        return found

    def known(self, judges: list[int] | None = None) -> Surrogate:
        """What all masks score, as far as those that were run say, or some of these."""
        if judges is not None:
            run = np.asarray(judges, np.intp)
            return predict(self.features, run, self.scores[run, : self.columns], self.known().kernel)
        if self.latest is None or self.latest[0] != len(self.done):
            run = np.asarray(self.done, np.intp)
            self.latest = len(run), predict(self.features, run, self.scores[run, : self.columns])
        return self.latest[1]

    def filled(self, judges: list[int] | None = None) -> Floats:
        """Scores of all variants, (Q, b): known, or predicted; of `judges` alone, drawn from what they leave likely."""
        run = np.asarray(self.done, np.intp)
        whole = np.empty(self.scores.shape)
        if len(run) < len(whole):
            known = self.known(judges)
            doubt = 0.0 if judges is None else known.spread * self.rng.standard_normal(len(whole))
            whole[:, : self.columns] = known.mean + np.reshape(doubt, (-1, 1))
        whole[run, : self.columns] = self.scores[run, : self.columns]
        whole[:, self.columns :] = whole[:, : self.columns].mean(axis=1, keepdims=True)
        return whole

    def halves(self) -> tuple[Floats, Floats]:
        """Scores of all variants, twice: as either half of the masks that were run leaves them likely."""
        first, rest = self.done[: self.plan.first], self.done[self.plan.first :]
        return self.filled(first + rest[::2]), self.filled(first + rest[1::2])

    @property
    def measurable(self) -> bool:
        """Whether enough masks were run for two halves to say something."""
        return len(self.done) - self.plan.first >= ENOUGH


class _Run:
    """A plan on its way: every input's search, and what they may still spend."""

    def __init__(self, probe: Probe, plan: Plan, meter: Meter) -> None:
        self.probe, self.plan, self.meter = probe, plan, meter
        self.piece = 1  # masks of each input at a time, where a clock counts
        seed = int(probe.rng.integers(2**31))
        self.searches = [self._search(n, masks.shape, seed) for n, masks in enumerate(plan.masks)]

    def maps(self) -> Maps:
        """Run until nothing is left to run, the budget is spent, or every map is stable."""
        while live := [search for search in self.searches if not search.over]:
            self._round(live)
            self._look(live)
        self.meter.note(self._estimate())
        return self.plan.make(self._joined([search.filled() for search in self.searches]))

    def _search(self, n: int, shape: tuple[int, ...], seed: int) -> _Search:
        """Begin an input's search with the masks that come first."""
        count, columns = shape
        features, first = self.plan.features(n), min(self.plan.first, count)
        order = [*range(first), *(int(q) for q in centres(features, FIRST, seed) if q >= first)] if count else []
        used = int(np.clip((self.meter.passes or DRAWS) // DRAWS, 1, columns)) if self.plan.draws else columns
        search = _Search(
            self.plan, n, features, used, order, np.full((count, columns), np.nan), np.random.default_rng(seed)
        )
        search.over = not count
        return search

    def _round(self, live: list[_Search]) -> None:
        """Run the masks that each input has chosen, or as many as the budget leaves."""
        for search in live:
            search.choose()
        late = False
        while not late:
            asked = [(search, search.take(self._room(search))) for search in live]
            asked = [(search, masks) for search, masks in asked if masks]
            if not asked:
                break
            late = self._ask(asked)
        for search in live:
            search.over = late or len(search.done) == len(search.features) or not self._room(search)

    def _room(self, search: _Search) -> int:
        """Masks that an input may run now; the first one in any case."""
        room = len(search.features)
        if self.meter.passes is not None:
            room = max(self.meter.passes // search.columns - len(search.done), 0 if search.done else 1)
        return room if self.meter.deadline is None else min(room, self.piece)

    def _ask(self, asked: list[tuple[_Search, list[int]]]) -> bool:
        """Run masks of several inputs together; tell whether time is up."""
        variants = [self.plan.masks[search.index][masks][:, : search.columns] for search, masks in asked]
        start = self.meter.clock()
        found = self.plan.run(self.probe, np.concatenate([v.ravel() for v in variants]))
        ends = np.cumsum([v.size for v in variants])
        for (search, masks), own in zip(asked, np.split(found, ends[:-1]), strict=True):
            search.scores[masks, : search.columns] = own.reshape(len(masks), search.columns)
            search.done += masks
        if self.meter.deadline is None:
            return False
        now, most = self.meter.clock(), max(len(masks) for _, masks in asked)
        self.piece = int(min(2 * self.piece, most * (self.meter.deadline - now) / max(now - start, 1e-9)))
        return self.piece < 1

    def _look(self, live: list[_Search]) -> None:
        """Measure how stable the maps are, and stop where that is enough."""
        if not any(search.measurable for search in live):
            return
        halves = [search.halves() if search.measurable else (search.filled(),) * 2 for search in self.searches]
        make = self.plan.sketch or self.plan.make
        one, other = (make(self._joined(list(side))) for side in zip(*halves, strict=True))
        for search in (search for search in live if search.measurable):
            search.stability = rank_correlation(one[search.index], other[search.index])
            search.over |= search.stability >= self.meter.stable

    def _joined(self, scores: list[Floats]) -> Floats:
        """Every input's scores, in the variants' order."""
        whole = np.empty(len(self.plan.of))
        for masks, own in zip(self.plan.masks, scores, strict=True):
            whole[masks] = own
        return whole

    def _estimate(self) -> Estimate:
        return Estimate(
            self.meter.budget.describe(),
            tuple(len(search.done) * search.columns for search in self.searches),
            tuple(search.scores.size for search in self.searches),
            tuple(search.stability for search in self.searches),
            self.meter.stable,
        )
