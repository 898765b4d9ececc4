"""How a model is made to output its own explanation: predictions and the map that led to them, in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from onnx_inspect import discover
from onnx_inspect.errors import LayerError, MethodError
from onnx_inspect.graph.attention import Recipe
from onnx_inspect.graph.attention.opened import Selection, opened, windows
from onnx_inspect.graph.attention.tokens import place
from onnx_inspect.graph.bake._draft import Draft, used
from onnx_inspect.graph.batch import fixed_batch
from onnx_inspect.graph.classifier import Classifier
from onnx_inspect.graph.declare import value_info
from onnx_inspect.graph.free import free
from onnx_inspect.graph.gradient import ARGMAX, INDEX, gradient, gradient_name
from onnx_inspect.graph.linear import LinearHead
from onnx_inspect.graph.model import Layer, Model, TensorSpec
from onnx_inspect.graph.rules._writer import FLOAT, Writer
from onnx_inspect.graph.spatial import Spatial
from onnx_inspect.graph.surgery import Cut, cut
from onnx_inspect.graph.upgrade import upgrade

METHODS = "onnx_inspect.graph.bake"
MAP, HEATMAP = "map", "heatmap"
ATTENTION = "attention"


def methods() -> list[str]:
    """Names of the methods that can be written into a model."""
    return sorted([*discover.names(METHODS), ATTENTION])


def bake(
    model: Model,
    method: str,
    layer: Layer,
    form: Spatial,
    *,
    classifier: Classifier | None,
    linear: LinearHead | None,
    plane: tuple[int, int],
    ask: bool = False,
) -> Model:
    """Return a model that gives its own outputs and the map of one method at one layer.

    Parameters
    ----------
    layer, form
        Where the map is taken, and how its axes lie.
    classifier : Classifier or None
        Where the class scores are; None serves methods that look at no class.
    linear : LinearHead or None
        What follows the layer where that is pooling and one linear layer, proved by a run: then closed forms serve.
    plane : (int, int)
        Height and width of the input, which the heat map gets.
    ask : bool
        The class to explain is a further input ``index``, (N,) int64; else it is each sample's largest score, which is
        a further output ``index``.

    Returns
    -------
    Model
        With outputs ``map``, (N, h, w) float32, raw and signed as the method gives it; and ``heatmap``, (N, H, W)
        float32 in [0, 1]: what of it is positive, scaled to its range and resized to the input's plane. What is added
        are standard operators only.

    Raises
    ------
    MethodError
        The method can't be written into a model, or can't apply to this one.
    LayerError
        A gradient on the way can't be had.
    """
    module = _method(method)
    needs: Sequence[str] = module.NEEDS
    by_class = "index" in needs
    if by_class and classifier is None:
        raise MethodError(f"{method} explains a class score, and {model.source} has none; eigen-cam needs none")
    if "weights" in needs and linear is None:
        raise MethodError(
            f"{method} needs pooling and one linear layer after {layer.name!r}; take grad-cam or recipro-cam"
        )
    own = [o.name for o in model.outputs]
    scores = classifier.scores if classifier is not None else ""
    whole, index = upgrade(model), INDEX if ask else ARGMAX
    if "gradient" in needs:
        whole = gradient(model, [layer], scores, select=index)
    channels = _channels(whole, layer, form)
    draft = Draft(Writer(whole), layer.output.name, form, "", channels, head=linear)
    draft = replace(draft, maps=draft.canonical(layer.output.name))
    extra: list[TensorSpec] = []
    asked: list[TensorSpec] = []
    if by_class:
        draft, asked, extra = _with_class(draft, scores, ask, given="gradient" in needs)
    if "gradient" in needs:
        draft = replace(draft, gradient=draft.canonical(gradient_name(layer.output.name)))
    if "tail" in needs and linear is None:
        draft = replace(draft, tail=_free_tail(whole, layer, scores))
    return _finished(whole, draft, module.write(draft), plane, own, asked, extra)


def bake_attention(model: Model, recipe: Recipe, plane: tuple[int, int], *, row: int | None) -> Model:
    """Return a model that gives its own outputs and where one attention looks, as :func:`bake` does.

    The map is the mean over heads of one query's row of probabilities, or of all rows, laid out over the patches.

    Parameters
    ----------
    row : int or None
        Which token asks: the class token's number; None for the mean over all tokens.

    Raises
    ------
    LayerError
        Its tokens lie over no grid of patches, or in windows.
    """
    where = place(windows(recipe), recipe.keys, model)
    if where is None or len(where.cells) != 1:
        raise LayerError(f"attention {recipe.layer.name!r} lies over no grid of patches: a map can't be drawn of it")
    wanted = Selection(queries=None if row is None else (row,), reduce="mean")
    own = [o.name for o in model.outputs]
    given = opened(model, [recipe], {recipe.layer.name: wanted}, beside=own)
    form = Spatial("tokens", where.grid, 0)
    draft = Draft(Writer(given.model), given.probabilities[recipe.layer.name], form, "", 1)
    rows = draft.mean(draft.tensor, 1, 2, 3)  # (N, 1 window, 1 head, rows, keys) -> (N, keys)
    order = sorted((int(cell), token) for token, cell in enumerate(where.cells[0]) if cell >= 0)
    values = draft.op("Gather", rows, draft.ints(*(token for _, token in order)), axis=1)
    return _finished(given.model, draft, values, plane, own, [], [])


def _method(name: str) -> Any:
    try:
        return discover.load(METHODS, name)
    except KeyError:
        raise MethodError(f"{name!r} can't be written into a model; these can: {', '.join(methods())}") from None


def _channels(model: Model, layer: Layer, form: Spatial) -> int:
    shape = layer.output.shape or model.tensor(layer.output.name).shape or ()
    size = shape[1 if form.form == "channels-first" else -1] if shape else None
    if not isinstance(size, int):
        raise LayerError(f"nothing tells how many channels {layer.name!r} has: choose another layer")
    return size


def _with_class(
    draft: Draft, scores: str, ask: bool, *, given: bool
) -> tuple[Draft, list[TensorSpec], list[TensorSpec]]:
    """Add each sample's class; `given`: the model names it already, as its gradient wanted."""
    writer = draft.writer
    matrix = writer.op("Flatten", writer.cast(scores, FLOAT), axis=1)  # (N, classes)
    index = TensorSpec(INDEX, "int64", (writer.spec(scores).shape or (None,))[:1])
    if not given and not ask:
        found = writer.op("ArgMax", matrix, axis=1, keepdims=0)
        writer.nodes.append(onnx.helper.make_node("Identity", [found], [INDEX], name=INDEX))
    classes = writer.op("Shape", matrix, start=1)
    count = writer.op("Squeeze", classes)
    numbers = writer.op("Range", _scalar(writer, 0), count, _scalar(writer, 1))
    hot = writer.cast(writer.op("Equal", writer.op("Unsqueeze", INDEX, writer.constant([1])), numbers), FLOAT)
    draft = replace(draft, scores=matrix, hot=hot)
    return draft, ([index] if ask and not given else []), ([index] if not ask and not given else [])


def _free_tail(model: Model, layer: Layer, scores: str) -> Cut:
    """Cut the model where its tail takes any batch."""
    found = cut(model, layer, outputs=[scores])
    return replace(found, tail=free(found.tail)) if fixed_batch(found.tail) is not None else found


def _finished(
    model: Model,
    draft: Draft,
    values: str,
    plane: tuple[int, int],
    own: Sequence[str],
    asked: Sequence[TensorSpec],
    extra: Sequence[TensorSpec],
) -> Model:
    """Give the map its names and shapes, and put everything together."""
    rows, columns = draft.form.grid if len(draft.form.grid) == 2 else (1, *draft.form.grid)
    writer = draft.writer
    shaped = writer.op("Reshape", values, draft.ints(-1, rows, columns))
    writer.nodes.append(onnx.helper.make_node("Identity", [shaped], [MAP], name=MAP))
    positive = writer.op("Unsqueeze", writer.op("Relu", shaped), draft.ints(1))  # (N, 1, h, w)
    low = writer.op("ReduceMin", positive, draft.ints(1, 2, 3), keepdims=1)
    high = writer.op("ReduceMax", positive, draft.ints(1, 2, 3), keepdims=1)
    unit = draft.ratio(writer.op("Sub", positive, low), writer.op("Sub", high, low))
    sizes = writer.op("Concat", writer.op("Shape", unit, end=2), draft.ints(*plane), axis=0)
    wide = writer.op("Resize", unit, "", "", sizes, mode="linear", coordinate_transformation_mode="half_pixel")
    flat = writer.op("Squeeze", wide, draft.ints(1))
    writer.nodes.append(onnx.helper.make_node("Identity", [flat], [HEATMAP], name=HEATMAP))
    batch = (model.outputs[0].shape or (None,))[:1]
    made = [TensorSpec(MAP, FLOAT, (*batch, rows, columns)), TensorSpec(HEATMAP, FLOAT, (*batch, *plane))]
    known = {o.name: o for o in model.outputs}
    index = [known[INDEX]] if INDEX in known and INDEX not in own else []
    outputs = [*(known[name] for name in own), *index, *extra, *made]
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    nodes = used([*proto.graph.node, *writer.nodes], [o.name for o in outputs])
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del proto.graph.node[:], proto.graph.output[:], proto.graph.value_info[:]
    proto.graph.node.extend(copies)
    read = {name for node in copies for name in node.input}
    proto.graph.initializer.extend(t for name, t in writer.stored.items() if name in read)
    proto.graph.input.extend(value_info(s, needs_type=True) for s in asked)
    proto.graph.output.extend(value_info(o) for o in outputs)
    specs: Mapping[str, TensorSpec] = {**model.tensors, **{s.name: s for s in outputs}}
    return replace(model, proto=proto, inputs=(*model.inputs, *asked), outputs=tuple(outputs), tensors=specs)


def _scalar(writer: Writer, value: int) -> str:
    return writer.constant(np.array(value, np.int64))
