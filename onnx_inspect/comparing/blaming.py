"""Which layer causes the difference of two models: whose own error moves the outputs most, and what is wrong in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.comparison import SILENT, Suspect
from onnx_inspect.analysis.differences import Differences, difference
from onnx_inspect.analysis.fingerprints import Fingerprint
from onnx_inspect.comparing.measuring import Exchange, Measured, Segments, Spot
from onnx_inspect.comparing.subjects import ModelSubject, Subject
from onnx_inspect.engine import Engine
from onnx_inspect.graph.constants import attributes
from onnx_inspect.graph.dependence import descendants
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.points import Point
from onnx_inspect.graph.weights import LayerWeight, layer_weights

Array = NDArray[Any]
Arrays = dict[str, Array]

TRIED = 8  # spots of the largest own error whose weight for the outputs is measured
INPUTS = 2  # inputs on which it is
LOUDEST = 1e6  # share of energy beyond which an error is no guiltier
EXPLAINED = 3  # suspects whose fault is looked for
CURED = 0.01  # share of the error that may be left where another tensor in its place explains it
CHANGED = 1e-6  # relative L2 of weights that are worth a word
QUANTISERS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
DECISIVE = frozenset("pads strides dilations group auto_pad kernel_shape axis alpha epsilon transA transB".split())


@dataclass(frozen=True, eq=False)
class Case:
    """All that is known when a culprit is looked for.

    Attributes
    ----------
    a, b : Subject, ModelSubject
    cuts : mapping of B's tensor to Spot
        Where A's values may be fed.
    prints : mapping of B's tensor to Fingerprint
    unmatched_a, unmatched_b : frozenset of str
    make_engine : callable
    """

    a: Subject
    b: ModelSubject
    cuts: Mapping[str, Spot]
    prints: Mapping[str, Fingerprint]
    unmatched_a: frozenset[str]
    unmatched_b: frozenset[str]
    make_engine: Callable[[Model], Engine]

    @property
    def inputs(self) -> range:
        """Inputs that are tried."""
        return range(min(self.b.count, INPUTS))


def suspects(case: Case, measured: Sequence[Measured]) -> tuple[Suspect, ...]:
    """Layers with an error of their own, the guiltiest first; none where nothing is wrong.

    Guilt is the product of two shares of energy: what a layer alone gets wrong of its values, and what this alone
    changes of the outputs. In an int8 network every layer errs a little; the culprit is out of line in both.
    """
    loud = [m for m in measured if m.local is not None and m.local.noise > SILENT]
    loud.sort(key=lambda m: -_noise(m))
    tried = [(m, _impact(case, m.spot)) for m in loud[:TRIED]]
    tried.sort(key=lambda entry: (-entry[1] * min(_noise(entry[0]), LOUDEST), -_noise(entry[0])))
    found = []
    for rank, (m, impact) in enumerate(tried):
        suspect = Suspect(m.spot.a, m.spot.b, "", _noise(m), impact, m.spot.order)
        found.append(_explained(case, m, suspect) if rank < EXPLAINED else suspect)
    return tuple(found)


def _noise(m: Measured) -> float:
    return m.local.noise if m.local is not None else 0.0


def _impact(case: Case, spot: Spot) -> float:
    """Share of the outputs' energy that changes where only this spot's own error is let through."""
    b, exchange = case.b, Exchange(case.a, case.b)
    below = descendants(b.model, spot.b)
    ends = [o.name for o in b.model.outputs if o.name in below and o.name != spot.b]
    own = Segments(b, [spot.b], {k: s for k, s in case.cuts.items() if k != spot.b}, case.prints, case.make_engine)
    tail = Segments(b, ends, {spot.b: spot}, case.prints, case.make_engine)
    sums = {name: Differences() for name in ends or [spot.b]}
    for index in case.inputs:
        of_a = case.a.values(index, list({spot.a, *own.needed}))
        alone = own.run(index, of_a, exchange)
        if spot.b not in alone:
            continue
        right = tail.run(index, of_a, exchange)
        wrong = tail.run(index, of_a, exchange, {spot.b: alone[spot.b]}) if ends else {}
        if not ends and alone[spot.b].size == of_a[spot.a].size:
            right = {spot.b: exchange.real(0, spot.a, of_a[spot.a])}
            wrong = {spot.b: exchange.to_a(spot, alone[spot.b], of_a[spot.a])}
        for name in right.keys() & wrong.keys():
            if right[name].shape == wrong[name].shape and right[name].dtype.kind in "biuf":
                sums[name].add(exchange.real(1, name, right[name]), exchange.real(1, name, wrong[name]))
    noises = [found.noise for one in sums.values() if (found := one.found()).count]
    return max(noises, default=0.0)


def _explained(case: Case, m: Measured, suspect: Suspect) -> Suspect:
    """Say what is wrong at a spot: an operator that one of the two lacks, weights, settings, quantisation."""
    points_a = {p.name: p for p in case.a.points}
    points_b = {p.name: p for p in case.b.points}
    one, other = points_a[m.spot.a], points_b[m.spot.b]
    if lacking := _lacking(case, m, points_a):
        name = points_a[lacking]
        return replace(
            suspect,
            a=lacking,
            at=m.spot.a,
            why=f"B lacks the {name.op_type} {name.layer!r} of A: with its values in place the error is gone",
        )
    if added := _added(case, m, points_b):
        name = points_b[added]
        return replace(
            suspect,
            b=added,
            why=f"B adds the {name.op_type} {name.layer!r}: with A's values in its place the error is gone",
        )
    reasons = [*_settings(case, one, other), *_weights(case, one, other), *_quantised(case, m, other)]
    if not reasons:
        kinds = one.op_type if one.op_type == other.op_type else f"{one.op_type} of A, {other.op_type} of B"
        reasons = [f"its own error is the largest for the outputs ({kinds})"]
    return replace(suspect, why="; ".join(reasons))


def _between(case: Case, points: Mapping[str, Point], end: str, stops: Iterable[str]) -> list[str]:
    """Tensors that one is made of, itself left out, back to those in `stops`."""
    stops, found, waiting = set(stops), [], list(points[end].sources)
    while waiting:
        name = waiting.pop()
        if name in stops or name in found or name not in points:
            continue
        found.append(name)
        waiting.extend(points[name].sources)
    return found


def _lacking(case: Case, m: Measured, points: Mapping[str, Point]) -> str:
    """A tensor of A without a partner which, fed into B in another's place, takes the error away."""
    own = Segments(case.b, [m.spot.b], _before(case, m.spot), case.prints, case.make_engine)
    between = _between(case, points, m.spot.a, own.needed)
    for name in (n for n in between if n in case.unmatched_a):
        for place, spot in own.fed.items():
            if spot.a in points[name].sources and _cured(case, m, own, {place: replace(spot, a=name)}):
                return name
    return ""


def _added(case: Case, m: Measured, points: Mapping[str, Point]) -> str:
    """A tensor of B without a partner in whose place what it is made of takes the error away."""
    cuts = _before(case, m.spot)
    own = Segments(case.b, [m.spot.b], cuts, case.prints, case.make_engine)
    between = _between(case, points, m.spot.b, own.fed)
    for name in (n for n in between if n in case.unmatched_b and n in case.prints):
        for source in points[name].sources:
            if source in cuts and case.prints[name].size == case.prints[source].size:
                instead = replace(cuts[source], b=name)
                part = Segments(case.b, [m.spot.b], {**cuts, name: instead}, case.prints, case.make_engine)
                if _cured(case, m, part, {}):
                    return name
    return ""


def _before(case: Case, spot: Spot) -> dict[str, Spot]:
    return {name: s for name, s in case.cuts.items() if name != spot.b}


def _cured(case: Case, m: Measured, part: Segments, changed: Mapping[str, Spot]) -> bool:
    """Whether the error at a spot nearly vanishes where other tensors of A are fed in some places."""
    exchange, sums = Exchange(case.a, case.b), Differences()
    for index in case.inputs:
        of_a = case.a.values(index, list({m.spot.a, *part.needed, *(s.a for s in changed.values())}))
        fitting = all(of_a[s.a].size == case.prints[place].size for place, s in changed.items())
        if not fitting:
            return False
        instead = {place: exchange.to_b(s, of_a[s.a], case.prints[place]) for place, s in changed.items()}
        made = part.run(index, of_a, exchange, instead)
        if m.spot.b not in made:
            return False
        sums.add(exchange.real(0, m.spot.a, of_a[m.spot.a]), exchange.to_a(m.spot, made[m.spot.b], of_a[m.spot.a]))
    return sums.found().noise < CURED * _noise(m)


def _weights(case: Case, one: Point, other: Point) -> list[str]:
    """Weights of the two layers that differ, or that only one of them has."""
    if not isinstance(case.a, ModelSubject) or one.op_type in QUANTISERS or other.op_type in QUANTISERS:
        return []
    of_a, of_b = (_by_role(layer_weights(s.model), p.layer) for s, p in ((case.a, one), (case.b, other)))
    found = []
    for role, weight in of_a.items():
        if role not in of_b:
            found.append(f"its {role} is missing in B")
            continue
        before, after = weight.array(), of_b[role].array()
        if before.shape != after.shape and before.size == after.size:
            after = after.reshape(before.shape)
        if before.shape != after.shape:
            found.append(f"its {role} has another shape: {list(before.shape)}, {list(after.shape)} in B")
        elif (change := difference(before, after).noise) > CHANGED**2:
            found.append(f"its {role} differs by {math.sqrt(change):.2g} (relative L2){_place(before, after)}")
    return found + [f"its {role} is B's only" for role in of_b if role not in of_a]


def _place(before: Array, after: Array) -> str:
    """Where a change lies, when only a few units of many have it."""
    if before.ndim < 2 or len(before) < 4:
        return ""
    apart = np.abs(before.astype(np.float64) - after).reshape(len(before), -1).max(axis=1)
    units = np.flatnonzero(apart > 1e-3 * max(float(np.abs(before).max()), 1e-30))
    if not 0 < len(units) <= max(1, len(before) // 4):
        return ""
    return f", in unit{'s' * (len(units) > 1)} {', '.join(map(str, units[:4]))}{', ...' if len(units) > 4 else ''}"


def _by_role(weights: Iterable[LayerWeight], layer: str) -> dict[str, LayerWeight]:
    return {w.role: w for w in weights if w.layer.name == layer}


def _settings(case: Case, one: Point, other: Point) -> list[str]:
    """Attributes of the two nodes that differ."""
    if not isinstance(case.a, ModelSubject) or one.op_type != other.op_type:
        return []
    nodes = case.a.model.producers.get(one.name), case.b.model.producers.get(other.name)
    if nodes[0] is None or nodes[1] is None:
        return []
    of_a, of_b = (attributes(node) for node in nodes if node is not None)
    changed = [key for key in sorted(DECISIVE & (of_a.keys() | of_b.keys())) if of_a.get(key) != of_b.get(key)]
    return [f"{key} {of_a.get(key)}, but {of_b.get(key)} in B" for key in changed if key in of_a and key in of_b]


def _quantised(case: Case, m: Measured, other: Point) -> list[str]:
    """Say that a tensor is kept in steps, how large they are, and how much is cut off."""
    if other.op_type not in QUANTISERS or not other.sources:
        return []
    name = other.sources[0] if other.op_type == "DequantizeLinear" else other.name
    steps = case.b.steps(name)
    if steps is None or name not in case.prints or not case.prints[name].stepped:
        return [f"B keeps {m.spot.a!r} in 8-bit steps, by {other.layer!r}"]
    ends = np.iinfo(np.dtype(case.prints[name].dtype))
    low, high = (steps.real(np.array(end)) for end in (ends.min, ends.max))
    exchange, cut = Exchange(case.a, case.b), []
    for index in case.inputs:
        values = exchange.real(0, m.spot.a, case.a.values(index, [m.spot.a])[m.spot.a])
        cut.append(float(((values < low - steps.scale / 2) | (values > high + steps.scale / 2)).mean()))
    share = float(np.mean(cut))
    lost = f"; {share:.1%} of its values are cut off" if share >= 0.001 else ""
    return [f"B keeps {m.spot.a!r} in 8-bit steps of {steps.scale:.3g}, from {low:.3g} to {high:.3g}{lost}"]
