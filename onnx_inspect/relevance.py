"""How much each token decides a target: attention weighted by its gradient, followed through all layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.attention import relevance, stack, why_no_rollout
from onnx_inspect.attention import attentions, capture
from onnx_inspect.engine import Engine
from onnx_inspect.errors import MethodError
from onnx_inspect.graph.attention import Recipe
from onnx_inspect.graph.attention.slopes import sloped
from onnx_inspect.graph.gradient import SEED
from onnx_inspect.graph.model import Model
from onnx_inspect.heads import Relevance
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.scene import Scene, scene
from onnx_inspect.targets import Target


def relevances(
    model: Model,
    batch: Batch,
    *,
    target: Target | None = None,
    output: str | None = None,
    make_engine: Callable[[Model], Engine] = Engine,
) -> Relevance:
    """Follow a target's relevance through all attentions (Chefer, Gur and Wolf 2021, arXiv:2103.15679).

    ``R = I``, then from the first attention to the last ``R += mean over heads of relu(A * dy/dA) R``.

    Raises
    ------
    MethodError
        The attentions are no stack over one sequence of tokens.
    TargetError, LayerError
        The model has no such score, or no gradient of it.
    """
    view = scene(model, batch, target=target, output=output, make_engine=make_engine)
    seen = capture(model, batch, make_engine=make_engine)
    maps = stack(seen.maps, len(batch.read_as.tokens[0].pieces) if batch.read_as is not None else None)
    if seen.refused or (reason := why_no_rollout(maps)):
        reason = f"{seen.refused[0][0]!r} is missing, {seen.refused[0][1]}" if seen.refused else reason
        raise MethodError(f"no relevance: {reason}")
    known = attentions(model, batch.arrays, decompose=True)
    found = {r.layer.name: r for r in known if isinstance(r, Recipe)}
    recipes = [found[m.layer] for m in maps if m.layer in found]
    if len(recipes) < len(maps):
        raise MethodError("no relevance: an attention can't be computed anew, so nothing says what it changes")
    slopes = _slopes(view, model, recipes, make_engine)
    values = relevance([m.probabilities for m in maps], [slopes[m.layer] for m in maps])
    return Relevance(
        values, maps[-1], tuple(m.layer for m in maps), view.fixed.words, view.target_scores, view.fixed.notes
    )


def _slopes(
    view: Scene, model: Model, recipes: list[Recipe], make_engine: Callable[[Model], Engine]
) -> dict[str, NDArray[np.float64]]:
    """The target's gradients by the probabilities of each layer, (N, heads, queries, keys)."""
    batch = view.batch
    total: dict[str, NDArray[np.float64]] = {}
    for tensor, seed in view.fixed.slopes(view.outputs, np.arange(batch.n)).items():
        made = sloped(model, recipes, tensor)
        engine = make_engine(made.model)
        weighting = made.model.inputs[-1]
        assert weighting.name.startswith(SEED)
        own = {i.name for i in made.model.inputs}
        feeds = {n: a for n, a in batch.arrays.items() if n in own} | {weighting.name: seed.astype(weighting.dtype)}
        values = engine.run(feeds, list(made.gradients.values()))
        for layer, name in made.gradients.items():
            raw = engine.samples_first(name, values[name], batch.n)
            raw = raw.reshape(batch.n, *raw.shape[-3:]).astype(np.float64)
            total[layer] = total.get(layer, 0) + raw
    return total
