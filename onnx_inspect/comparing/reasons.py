"""How two models are asked for their reasons: the same pictures, the same class, each at a layer of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.alignment import align
from onnx_inspect.analysis.drift import Drift, Limits, drift
from onnx_inspect.cam._probe import Attribution
from onnx_inspect.comparing.subjects import ModelSubject, side
from onnx_inspect.engine import Engine
from onnx_inspect.errors import LayerError, TargetError
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.spatial import spatial
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.methods import explain_all
from onnx_inspect.scene import Scene, concrete_shapes
from onnx_inspect.targets import EveryClass, GivenClasses, Target, parse

Classes = NDArray[np.intp]
USUAL = Limits()
SURE = 0.8  # confidence from which on B's layer is taken for A's


@dataclass(frozen=True)
class Twins:
    """Two models with the same inputs, each as it takes them; `given` says which input of B is which of A's."""

    a: Model
    inputs_a: Batch
    b: Model
    inputs_b: Batch
    given: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Explained:
    """One side: a model's maps, and what it predicts."""

    model: str
    batch: Batch
    attribution: Attribution
    classes: Classes | None
    why: str


def explain_both(
    twins: Twins,
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
        Where to look in A and in B. Chosen where None: in B the layer that holds what A's does, else the one of the
        name that was given for A, else its own best.

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

    a, inputs_a, b, inputs_b = twins.a, twins.inputs_a, twins.b, twins.inputs_b
    first = _parsed(target, inputs_a) if target is not None else None
    view_a, maps_a = explain(a, inputs_a, layers[0], first)
    second = _parsed(target, inputs_b) if target is not None else _partner(view_a, inputs_a, inputs_b, b)
    same = None
    if layers[1] is None and maps_a.layer:
        same = _counterpart(twins, view_a, make_engine) or _of_the_same_name(b, layers[0])
    view_b, maps_b = explain(b, inputs_b, layers[1] or same, second)
    if isinstance(second, GivenClasses):
        _check_count(view_a, view_b)
    classes = _predicted(view_a), _predicted(view_b)
    if classes[0] is None or classes[1] is None:
        classes = None, None
    found = drift(maps_a, inputs_a, classes[0], maps_b, inputs_b, classes[1], limits)
    return found, (
        Explained(a.source, inputs_a, maps_a, classes[0], view_a.why),
        Explained(b.source, inputs_b, maps_b, classes[1], "it stands for A's" if same else view_b.why),
    )


def _counterpart(twins: Twins, view: Scene, make_engine: Callable[[Model], Engine]) -> str | None:
    """B's layer that holds what A's does, by the values of both; None where none surely does, or it holds no maps."""
    assert view.layer is not None
    subjects = (
        ModelSubject(twins.a, twins.inputs_a, make_engine),
        ModelSubject(twins.b, twins.inputs_b, make_engine),
    )
    alignment = align(side(subjects[0]), side(subjects[1]), twins.given)
    name = view.layer.output.name
    match = next((m for m in alignment.matches if name in (m.a, *m.a_tied)), None)
    if match is None or match.confidence < SURE:
        return None
    shapes = concrete_shapes(twins.b, twins.inputs_b)
    readings = spatial(twins.b, shapes)
    own = (alignment.partner(name), match.b, *match.b_tied)
    return next((tensor for tensor in own if tensor in readings and readings[tensor].form != "flat"), None)


def _of_the_same_name(model: Model, name: str | None) -> str | None:
    try:
        return model.layer(name).name if name is not None else None
    except LayerError:
        return None


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
