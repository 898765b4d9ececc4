"""How far matched tensors are apart: with both models run from their inputs, and with B's parts fed A's values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.alignment import Alignment, Match
from onnx_inspect.analysis.differences import Difference, Differences, Tolerance
from onnx_inspect.analysis.fingerprints import Fingerprint
from onnx_inspect.analysis.ties import MOVING
from onnx_inspect.comparing.subjects import ModelSubject, Subject
from onnx_inspect.engine import Engine
from onnx_inspect.errors import InputError, ModelError, RunError
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.points import INPUT
from onnx_inspect.graph.segments import MADE, segments
from onnx_inspect.graph.steps import Steps

Array = NDArray[Any]
Arrays = dict[str, Array]

SURE = 0.6  # confidence from which on A's values are fed into B: a wrong match would look like an error
EIGHT = np.dtype(np.int8).itemsize


@dataclass(frozen=True)
class Spot:
    """A tensor of B and what it is compared with.

    Attributes
    ----------
    a, b : str
    order : tuple of int
        A's axes in B's layout; empty where they agree.
    match : Match
    primary : bool
        Whether the two correspond one to one; else `b` only holds the same values in another form.
    """

    a: str
    b: str
    order: tuple[int, ...]
    match: Match
    primary: bool


@dataclass(frozen=True)
class Measured:
    """What was found at a spot: B as a whole against A, and B's part alone."""

    spot: Spot
    apart: Difference
    local: Difference | None
    shape: tuple[int, ...]
    note: str = ""


class Exchange:
    """How a spot's values get from one model's form into the other's."""

    def __init__(self, a: Subject, b: Subject) -> None:
        self._subjects = a, b

    def real(self, side: int, name: str, values: Array) -> Array:
        """Real numbers of one side's tensor: 8-bit integers by their scale."""
        if values.dtype.kind in "iu" and values.dtype.itemsize == EIGHT:
            steps = self.steps(side, name)
            return steps.real(values) if steps is not None else values.astype(np.float64)
        return values

    def steps(self, side: int, name: str) -> Steps | None:
        """What the integers of a tensor stand for; None where nobody says."""
        return self._subjects[side].steps(name)

    def unknown(self, side: int, name: str, values: Array) -> bool:
        """Whether a tensor holds 8-bit integers whose scale is not known."""
        return values.dtype.kind in "iu" and values.dtype.itemsize == EIGHT and self.steps(side, name) is None

    def to_a(self, spot: Spot, values: Array, a: Array) -> Array:
        """B's values in A's layout and unit."""
        return self.laid_out(self.real(1, spot.b, values), spot.order, a.shape)

    @staticmethod
    def laid_out(values: Array, order: tuple[int, ...], shape: tuple[int, ...]) -> Array:
        """B's values in A's shape, where B has A's axes in `order`; empty means unchanged."""
        if not order:
            return values.reshape(shape)
        return values.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))

    def to_b(self, spot: Spot, a: Array, form: Fingerprint) -> Array:
        """A's values in B's layout, unit and type."""
        values = self.real(0, spot.a, a)
        if spot.order:
            values = values.transpose(spot.order)
        values = values.reshape(form.shape)
        steps = self.steps(1, spot.b) if form.stepped else None
        dtype = np.dtype(form.dtype)
        return np.ascontiguousarray(values, dtype) if steps is None else steps.steps(values, dtype)


def spots(alignment: Alignment, b: Subject, prints: Mapping[str, Fingerprint]) -> list[Spot]:
    """All spots of an alignment.

    Of what holds a matched tensor's values in another form, those are spots that may err by themselves: real numbers
    that come out of a quantiser, or the first of all, where that is in steps.
    """
    operators = {p.name: p.op_type for p in b.points}
    place = {p.name: number for number, p in enumerate(b.points)}
    found = []
    for match in alignment.matches:
        found += [Spot(one, other, order, match, True) for one, other, order in match.pairs]
        first = min((other for _, other, _ in (*match.pairs, *match.further)), key=lambda name: place[name])
        found += [
            Spot(one, other, order, match, False)
            for one, other, order in match.further
            if operators[other] not in (*MOVING, INPUT) and (not prints[other].stepped or other == first)
        ]
    return sorted(found, key=lambda spot: place[spot.b])


def measure(
    a: Subject,
    b: ModelSubject,
    places: Sequence[Spot],
    feedable: Mapping[str, Spot],
    prints: Mapping[str, Fingerprint],
    make_engine: Callable[[Model], Engine],
    *,
    tolerance: Tolerance | None = None,
) -> list[Measured]:
    """Compare at every spot, over all inputs.

    Parts of B are cut at all sure spots at once (:func:`~onnx_inspect.graph.segments.segments`): each gets A's values
    at the spots before it, so that its error is its own.

    Parameters
    ----------
    feedable : mapping of B's tensor to Spot
        Where B is cut; see :func:`cuts`.
    prints : mapping of B's tensor to Fingerprint
        They tell the types and shapes of what is fed.
    """
    exchange = Exchange(a, b)
    found: list[Measured] = []
    for part in b.parts([spot.b for spot in places]):
        names = set(part)
        here = [s for s in places if s.b in names]
        found += _Part(a, b, here, exchange, Segments(b, part, feedable, prints, make_engine), tolerance).measured()
    return found


def cuts(
    places: Iterable[Spot], b: ModelSubject, prints: Mapping[str, Fingerprint], exchange: Exchange
) -> dict[str, Spot]:
    """Spots at which A's values may be fed into B, by B's tensor."""
    return {s.b: s for s in places if _feedable(s, b, prints, exchange)}


class _Part:
    """Some spots, measured together."""

    def __init__(
        self,
        a: Subject,
        b: ModelSubject,
        here: Sequence[Spot],
        exchange: Exchange,
        segment: Segments,
        tolerance: Tolerance | None,
    ) -> None:
        self.a, self.b, self.here, self.exchange, self.segment = a, b, here, exchange, segment
        self.sums = {s.b: Differences(tolerance if s.primary else None) for s in here}
        self.own = {s.b: Differences() for s in here}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.notes: dict[str, str] = {}

    def measured(self) -> list[Measured]:
        wanted = list(dict.fromkeys([*(s.a for s in self.here), *self.segment.needed]))
        for index in range(self.b.count):
            of_a, of_b = self.a.values(index, wanted), self.b.values(index, [s.b for s in self.here])
            alone = self.segment.run(index, of_a, self.exchange)
            for spot in self.here:
                self._add(spot, of_a[spot.a], of_b[spot.b], alone.get(spot.b))
        return [self._found(spot) for spot in self.here]

    def _add(self, spot: Spot, a: Array, b: Array, alone: Array | None) -> None:
        if a.size != b.size:
            self.notes[spot.b] = "its size differs from input to input: not all are compared"
            return
        one, other = self.exchange.real(0, spot.a, a), self.exchange.to_a(spot, b, a)
        self.shapes[spot.b] = one.shape
        unknown = [self.exchange.unknown(0, spot.a, a), self.exchange.unknown(1, spot.b, b)]
        if unknown[0] != unknown[1]:
            self.notes[spot.b] = "in steps of an unknown scale, put on the line that fits best"
            one, other = _fit(one, other, unknown[1])
        elif alone is not None and alone.size == a.size:
            self.own[spot.b].add(one, self.exchange.to_a(spot, alone, a))
        self.sums[spot.b].add(one, other)

    def _found(self, spot: Spot) -> Measured:
        own = self.own[spot.b]
        shape, note = self.shapes.get(spot.b, ()), self.notes.get(spot.b, "")
        if self.segment.refused and not own.inputs and not note:
            note = f"its own error is unknown, for the part can't be run alone: {self.segment.refused[:160]}"
        return Measured(spot, self.sums[spot.b].found(), own.found() if own.inputs else None, shape, note)


def _fit(one: Array, other: Array, second: bool) -> tuple[Array, Array]:
    """Put the side in unknown steps on the line that comes closest to the other."""
    x, y = (other, one) if second else (one, other)
    x, y = x.astype(np.float64), y.astype(np.float64)
    spread = float(x.var())
    slope = float(((x - x.mean()) * (y - y.mean())).mean()) / spread if spread else 0.0
    line = (x - x.mean()) * slope + y.mean()
    return (one, line) if second else (line, other)


class Segments:
    """B cut at sure spots: what each part makes of A's values.

    Parameters
    ----------
    wanted : sequence of str
        B's tensors to be made.
    cuts : mapping of B's tensor to Spot
        Where A's values go in.

    Attributes
    ----------
    refused : str
        Why the runtime couldn't run the parts by themselves; "" where it could.
    """

    def __init__(
        self,
        b: ModelSubject,
        wanted: Sequence[str],
        cuts: Mapping[str, Spot],
        prints: Mapping[str, Fingerprint],
        make_engine: Callable[[Model], Engine],
    ) -> None:
        self.b, self.prints, self.refused = b, prints, ""
        made = [name for name in wanted if name in b.model.producers]
        dtypes = {name: prints[name].dtype for name in cuts}
        self.engine = make_engine(segments(b.model, cuts, made, dtypes)) if made else None
        inputs = self.engine.model.inputs if self.engine is not None else ()
        self.fed = {spec.name: cuts[spec.name] for spec in inputs if spec.name in cuts}

    @property
    def needed(self) -> list[str]:
        """A's tensors that are fed into B."""
        return [spot.a for spot in self.fed.values()]

    def run(
        self, index: int, of_a: Mapping[str, Array], exchange: Exchange, instead: Mapping[str, Array] = {}
    ) -> Arrays:
        """What B's parts make of A's values for one input; `instead` holds B's own values for some places."""
        if self.engine is None:
            return {}
        own = self.b.feeds(index)
        feeds: Arrays = {spec.name: own[spec.name] for spec in self.engine.model.inputs if spec.name in own}
        for name, spot in self.fed.items():
            form = self.prints[name]
            if name not in instead and of_a[spot.a].size != form.size:
                return {}
            feeds[name] = instead[name] if name in instead else exchange.to_b(spot, of_a[spot.a], form)
        try:
            made = self.engine.run(feeds)
        except (InputError, ModelError, RunError) as error:  # a part may insist on a batch, or on what it isn't fed
            self.refused = str(error)
            return {}
        return {name.removesuffix(MADE): value for name, value in made.items()}


def _feedable(spot: Spot, b: ModelSubject, prints: Mapping[str, Fingerprint], exchange: Exchange) -> bool:
    """Whether A's values may stand in for B's: the match is sure, and the units and types are known."""
    form = prints[spot.b]
    if spot.match.confidence < SURE or spot.b not in b.model.producers:
        return False
    if form.stepped:
        members = {name for _, name, _ in (*spot.match.pairs, *spot.match.further)}
        first = next(p.name for p in b.points if p.name in members)
        return spot.b == first and exchange.steps(1, spot.b) is not None  # else it is made anew of what is fed before
    return form.dtype.startswith("float") or spot.primary
