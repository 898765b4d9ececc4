"""Which tensors of a comparison are worth a look, and what they hold."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_inspect.analysis.closeup import Closeup, closeup
from onnx_inspect.analysis.comparison import Comparison, Pair, Suspect
from onnx_inspect.comparing.measuring import Exchange
from onnx_inspect.comparing.subjects import ModelSubject, Subject
from onnx_inspect.graph.spatial import Spatial, spatial


def closeups(found: Comparison, a: Subject, b: Subject) -> tuple[Closeup, ...]:
    """Look at the culprit, and at the matched tensor that is furthest off; none where nothing differs."""
    apart = [pair for pair in found.matched if not pair.apart.equal and pair.apart.worst]
    if not apart:
        return ()
    worst = max(apart, key=lambda pair: pair.apart.noise)
    looks = [] if found.culprit is None else [_look(found, a, b, *_guilty(found.culprit, apart), "culprit")]
    if not looks or (looks[0].a, looks[0].b) != (worst.a, worst.b):
        looks.append(_look(found, a, b, worst.a, worst.b, worst.order, worst.apart.worst[0], "worst"))
    return tuple(looks)


def _guilty(culprit: Suspect, apart: Sequence[Pair]) -> tuple[str, str, tuple[int, ...], int]:
    """The culprit's tensors, A's axes in B's layout, and the input on which it is worst."""
    beside = [p for p in apart if culprit.a in (p.a, *p.a_tied)] or [p for p in apart if culprit.b == p.b]
    index = beside[0].apart.worst[0] if beside else 0
    known = culprit.at or culprit.a
    return known, culprit.b, culprit.order, index


def _look(
    found: Comparison, a: Subject, b: Subject, one: str, other: str, order: tuple[int, ...], index: int, what: str
) -> Closeup:
    of_a, of_b = a.values(index, [one])[one], b.values(index, [other])[other]
    exchange = Exchange(a, b)
    real = exchange.real(0, one, of_a)
    seen = exchange.laid_out(exchange.real(1, other, of_b), order, real.shape)
    source = found.sources[index]
    return closeup(real, seen, (one, other), what=what, source=source, reading=_readings(a).get(one))


def _readings(a: Subject) -> dict[str, Spatial]:
    return spatial(a.model, a.shapes) if isinstance(a, ModelSubject) else {}
