"""How methods turn scenes into saliency maps: the wiring that the command line and Python share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect import discover
from onnx_inspect.cam._probe import Attribution, Index, parse_params
from onnx_inspect.engine import Engine
from onnx_inspect.errors import InspectError, LayerError, MethodError, TargetError
from onnx_inspect.graph.model import Model
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.scene import Scene, scene
from onnx_inspect.targets import Target, label, probabilities

METHODS = "onnx_inspect.cam"


def attribute(view: Scene, method: str, params: Mapping[str, str] | None = None) -> Attribution:
    """Run one method on a Scene.

    Raises
    ------
    MethodError
        An unknown method or parameter, or the method can't apply to this model and layer.
    TargetError
        The method explains a class and the model has no class scores.
    """
    module = _method(method)
    settings = parse_params(module.Params, params or {}, method)
    start = time.perf_counter()
    before = _passes(view)
    if module.CLASS_AWARE and view.scores is None:
        raise TargetError(f"{method} explains a class score, but {view.reason}; eigen-cam needs none")
    values = module.attribute(view.probe(), settings)
    after = _passes(view)
    scores = _target_scores(view)
    return Attribution(
        values=np.ascontiguousarray(values, np.float32),
        method=method,
        layer=view.layer.name,
        params={name: getattr(settings, name) for name in module.Params.__dataclass_fields__},
        targets=tuple(label(view.batch.labels, int(c)) if c >= 0 else "" for c in scores[0]),
        classes=scores[0],
        scores=scores[1],
        passes=after[0] - before[0] + view.batch.n,
        tail_passes=after[1] - before[1],
        seconds=time.perf_counter() - start,
        provider=view.head.provider,
        class_aware=module.CLASS_AWARE,
        sources=view.batch.sources,
    )


def _passes(view: Scene) -> tuple[int, int]:
    """Runs so far of the whole model and of the tail; parts that no method asked for yet count nothing."""
    built = vars(view)
    return (built["whole"].passes if "whole" in built else 0), (built["tail"].passes if "tail" in built else 0)


def _target_scores(view: Scene) -> tuple[Index, NDArray[np.float64]]:
    """Class and its probability (where scores allow one) for each input."""
    count = view.batch.n
    if view.scores is None:
        return np.full(count, -1), np.full(count, np.nan)
    squash = replace(view.scores, squash="") if view.scores.squash != "Sigmoid" else view.scores
    values = probabilities(squash, view.base)
    return view.classes, values[np.arange(count), view.classes]


@dataclass(frozen=True)
class Skipped:
    """A method that could not apply, and why."""

    method: str
    layer: str
    error: InspectError


def explain_all(
    model: Model,
    batch: Batch,
    *,
    methods: Sequence[str],
    layers: Sequence[str] = (),
    params: Sequence[tuple[str, str]] = (),
    target: Target | None = None,
    output: str | None = None,
    seed: int = 0,
    make_engine: Callable[[Model], Engine] = Engine,
) -> tuple[list[tuple[Scene, Attribution]], list[Skipped]]:
    """Run several methods at several layers; a method that can't apply is skipped with its reason.

    Parameters
    ----------
    params : sequence of (key, value)
        A key is a parameter's name, for every method that has it, or ``method.name`` for one.

    Raises
    ------
    InspectError
        Nothing could be explained: the first reason. Unknown methods, parameters, layers and classes are never skipped.
    """
    settings = _deal(methods, params)
    done: list[tuple[Scene, Attribution]] = []
    skipped: list[Skipped] = []
    names: list[str | None] = [la.name for text in layers for la in model.find(text)] or [None]
    for name in names:
        view = scene(model, batch, layer=name, target=target, output=output, seed=seed, make_engine=make_engine)
        for method in methods:
            try:
                done.append((view, attribute(view, method, settings[method])))
            except (MethodError, LayerError) as error:
                skipped.append(Skipped(method, view.layer.name, error))
            except TargetError as error:
                if view.scores is not None:
                    raise  # there are class scores, but not that class
                skipped.append(Skipped(method, view.layer.name, error))
    if not done:
        raise skipped[0].error
    return done, skipped


def _deal(methods: Sequence[str], params: Sequence[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Parameters by method, checked before anything runs."""
    dealt: dict[str, dict[str, str]] = {method: {} for method in methods}
    fields = {method: _method(method).Params.__dataclass_fields__ for method in methods}
    for key, value in params:
        owner, dot, name = key.rpartition(".")
        takers = [owner] if dot else [method for method in methods if key in fields[method]]
        if dot and owner not in dealt:
            raise MethodError(
                f"parameter {key!r} is for {owner!r}, which is not among the methods: {', '.join(methods)}"
            )
        for method in takers or methods:
            dealt[method][name] = value
    for method, given in dealt.items():
        parse_params(_method(method).Params, given, method)
    return dealt


def _method(name: str) -> Any:
    try:
        return discover.load(METHODS, name)
    except KeyError:
        known = ", ".join(discover.names(METHODS))
        raise MethodError(f"unknown method {name!r}; there are: {known}") from None


__all__ = ["Scene", "Skipped", "attribute", "explain_all", "scene"]
