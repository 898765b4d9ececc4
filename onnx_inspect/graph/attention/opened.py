"""How a model is made to give attentions' probabilities, reduced inside the graph, and what proves them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnx_inspect.graph.attention._recipe import Recipe, Sketch
from onnx_inspect.graph.factors import Axes, Axis, Factor, size
from onnx_inspect.graph.model import Model, TensorSpec, node_inputs
from onnx_inspect.graph.surgery import extract

CHECKS = ("rows", "context", "scale", "after", "finite")  # columns of the proof; see `_proof`


@dataclass(frozen=True)
class Selection:
    """What of an attention is wanted: which heads and query rows (None for all), and ``mean`` or ``max`` over heads."""

    heads: tuple[int, ...] | None = None
    queries: tuple[int, ...] | None = None
    reduce: str | None = None


@dataclass(frozen=True)
class Sizes:
    """Lengths of an attention's axes for one sample."""

    windows: int
    heads: int
    queries: int
    keys: int

    def fetched(self, wanted: Selection) -> int:
        """Bytes of what is wanted of one sample."""
        heads = 1 if wanted.reduce else self.heads if wanted.heads is None else len(wanted.heads)
        rows = self.queries if wanted.queries is None else len(wanted.queries)
        return 4 * self.windows * heads * rows * self.keys

    @property
    def whole(self) -> int:
        """Bytes of all probabilities of one sample."""
        return self.fetched(Selection())


@dataclass(frozen=True)
class Opened:
    """A model that gives probabilities (N, windows, heads, queries, keys) and their proof (N, 5), by layer name."""

    model: Model
    probabilities: dict[str, str]
    proofs: dict[str, str]


def sizes(recipe: Recipe) -> Sizes:
    """Lengths of an attention's axes."""
    roles = _roles(recipe.lead)
    lengths = {role: math.prod(f.size for r, f in roles if r == role) for role in ("window", "head")}
    return Sizes(lengths["window"], lengths["head"], size(recipe.queries), size(recipe.keys))


def windows(recipe: Recipe) -> list[Axis]:
    """Axes of the windows that a sample's tokens are divided into; none where there is one window."""
    return [(f,) for role, f in _roles(recipe.lead) if role == "window"]


def opened(
    model: Model, recipes: Sequence[Recipe], wanted: Mapping[str, Selection], *, beside: Sequence[str] = ()
) -> Opened:
    """Return the part of a model that computes some attentions, with what is wanted of them as its outputs.

    `beside` names tensors of the model that are outputs too, before them.
    """
    proto = onnx.ModelProto(ir_version=model.proto.ir_version)  # without its weights: they are copied once, at the end
    proto.opset_import.extend(model.proto.opset_import)
    proto.metadata_props.extend(model.proto.metadata_props)
    proto.graph.node.extend(model.proto.graph.node)
    _edit(proto.graph, recipes)
    found = Opened(model, {}, {})
    specs: dict[str, TensorSpec] = {}
    for number, recipe in enumerate(recipes):
        proto.graph.node.extend(recipe.nodes)
        proto.graph.initializer.extend(recipe.constants)
        sketch = Sketch(model.opsets.get("ai.onnx", 1), f"attention_{number}")
        own = sizes(recipe)
        tensors = [sketch.float32(n) for n in (recipe.probabilities, recipe.values, recipe.context)]
        proof = _proof(sketch, recipe, tensors, own)
        plain = canonical(sketch, tensors[0], recipe.lead, (own.queries, own.keys))
        result = _selected(sketch, plain, wanted[recipe.layer.name])
        proto.graph.node.extend(sketch.nodes)
        proto.graph.initializer.extend(sketch.constants)
        found.probabilities[recipe.layer.name] = result
        found.proofs[recipe.layer.name] = proof
        specs |= {n: TensorSpec(n, "float32", (None,) * rank) for n, rank in ((result, 5), (proof, 2))}
    whole = replace(model, proto=proto, tensors={**model.tensors, **specs})
    names = [*beside, *found.probabilities.values(), *found.proofs.values()]
    return replace(found, model=_weighted(extract(whole, [i.name for i in model.inputs], names), model))


def _weighted(part: Model, model: Model) -> Model:
    """Give a part of a model the weights that it reads."""
    graph, stored = part.proto.graph, model.proto.graph
    read = {name for node in graph.node for name in node_inputs(node)}
    graph.initializer.extend(t for t in stored.initializer if t.name in read)
    graph.sparse_initializer.extend(t for t in stored.sparse_initializer if t.values.name in read)
    return part


def _edit(graph: onnx.GraphProto, recipes: Sequence[Recipe]) -> None:
    """Put edited nodes in place of those of the same name, and what they need before them."""
    names = {node.name for node in graph.node}
    placed: dict[str, list[onnx.NodeProto]] = {}
    for recipe in recipes:
        waiting: list[onnx.NodeProto] = []
        for node in recipe.edited:
            waiting.append(node)
            if node.name in names:
                placed[node.name] = waiting
                waiting = []
    if placed:
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
        del graph.node[:]
        for node in kept:
            graph.node.extend(placed.get(node.name, [node]))


def _roles(lead: Axes) -> list[tuple[str, Factor]]:
    """Whether each part of the leading axes counts samples, windows or heads; lone ones that count neither are out."""
    found: list[tuple[str, Factor]] = []
    for factor in (f for axis in lead for f in axis):
        kind = factor.base.kind
        if kind == "sample" and not any(role == "sample" for role, _ in found):
            found.append(("sample", factor))
        elif factor.size > 1:
            found.append(("window" if kind in ("position", "sample") else "head", factor))
    return found


def canonical(sketch: Sketch, tensor: str, lead: Axes, rest: tuple[int, ...]) -> str:
    """Rearrange (leading axes, rest) as (N, windows, heads, rest)."""
    roles = _roles(lead)
    samples = any(role == "sample" for role, _ in roles)
    dealt = [-1 if role == "sample" else f.size for role, f in roles]
    shape = dealt if samples else [-1, *dealt]
    kinds = [role for role, _ in roles] if samples else ["sample", *(role for role, _ in roles)]
    order = [i for wanted in ("sample", "window", "head") for i, role in enumerate(kinds) if role == wanted]
    split = sketch.reshape(tensor, (*shape, *rest))
    turned = sketch.transpose(split, [*order, *range(len(shape), len(shape) + len(rest))])
    lengths = [math.prod(f.size for role, f in roles if role == wanted) for wanted in ("window", "head")]
    return sketch.reshape(turned, (-1, *lengths, *rest))


def _selected(sketch: Sketch, tensor: str, wanted: Selection) -> str:
    """Rows and heads wanted of (N, windows, heads, queries, keys)."""
    if wanted.queries is not None:
        tensor = sketch.add("Gather", tensor, sketch.constant(wanted.queries, "int64"), axis=3)
    if wanted.heads is not None:
        tensor = sketch.add("Gather", tensor, sketch.constant(wanted.heads, "int64"), axis=2)
    if wanted.reduce is not None:
        tensor = sketch.reduce({"mean": "ReduceMean", "max": "ReduceMax"}[wanted.reduce], tensor, [2], keep=True)
    return tensor


def _proof(sketch: Sketch, recipe: Recipe, tensors: Sequence[str], own: Sizes) -> str:
    """Compute what proves an attention, (N, 5).

    How far a row's sum is from 1 (or from 0, where everything is masked); how far probabilities times values are from
    the context, in its own unit; its largest |number|; the largest probability of a key after the query; and 0, or NaN
    where a number isn't finite. The product is taken the other way round, values' columns times queries' rows, so that
    no optimiser merges it with the model's own.
    """
    soft, values, context = tensors
    rank = len(recipe.lead) + 2
    last = [rank - 2, rank - 1]
    total = sketch.reduce("ReduceSum", soft, [rank - 1], keep=True)
    missing = sketch.add("Abs", sketch.add("Sub", total, sketch.constant(1.0)))
    rows = sketch.add("Min", missing, sketch.add("Abs", total))
    again = sketch.add("MatMul", sketch.swapped(values, rank), sketch.swapped(soft, rank))  # (..., d, queries)
    apart = sketch.add("Abs", sketch.add("Sub", again, sketch.swapped(context, rank)))
    columns = [
        _largest(sketch, sketch.reduce("ReduceMax", tensor, last, keep=False), recipe.lead)
        for tensor in (rows, apart, sketch.add("Abs", context))
    ]
    columns.append(_after(sketch, soft, recipe, own))
    rest = sketch.add("Add", _sum(sketch, apart, last, recipe.lead), _sum(sketch, rows, last, recipe.lead))
    columns.append(rest)
    return sketch.concat(columns, 1)


def _largest(sketch: Sketch, tensor: str, lead: Axes) -> str:
    """Largest entry of each sample, (N, 1)."""
    plain = sketch.add("Flatten", canonical(sketch, tensor, lead, ()), axis=1)
    return sketch.reduce("ReduceMax", plain, [1], keep=True)


def _sum(sketch: Sketch, tensor: str, last: list[int], lead: Axes) -> str:
    """0 for each sample, or NaN where an entry isn't finite, (N, 1)."""
    nothing = sketch.reduce("ReduceSum", sketch.add("Sub", tensor, tensor), last, keep=False)
    plain = sketch.add("Flatten", canonical(sketch, nothing, lead, ()), axis=1)
    return sketch.reduce("ReduceSum", plain, [1], keep=True)


def _after(sketch: Sketch, soft: str, recipe: Recipe, own: Sizes) -> str:
    """Largest probability that a query gives to a key after it, (N, 1); of any key where there can be no order."""
    plain = canonical(sketch, soft, recipe.lead, (own.queries, own.keys))
    plain = sketch.reduce("ReduceMax", plain, [1, 2], keep=False)
    ordered = own.windows == 1 and 1 < own.queries <= own.keys
    mask = np.triu(np.ones((own.queries, own.keys)), own.keys - own.queries + 1) if ordered else np.ones(1)
    later = sketch.reduce("ReduceMax", sketch.add("Mul", plain, sketch.constant(mask)), [1, 2], keep=False)
    return sketch.reshape(later, (-1, 1))
