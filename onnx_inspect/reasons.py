"""How two models are asked for their reasons: the same pictures, the same class, each at a layer of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.drift import Drift, Limits, drift
from onnx_inspect.cam._probe import Attribution
from onnx_inspect.engine import Engine
from onnx_inspect.errors import TargetError
from onnx_inspect.graph.model import Model
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.methods import explain_all
from onnx_inspect.scene import Scene
from onnx_inspect.targets import EveryClass, GivenClasses, Target, parse

Classes = NDArray[np.intp]
USUAL = Limits()


@dataclass(frozen=True)
class Explained:
    """One side: a model's maps, and what it predicts."""

    model: str
    batch: Batch
    attribution: Attribution
    classes: Classes | None
    why: str


def explain_both(
    a: Model,
    inputs_a: Batch,
    b: Model,
    inputs_b: Batch,
    *,
    method: str,
    target: str | None = None,
    layers: tuple[str | None, str | None] = (None, None),
    params: Sequence[tuple[str, str]] = (),
    output: str | None = None,
    limits: Limits = USUAL,
    seed: int = 0,
    make_engine: Callable[[Model], Engine] = Engine,
) -> tuple[Drift, tuple[Explained, Explained]]:
    """Explain the same pictures by two models and compare their maps.

    Parameters
    ----------
    target : str, optional
        What to explain in both; the class that A predicts where None. Classes are found in B by their label where both
        models have labels, else by their number.
    layers : (str or None, str or None)
        Where to look in A and in B; chosen where None.

    Raises
    ------
    InspectError
        The method can't apply to one of them, or the target is not in one of them.
    """

    def explain(model: Model, batch: Batch, layer: str | None, asked: Target | None) -> tuple[Scene, Attribution]:
        found, _ = explain_all(
            model,
            batch,
            methods=[method],
            layers=[layer] if layer is not None else [],
            params=params,
            targets=[asked] if asked is not None else [],
            output=output,
            seed=seed,
            make_engine=make_engine,
        )
        return found[0]

    first = _parsed(target, inputs_a) if target is not None else None
    view_a, maps_a = explain(a, inputs_a, layers[0], first)
    second = _parsed(target, inputs_b) if target is not None else _partner(view_a, inputs_a, inputs_b, b)
    view_b, maps_b = explain(b, inputs_b, layers[1], second)
    if isinstance(second, GivenClasses):
        _check_count(view_a, view_b)
    classes = _predicted(view_a), _predicted(view_b)
    if classes[0] is None or classes[1] is None:
        classes = None, None
    found = drift(maps_a, inputs_a, classes[0], maps_b, inputs_b, classes[1], limits)
    return found, (
        Explained(a.source, inputs_a, maps_a, classes[0], view_a.why),
        Explained(b.source, inputs_b, maps_b, classes[1], view_b.why),
    )


def _parsed(text: str, batch: Batch) -> Target:
    found = parse(text, batch.labels)
    if len(found) > 1 or isinstance(found[0], EveryClass):
        raise TargetError(f"target {text!r} is several maps: two models are compared by one at a time; name one class")
    return found[0]


def _check_count(a: Scene, b: Scene) -> None:
    """Refuse to take classes by their numbers where the two number them differently."""
    labels = a.batch.labels, b.batch.labels
    if None in labels and a.class_count != b.class_count:
        names = a.context.model.source, b.context.model.source
        raise TargetError(
            f"{names[0]} scores {a.class_count} classes and {names[1]} {b.class_count}, and not both name them: say"
            " what to explain with --target"
        )


def _predicted(view: Scene) -> Classes | None:
    """Each input's best class, where the target is one."""
    if view.target is None or not view.fixed.serves_all:
        return None
    return np.asarray(view.base.argmax(axis=1), np.intp)


def _partner(view: Scene, inputs_a: Batch, inputs_b: Batch, b: Model) -> Target | None:
    """What A explains, in B's classes; None where it explains no class: then B explains its own best."""
    if view.target is None or not view.fixed.serves_all:
        return None
    classes, ours, theirs = view.fixed.classes, inputs_a.labels, inputs_b.labels
    if ours is None or theirs is None or ours == theirs:
        return GivenClasses(tuple(int(c) for c in classes))
    places = {name.strip().lower(): i for i, name in reversed(list(enumerate(theirs)))}
    wanted = [ours[c] if c < len(ours) else str(c) for c in classes]
    if missing := [name for name in wanted if name.strip().lower() not in places]:
        raise TargetError(f"A sees {missing[0]!r}, which is no class of {b.source}: say what to explain with --target")
    return GivenClasses(tuple(places[name.strip().lower()] for name in wanted))
