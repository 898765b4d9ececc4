"""How methods turn scenes into saliency maps: the wiring that the command line and Python share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnx_inspect import discover
from onnx_inspect.analysis import combination
from onnx_inspect.cam._budget import Budget, Meter
from onnx_inspect.cam._component import principal_component
from onnx_inspect.cam._concepts import Concepts
from onnx_inspect.cam._probe import Account, Attribution, Maps, Probe, parse_params
from onnx_inspect.embedded import at_embedding
from onnx_inspect.engine import Engine
from onnx_inspect.errors import InspectError, LayerError, MethodError, TargetError
from onnx_inspect.forms import present_input
from onnx_inspect.graph.model import Model
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.scene import Memory, Scene, scene
from onnx_inspect.smoothing import AUGMENTATIONS, augmented
from onnx_inspect.targets import EveryClass, Target, label

METHODS = "onnx_inspect.cam"
SMOOTHING = ("augment", "eigen")


def attribute(
    view: Scene,
    method: str,
    params: Mapping[str, str] | None = None,
    *,
    smooth: str | None = None,
    budget: Budget | None = None,
) -> Attribution:
    """Run one method on a Scene.

    Parameters
    ----------
    smooth : {'augment', 'eigen'}, optional
        ``augment`` averages the maps of six variants of the input, each scaled to [0, 1]: as it is and flipped, times
        0.9, 1 and 1.1. ``eigen`` takes the first principal component of the weighted channels instead of their sum.
    budget : Budget, optional
        What methods that run many masks may spend: the most informative masks are run first, and fewer still where the
        map is stable before. In full, as the method defines it, where None.

    Raises
    ------
    MethodError
        An unknown method or parameter, or the method can't apply to this model and layer.
    LayerError
        The method needs a layer with maps and the model has none.
    TargetError
        The method explains a score and the model has none.
    """
    module = _method(method)
    text = view.batch.read_as
    own = getattr(module, "TEXT", {}) if text is not None else {}
    settings = parse_params(module.Params, {**own, **(params or {})}, method)
    if text is not None and getattr(settings, "fill", "zero") != "zero":
        raise MethodError(f"{method}: fill is for pictures; a text's tokens become {text.hiding.words}: see --hide")
    on_layer = getattr(module, "USES_LAYER", True)
    if on_layer and view.layer is None:
        raise LayerError(view.blind)
    if getattr(module, "PLANES_ONLY", False) and present_input(view.batch).ndim > 4:
        raise MethodError(f"{method} explains pictures and signals, not volumes: use recipro-cam or occlusion")
    if module.CLASS_AWARE and view.target is None:
        raise TargetError(f"{method} explains a class score, but {view.reason}; eigen-cam needs none")
    tokenwise = text is not None and getattr(module, "ON_TOKENS", False)
    if tokenwise:
        view = at_embedding(view)
    meter = Meter(budget, stable=budget.stable) if budget is not None else None
    account = Account()
    run = _smoothed(module, method, settings, smooth, meter, account)
    start, before = time.perf_counter(), view.sections.passes
    concepts = _concepts(module, view, settings)
    if concepts is not None:
        values = concepts.strongest
    else:
        values = run(view) if text is None or on_layer or tokenwise else text.on_tokens(run(view))
    estimate = meter.estimate() if meter is not None else None
    notes = view.fixed.notes if view.target is not None else ()
    if meter is not None and estimate is None:
        notes = (*notes, f"{method} takes no budget: it ran in full")
    after = view.sections.passes
    chosen = {name: getattr(settings, name) for name in module.Params.__dataclass_fields__}
    return Attribution(
        values=np.ascontiguousarray(values, np.float32),
        method=method,
        layer=view.layer.name if on_layer and view.layer is not None else "",
        params=chosen | ({"smooth": smooth} if smooth else {}),
        targets=view.fixed.words if view.target is not None else ("",) * view.batch.n,
        classes=view.fixed.classes if view.target is not None else np.full(view.batch.n, -1),
        scores=view.target_scores,
        passes=after[0] - before[0] + view.batch.n,
        tail_passes=after[1] - before[1],
        seconds=time.perf_counter() - start,
        provider=view.sections.provider,
        class_aware=module.CLASS_AWARE,
        sources=view.batch.sources,
        target=view.target.describe() if view.target is not None else "",
        boxes=view.fixed.boxes if view.target is not None else (None,) * view.batch.n,
        notes=notes,
        estimate=estimate,
        tokenwise=tokenwise,
        account=account if account.total is not None else None,
        concepts=concepts,
    )


def _concepts(module: Any, view: Scene, settings: Any) -> Concepts | None:
    """What a method finds that makes several maps of each input, named by the labels; None for all others."""
    if not hasattr(module, "concepts"):
        return None
    found: Concepts = module.concepts(view.probe(), settings)
    numbered = "" if view.batch.labels is not None else "class "
    names = tuple(
        " · ".join(
            numbered + label(view.batch.labels, int(c)).partition(",")[0]  # of synonyms the first
            for c, gain in zip(classes, gains, strict=True)
            if gain > 0
        )
        for classes, gains in zip(found.classes, found.gains, strict=True)
    )
    return replace(found, names=names)


def _smoothed(
    module: Any, method: str, settings: Any, smooth: str | None, meter: Meter | None, account: Account
) -> Callable[[Scene], Maps]:
    """The method as it is run on a scene, with its smoothing."""
    if smooth is not None and hasattr(module, "concepts"):
        raise MethodError(f"{method} makes several maps of each input, which --smooth can't average")
    if smooth is None:
        return lambda view: module.attribute(replace(view.probe(), meter=meter, account=account), settings)
    if smooth == "eigen":
        if not getattr(module, "WEIGHTS_CHANNELS", False):
            raise MethodError(f"{method} makes no sum of weighted channels, so it has no principal component to take")
        return lambda view: module.attribute(_eigen(replace(view.probe(), meter=meter)), settings)
    if smooth == "augment":
        parts = iter(range(len(AUGMENTATIONS), 0, -1))  # copies that have still to share what is left
        return lambda view: augmented(
            view,
            lambda one: module.attribute(
                replace(one.probe(), meter=meter.part(next(parts)) if meter is not None else None), settings
            ),
        )
    raise MethodError(f"unknown smoothing {smooth!r}; there are: {', '.join(SMOOTHING)}")


def _eigen(probe: Probe) -> Probe:
    return replace(probe, weigh=principal_component)


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
    targets: Sequence[Target] = (),
    combine: str | None = None,
    smooth: str | None = None,
    budget: Budget | None = None,
    output: str | None = None,
    seed: int = 0,
    make_engine: Callable[[Model], Engine] = Engine,
) -> tuple[list[tuple[Scene, Attribution]], list[Skipped]]:
    """Run several methods at several layers for several targets; a method that can't apply is skipped with its reason.

    Parameters
    ----------
    params : sequence of (key, value)
        A key is a parameter's name, for every method that has it, or ``method.name`` for one.
    targets : sequence of Target
        What to explain, one map each; each input's best class, box or segment where there are none.
    combine : {'mean', 'max', 'product'}, optional
        One map of all layers, instead of one each.
    budget : Budget, optional
        Of each map.

    Raises
    ------
    InspectError
        Nothing could be explained: the first reason. Unknown methods, parameters, layers and targets are never skipped.
    """
    settings = _deal(methods, params)
    done: list[tuple[Scene, Attribution]] = []
    skipped: dict[tuple[str, str, str], Skipped] = {}
    names: list[str | None] = [la.name for text in layers for la in model.find(text)]
    views = list(_scenes(model, batch, names or [None], targets, output, seed, make_engine))
    for method in methods:
        seen: set[str] = set()
        for view in views:
            which = view.target.describe() if view.target is not None else ""
            if which in seen and _runs_once(method):
                continue  # neither layer nor target would change it
            try:
                found = attribute(view, method, settings[method], smooth=smooth, budget=budget)
            except (MethodError, LayerError, TargetError) as error:
                if isinstance(error, TargetError) and view.target is not None:
                    raise  # the model has scores, but not that class, box or region
                layer = view.layer.name if view.layer is not None else ""
                skipped.setdefault((method, layer, str(error)), Skipped(method, layer, error))
                continue
            seen.add(which)
            done.append((view, found))
    if not done:
        raise next(iter(skipped.values())).error
    return (_combined(done, combine) if combine is not None else done), list(skipped.values())


def _scenes(
    model: Model,
    batch: Batch,
    layers: Sequence[str | None],
    targets: Sequence[Target],
    output: str | None,
    seed: int,
    make_engine: Callable[[Model], Engine],
) -> Iterator[Scene]:
    """A scene for each target at each layer; those that read the same tensors share the engines."""
    for layer in layers:
        made: dict[tuple[str, ...], Scene] = {}
        memory: Memory = {}
        for target in targets or (None,):
            view = scene(model, batch, layer=layer, target=target, output=output, seed=seed, make_engine=make_engine)
            view = replace(view, sections=made.setdefault(view.sections.tensors, view).sections)
            if isinstance(target, EveryClass):
                yield from (replace(view, target=each, memory=memory) for each in target.each(view.class_count))
            else:
                yield replace(view, memory=memory) if len(targets) > 1 else view


def _combined(done: list[tuple[Scene, Attribution]], how: str) -> list[tuple[Scene, Attribution]]:
    """One map for each method and target, of its maps at all layers."""
    groups: dict[tuple[str, str], list[tuple[Scene, Attribution]]] = {}
    for view, found in done:
        groups.setdefault((found.method, found.target), []).append((view, found))
    return [(group[0][0], combination.combine([found for _, found in group], how)) for group in groups.values()]


def _runs_once(method: str) -> bool:
    """Whether a method looks at no layer, so that one layer's scene serves for all."""
    return not getattr(_method(method), "USES_LAYER", True)


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


__all__ = ["METHODS", "SMOOTHING", "Scene", "Skipped", "attribute", "explain_all", "scene"]
