"""How an explanation is written into a model and held against the one that is computed outside of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.engine import Engine
from onnx_inspect.errors import LayerError, MethodError
from onnx_inspect.graph import attention
from onnx_inspect.graph.attention import Recipe
from onnx_inspect.graph.attention.opened import windows
from onnx_inspect.graph.attention.tokens import place
from onnx_inspect.graph.baking import ATTENTION, HEATMAP, MAP, bake, bake_attention, methods
from onnx_inspect.graph.gradient import INDEX
from onnx_inspect.graph.linear import LinearHead
from onnx_inspect.graph.model import Model
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.methods import attribute
from onnx_inspect.scene import Scene, concrete_shapes, scene
from onnx_inspect.targets import parse

TOLERANCE = 1e-3  # of the map's range: float32 sums in another order, and eigenvectors by repeated squaring
COARSE = 2e-2  # where the layer is of half precision: its own rounding, by another order of the sums
Maps = NDArray[np.float32]


@dataclass(frozen=True)
class Baked:
    """A model that explains itself.

    Attributes
    ----------
    model : Model
        The model's own outputs, then ``index`` where it chooses the class, ``map`` and ``heatmap``.
    method, layer : str
    why : str
        Why this layer, where it was chosen for the user.
    error : float
        Largest difference between its map and the one computed outside, of the map's range, over the inputs.
    operators : tuple of str
        Operators of other domains than the standard's: a runtime must know them. Usually none.
    provider : str
    """

    model: Model
    method: str
    layer: str
    why: str
    error: float
    operators: tuple[str, ...]
    provider: str


def baked(
    model: Model,
    batch: Batch,
    method: str,
    *,
    layer: str | None = None,
    output: str | None = None,
    ask: bool = False,
    make_engine: Callable[[Model], Engine] = Engine,
) -> Baked:
    """Write a method's map into a model, and prove it on a batch.

    Parameters
    ----------
    layer : str, optional
        Where; by default where `cam` would look, for ``attention`` the last one over a grid of patches.
    ask : bool
        The class is a further input, ``index``; else the largest score's.

    Raises
    ------
    MethodError
        The method can't be written into a model, can't apply to this one, or its map isn't the one computed outside.
    LayerError
        No such layer, no map there, or a gradient that can't be had.
    """
    if method not in methods():
        raise MethodError(f"{method!r} can't be written into a model; these can: {', '.join(methods())}")
    if method == ATTENTION:
        made, name, why, expected = _attention(model, batch, layer, make_engine)
    else:
        made, name, why, expected = _method(model, batch, method, layer, output, ask, make_engine)
    engine = make_engine(made)
    feeds = {n: a for n, a in batch.arrays.items() if n in {i.name for i in made.inputs}}
    if ask and INDEX in {i.name for i in made.inputs}:
        feeds[INDEX] = _classes(model, batch, output, make_engine)
    found = engine.run(feeds, [MAP, HEATMAP])
    error = _difference(found[MAP], expected)
    half = model.layer(name).output.dtype in ("float16", "bfloat16")
    if not error <= (COARSE if half else TOLERANCE):
        raise MethodError(
            f"{method} written into {model.source} differs from the one computed outside by {error:.2g} of its range:"
            " nothing is written; choose another method or layer"
        )
    domains = {n.domain for n in made.proto.graph.node} - {"", "ai.onnx"}
    others = sorted({f"{n.domain}::{n.op_type}" for n in made.proto.graph.node if n.domain in domains})
    return Baked(made, method, name, why, error, tuple(others), engine.provider)


def _method(
    model: Model,
    batch: Batch,
    method: str,
    layer: str | None,
    output: str | None,
    ask: bool,
    make_engine: Callable[[Model], Engine],
) -> tuple[Model, str, str, Maps]:
    target = parse("top-1", batch.labels)[0]
    view = scene(model, batch, layer=layer, output=output, make_engine=make_engine)
    if view.layer is None or view.form is None:
        raise LayerError(view.blind)
    if view.context.classifier is not None:
        view = scene(model, batch, layer=view.layer, target=target, output=output, make_engine=make_engine)
    assert view.layer is not None and view.form is not None
    made = bake(
        model,
        method,
        view.layer,
        view.form,
        classifier=view.context.classifier,
        linear=_linear(view),
        plane=view.context.size,
        ask=ask,
    )
    return made, view.layer.name, view.why, attribute(view, method).values


def _linear(view: Scene) -> LinearHead | None:
    """What follows the layer, where the batch proves that it is pooling and one linear layer."""
    classifier = view.context.classifier
    if classifier is None or view.form is None or view.probe().linear_weights() is None:
        return None
    return view.sections.linear_head(classifier.scores, view.form.cells)


def _classes(
    model: Model, batch: Batch, output: str | None, make_engine: Callable[[Model], Engine]
) -> NDArray[np.int64]:
    target = parse("top-1", batch.labels)[0]
    view = scene(model, batch, target=target, output=output, make_engine=make_engine)
    return np.asarray(view.fixed.classes, np.int64)


def _attention(
    model: Model, batch: Batch, layer: str | None, make_engine: Callable[[Model], Engine]
) -> tuple[Model, str, str, Maps]:
    """The class token's row, or the mean over all tokens where there is none."""
    from onnx_inspect.attention import capture

    found = attention.find(model, concrete_shapes(model, batch), decompose=True)
    recipes = [r for r in found if isinstance(r, Recipe) and len(windows(r)) == 0 and place([], r.keys, model)]
    if layer is not None:
        name = model.layer(layer).name
        recipes = [r for r in recipes if r.layer.name == name]
    if not recipes:
        where = f" at {layer!r}" if layer is not None else ""
        raise LayerError(f"{model.source} has no attention over a grid of patches{where}: see onnx-inspect attention")
    chosen = recipes[-1]
    seen = capture(model, batch, layers=[chosen.layer.name], reduce="mean", make_engine=make_engine)
    if not seen.maps:
        raise LayerError(f"attention {chosen.layer.name!r} is refused: {seen.refused[0][1]}")
    one = seen.maps[0]
    row = one.prefix_names.index("cls") if "cls" in one.prefix_names else None
    size = scene_size(model, batch)
    made = bake_attention(model, chosen, size, row=row)
    rows = one.probabilities[:, 0] if row is None else one.probabilities[:, 0, row : row + 1]  # (N, rows, keys)
    assert one.cells is not None and one.grid is not None
    order = np.argsort(np.where(one.cells[0] >= 0, one.cells[0], np.iinfo(np.intp).max))[: one.grid[0] * one.grid[1]]
    expected = rows.mean(axis=1)[:, order].reshape(-1, *one.grid)
    why = "" if layer is not None else "the last attention over a grid of patches"
    return made, chosen.layer.name, why, expected.astype(np.float32)


def scene_size(model: Model, batch: Batch) -> tuple[int, int]:
    """Height and width of the input's plane."""
    from onnx_inspect.forms import present_input

    height, width = present_input(batch).shape[-2:]
    return int(height), int(width)


def _difference(found: NDArray[np.float32], expected: Maps) -> float:
    if found.shape != expected.reshape(found.shape[0], -1, expected.shape[-1]).shape:
        expected = expected.reshape(found.shape)
    scale = float(np.ptp(expected)) or float(np.abs(expected).max()) or 1.0
    return float(np.abs(found - expected.reshape(found.shape)).max()) / scale
