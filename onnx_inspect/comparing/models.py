"""How two models are compared: the same inputs, their tensors matched and measured, the guilty layer named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.alignment import Alignment, align
from onnx_inspect.analysis.comparison import Comparison, Limits, Pair, offence
from onnx_inspect.analysis.differences import OutputAgreement, agreement, difference
from onnx_inspect.comparing.blaming import Case, suspects
from onnx_inspect.comparing.measuring import Exchange, Measured, cuts, measure, spots
from onnx_inspect.comparing.subjects import ModelSubject, Subject, side
from onnx_inspect.engine import Engine
from onnx_inspect.errors import StrangersError, TargetError
from onnx_inspect.graph.classifier import find
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.points import INPUT

DRIFTED = 1e-6  # share of the outputs' energy by which a run of all layers may differ from a plain one


def compare(
    a: Subject,
    b: ModelSubject,
    given: Sequence[tuple[str, str]],
    *,
    sources: Sequence[str],
    limits: Limits,
    make_engine: Callable[[Model], Engine],
) -> Comparison:
    """Compare two models on the same inputs.

    Parameters
    ----------
    given : sequence of (A's input, B's input)
        What is fed the same.
    sources : sequence of str
        What the inputs are.
    make_engine : callable
        Makes exact engines, which B's parts run on.

    Raises
    ------
    StrangersError
        Neither tensors nor outputs correspond: nothing can be compared.
    """
    of_a, of_b = side(a), side(b)
    alignment = align(of_a, of_b, given)
    places = spots(alignment, b, of_b.prints)
    exchange = Exchange(a, b)
    feedable = cuts(places, b, of_b.prints, exchange)
    measured = measure(a, b, places, feedable, of_b.prints, make_engine, tolerance=limits.tolerance)
    matched = _pairs(a, b, alignment, measured)
    outputs, notes = _outputs(a, b, alignment, exchange, limits)
    if not matched and not outputs:
        raise StrangersError(
            f"nothing of {a.source} can be compared with {b.source}: no tensor is recognised in the other"
            f" ({len(a.points)} and {len(b.points)}), and no output has the other's size; they are different networks"
        )
    case = Case(
        a,
        b,
        feedable,
        of_b.prints,
        frozenset(alignment.unmatched_a),
        frozenset(alignment.unmatched_b),
        make_engine,
    )
    return Comparison(
        a=a.source,
        b=b.source,
        sources=tuple(sources),
        identical=a.digest == b.digest,
        outputs=outputs,
        matched=matched,
        unmatched_a=alignment.unmatched_a,
        unmatched_b=alignment.unmatched_b,
        suspects=suspects(case, measured),
        limits=limits,
        offence=offence(outputs, matched, limits),
        provider=b.provider,
        notes=(*notes, *dict.fromkeys(m.note for m in measured if m.note)),
    )


def _pairs(a: Subject, b: Subject, alignment: Alignment, measured: Sequence[Measured]) -> tuple[Pair, ...]:
    """What was measured at the tensors that correspond one to one, in A's order."""
    of_a, of_b = ({p.name: p for p in s.points} for s in (a, b))
    place = {name: number for number, name in enumerate(of_a)}
    behind: dict[str, list[Measured]] = {}
    for m in measured:
        if not m.spot.primary:
            behind.setdefault(m.spot.a, []).append(m)
    found = []
    for m in measured:
        one, other = of_a[m.spot.a], of_b[m.spot.b]
        if not m.spot.primary or one.op_type == INPUT or other.op_type == INPUT:
            continue
        match, first = m.spot.match, m.spot.a == m.spot.match.a
        locals_ = [m.local, *(form.local for form in behind.get(m.spot.a, []))]
        own_a, own_b = ({pair[k] for pair in match.pairs} for k in (0, 1))
        found.append(
            Pair(
                a=one.name,
                b=other.name,
                a_layer=one.layer,
                b_layer=other.layer,
                a_op=one.op_type,
                b_op=other.op_type,
                confidence=match.confidence,
                evidence=match.evidence,
                shape=m.shape,
                order=m.spot.order,
                apart=m.apart,
                local=max((own for own in locals_ if own is not None), key=lambda own: own.noise, default=None),
                note=m.note,
                a_tied=tuple(n for n in match.a_tied if n not in own_a) if first else (),
                b_tied=tuple(n for n in match.b_tied if n not in own_b) if first else (),
            )
        )
    return tuple(sorted(found, key=lambda pair: place[pair.a]))


def _outputs(
    a: Subject, b: ModelSubject, alignment: Alignment, exchange: Exchange, limits: Limits
) -> tuple[tuple[OutputAgreement, ...], tuple[str, ...]]:
    """Outputs of plain runs, as they are deployed; and a note where running all layers changes them."""
    of_a, of_b = a.answers(), b.answers()
    scores = _scores(a), _scores(b)
    found, notes = [], []
    for name in a.outputs:
        partner = _partner(name, a, b, alignment, of_a, of_b)
        if partner is None:
            notes.append(f"output {name!r} of {a.source} has no counterpart in {b.source}")
            continue
        one = exchange.real(0, name, of_a[name])
        other = exchange.real(1, partner, of_b[partner])
        if one.dtype.kind not in "biuf" or other.dtype.kind not in "biuf":
            continue
        other = other.reshape(one.shape) if one.shape != other.shape else other
        classes = name in scores[0] or partner in scores[1]
        found.append(agreement(one, other, (name, partner), classes=classes, tolerance=limits.tolerance))
    notes += [text for subject, answers in ((a, of_a), (b, of_b)) if (text := _drift(subject, answers))]
    return tuple(found), tuple(notes)


def _partner(
    name: str, a: Subject, b: Subject, alignment: Alignment, of_a: Mapping[str, Any], of_b: Mapping[str, Any]
) -> str | None:
    """B's output for one of A's: the one that is matched, of the same name, or in the same place, and of its size."""
    place = a.outputs.index(name)
    tried = [alignment.partner(name), name, b.outputs[place] if place < len(b.outputs) else None]
    fitting = (n for n in tried if n in b.outputs and n is not None and of_a[name].size == of_b[n].size)
    return next(fitting, None)


def _scores(subject: Subject) -> set[str]:
    """The output that holds class scores."""
    if not isinstance(subject, ModelSubject):
        return set()
    try:
        return {find(subject.model, subject.shapes).output}
    except TargetError:
        return set()


def _drift(subject: Subject, answers: Mapping[str, NDArray[Any]]) -> str:
    """Say where the run of all layers, without optimisations, doesn't give what the model gives when deployed."""
    worst = 0.0
    for name in subject.outputs:
        plain = answers[name][:1]
        layered = subject.values(0, [name])[name]
        if plain.size == layered.size and plain.dtype.kind in "biuf":
            worst = max(worst, difference(np.asarray(layered), plain.reshape(layered.shape)).noise)
    if worst <= DRIFTED:
        return ""
    return (
        f"{subject.source}: layers are looked at without graph optimisations; as deployed, its outputs differ from that"
        f" by {np.sqrt(worst):.2g} (relative L2)"
    )
