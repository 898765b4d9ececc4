"""How a model's attention is captured and proved: what wires graph and engine for the command line and Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect import feeds as feeding
from onnx_inspect.engine import PROVIDERS, Engine, measure
from onnx_inspect.errors import InputError, LayerError, ModelError, RunError
from onnx_inspect.graph.attention import Found, Recipe, Refusal, find
from onnx_inspect.graph.attention.opened import CHECKS, Selection, opened, sizes, windows
from onnx_inspect.graph.attention.tokens import place
from onnx_inspect.graph.batch import batch_axes, fixed_batch
from onnx_inspect.graph.bind import bind
from onnx_inspect.graph.factors import Axis, beginnings
from onnx_inspect.graph.model import Model
from onnx_inspect.heads import AttentionMap, Attentions
from onnx_inspect.inputs.batch import Batch

BUDGET = 256 * 2**20  # bytes of probabilities that one run may compute, of several samples and layers
AT_ONCE = 512 * 2**20  # bytes of probabilities of all samples that one group of layers may leave: they exist twice
LIMIT = 2 * 2**30  # bytes of probabilities that are kept
REDUCTIONS = ("mean", "max")


def capture(
    model: Model,
    batch: Batch,
    *,
    layers: Sequence[str] = (),
    heads: Sequence[int] | None = None,
    reduce: str | None = None,
    queries: Sequence[int] | None = None,
    make_engine: Callable[[Model], Engine] = Engine,
) -> Attentions:
    """Find every attention of a model, run a batch, and keep the probabilities that could be proved.

    Each is proved in the same run: its rows sum to 1, and its probabilities times its values are the context that the
    model itself computes. What can't be proved is refused with its reason.

    Parameters
    ----------
    layers : sequence of str, optional
        Which attentions: their number by depth (``0``, ``-1``), a layer's name, tensor, module path or glob. All by
        default.
    heads : sequence of int, optional
        Which heads; all by default.
    reduce : {'mean', 'max'}, optional
        Reduce the heads to one inside the graph, so that memory doesn't grow with their number.
    queries : sequence of int, optional
        Which query rows; all by default.
    make_engine : callable
        Makes what runs a model.

    Returns
    -------
    Attentions
        Nearest the input first.

    Raises
    ------
    LayerError
        The model has no attention, none of that name, or not as many heads or queries.
    InputError
        What is asked for takes more than 2 GiB.
    ModelError, RunError
        As for :meth:`onnx_inspect.engine.Engine.run`.
    """
    if reduce is not None and reduce not in REDUCTIONS:
        raise LayerError(f"attention can't be reduced by {reduce!r}: give one of {', '.join(REDUCTIONS)}")
    decompose = make_engine(model).wanted[0] != PROVIDERS["cpu"]
    found = attentions(model, batch.arrays, decompose=decompose)
    numbered = _chosen(model, found, layers)
    recipes = [(i, f) for i, f in numbered if isinstance(f, Recipe)]
    maps: list[AttentionMap] = []
    refused = [(f.layer.name, f.reason) for _, f in numbered if isinstance(f, Refusal)]
    wanted = {r.layer.name: _selection(r, heads, queries, reduce) for _, r in recipes}
    _check_size(recipes, wanted, batch.n)
    provider, passes = "", 0
    for group in _groups(recipes, wanted, batch.n):
        one = opened(model, [r for _, r in group], {r.layer.name: wanted[r.layer.name] for _, r in group})
        engine = make_engine(one.model)
        engine.max_chunk = max(1, min(engine.max_chunk, BUDGET // sum(sizes(r).whole for _, r in group)))
        feeds = {name: batch.arrays[name] for name in (i.name for i in one.model.inputs)}
        values = engine.run(feeds)
        provider, passes = engine.provider, passes + engine.passes
        for index, recipe in group:
            name = recipe.layer.name
            proof = engine.samples_first(one.proofs[name], values[one.proofs[name]], batch.n)
            error, reason = _judged(recipe, proof)
            if reason:
                refused.append((name, reason))
                continue
            raw = engine.samples_first(one.probabilities[name], values[one.probabilities[name]], batch.n)
            maps.append(_map(model, index, recipe, raw, wanted[name], proof, error))
    return Attentions(
        maps=tuple(maps),
        refused=tuple(refused),
        sources=batch.sources,
        provider=provider,
        passes=passes,
        notes=_notes(found, decompose),
    )


def attentions(model: Model, arrays: Mapping[str, NDArray[Any]], *, decompose: bool) -> tuple[Found, ...]:
    """Attentions of a model, for the shapes that its tensors have for one sample, or as many as it insists on.

    A model that can't run here still tells of what is refused anyway.
    """
    axes = batch_axes(model)
    block = fixed_batch(model) or 1
    fitted = feeding.fit(model, arrays, axes)
    one = feeding.filled(feeding.rows(fitted, axes, 0, min(block, feeding.count(fitted, axes))), axes, block)
    shapes = bind(model, {name: array.shape for name, array in one.items()})
    unknown = [layer.output.name for layer in model.layers if layer.output.name not in shapes]
    try:
        shapes = shapes | measure(model, one, unknown) if unknown else shapes
    except (ModelError, RunError):
        found = find(model, shapes, decompose=decompose)
        if not found or any(isinstance(f, Recipe) for f in found):
            raise
        return found
    return find(model, shapes, decompose=decompose)


def _chosen(model: Model, found: Sequence[Found], layers: Sequence[str]) -> list[tuple[int, Found]]:
    """Attentions that are asked for, with their number by depth."""
    numbered = list(enumerate(found))
    if not found:
        raise LayerError(
            f"{model.source} has no attention: no softmax between two products of what it computes, and no fused one"
        )
    if not layers:
        return numbered
    kept: dict[int, Found] = {}
    for text in layers:
        for i, f in _named(model, numbered, text):
            kept[i] = f
    return sorted(kept.items())


def _named(model: Model, numbered: list[tuple[int, Found]], text: str) -> list[tuple[int, Found]]:
    if text.lstrip("-").isdigit():
        place = int(text)
        if not -len(numbered) <= place < len(numbered):
            raise LayerError(f"attention {place} is not in {model.source}: it has {len(numbered)}, 0 is the first")
        return [numbered[place]]
    same = [
        (i, f)
        for i, f in numbered
        if text in (f.layer.name, f.layer.output.name)
        or any(fnmatchcase(name, text) for name in (f.layer.name, f.layer.scope) if name)
        or f.layer.scope.startswith(text + ".")
    ]
    if not same:
        own = {layer.name for layer in model.find(text)}
        same = [(i, f) for i, f in numbered if f.layer.name in own]
    if not same:
        names = ", ".join(repr(f.layer.name) for _, f in numbered[:4])
        raise LayerError(
            f"{text!r} is no attention of {model.source}; it has {len(numbered)}: {names}"
            f"{', ...' if len(numbered) > 4 else ''}"
        )
    return same


def _selection(
    recipe: Recipe, heads: Sequence[int] | None, queries: Sequence[int] | None, reduce: str | None
) -> Selection:
    own, name = sizes(recipe), recipe.layer.name
    return Selection(_within(heads, own.heads, "head", name), _within(queries, own.queries, "query", name), reduce)


def _within(wanted: Sequence[int] | None, count: int, what: str, name: str) -> tuple[int, ...] | None:
    """Numbers counted from 0; negative ones are counted from the end."""
    if wanted is None:
        return None
    wrong = next((i for i in wanted if not -count <= i < count), None)
    if wrong is not None or not wanted:
        raise LayerError(
            f"attention {name!r} has no {what} {wrong}: it has {count}, 0 to {count - 1}; or choose layers with --layer"
        )
    return tuple(i % count for i in wanted)


def _check_size(recipes: Sequence[tuple[int, Recipe]], wanted: Mapping[str, Selection], count: int) -> None:
    total = count * sum(sizes(r).fetched(wanted[r.layer.name]) for _, r in recipes)
    if total > LIMIT:
        raise InputError(
            f"the probabilities of {len(recipes)} attentions take {total / 2**30:.1f} GiB for {count} inputs, more than"
            f" {LIMIT // 2**30}: reduce the heads (--reduce mean), or choose layers, heads, one query, or fewer inputs"
        )


def _groups(
    recipes: Sequence[tuple[int, Recipe]], wanted: Mapping[str, Selection], count: int
) -> list[list[tuple[int, Recipe]]]:
    """Attentions that are captured in one go: what one sample computes and what all leave behind stay within budget."""
    groups: list[list[tuple[int, Recipe]]] = []
    room = left = 0
    for item in recipes:
        own = sizes(item[1])
        need, kept = own.whole, count * own.fetched(wanted[item[1].layer.name])
        if not groups or need > room or kept > left:
            groups.append([])
            room, left = BUDGET, AT_ONCE
        groups[-1].append(item)
        room, left = room - need, left - kept
    return groups


def _judged(recipe: Recipe, proof: NDArray[Any]) -> tuple[float, str]:
    """Error of a proof, and why it fails; "" where it holds."""
    rows, context, scale, _, finite = (float(proof[:, i].max()) for i in range(len(CHECKS)))
    if not math.isfinite(finite):
        return math.nan, "its probabilities or its context aren't finite"
    error = context / scale if scale else context
    if rows > recipe.tolerance:
        return rows, f"not proved: its rows sum to 1 only within {rows:.2g}"
    if error > recipe.tolerance:
        return error, f"not proved: probabilities times values miss the model's own context by {error:.2%}"
    return max(rows, error), ""


def _map(
    model: Model,
    index: int,
    recipe: Recipe,
    raw: NDArray[Any],
    wanted: Selection,
    proof: NDArray[Any],
    error: float,
) -> AttentionMap:
    own = sizes(recipe)
    cross = not beginnings([recipe.queries]) & beginnings([recipe.keys]) and bool(recipe.queries)
    keys = place(windows(recipe), recipe.keys, model)
    asking = place(windows(recipe), recipe.queries, model)
    names = keys.names if keys is not None else ()
    probabilities = np.ascontiguousarray(raw.reshape(-1, *raw.shape[2:]), np.float32)
    probabilities.flags.writeable = False
    return AttentionMap(
        layer=recipe.layer.name,
        index=index,
        kind=recipe.kind,
        probabilities=probabilities,
        heads=wanted.heads or tuple(range(own.heads)),
        queries=wanted.queries,
        reduced=wanted.reduce,
        causal=not cross and float(proof[:, CHECKS.index("after")].max()) == 0,
        cross=cross,
        grid=keys.grid if keys is not None else None,
        cells=keys.cells if keys is not None else None,
        prefix=len(names),
        prefix_names=names,
        windows=own.windows,
        query_grid=asking.grid if asking is not None else None,
        query_cells=asking.cells if asking is not None else None,
        error=error,
        key_inputs=_inputs(model, recipe.keys),
        query_inputs=_inputs(model, recipe.queries),
    )


def _inputs(model: Model, axis: Axis) -> tuple[str, ...]:
    """The model's inputs that an axis comes from."""
    origins = {base.origin for base in beginnings([axis])}
    return tuple(spec.name for spec in model.inputs if spec.name in origins)


def _notes(found: Sequence[Found], decompose: bool) -> tuple[str, ...]:
    kernels = [f for f in found if isinstance(f, Recipe) and f.kind == "Attention"]
    if decompose and kernels:
        return (f"probabilities of {len(kernels)} fused attentions are computed anew: only the CPU hands them out",)
    return ()
