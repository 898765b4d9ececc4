"""How a model is made to give attentions' probabilities and how a target changes with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx

from onnx_inspect.errors import MethodError
from onnx_inspect.graph.attention._recipe import Recipe, Sketch
from onnx_inspect.graph.attention.opened import Selection, canonical, opened, sizes
from onnx_inspect.graph.dependence import descendants
from onnx_inspect.graph.gradient import gradient, gradient_name
from onnx_inspect.graph.model import Model, TensorSpec
from onnx_inspect.graph.surgery import expose
from onnx_inspect.graph.upgrade import upgrade

MOVING = frozenset("Reshape Transpose Squeeze Unsqueeze Identity Cast Flatten".split())  # numbers stay as they are


@dataclass(frozen=True)
class Sloped:
    """A model that gives probabilities and a target's gradients by them, (N, windows, heads, queries, keys) by layer.

    Its last input is the seed: what each number of the target's tensor counts.
    """

    model: Model
    probabilities: dict[str, str]
    gradients: dict[str, str]


def sloped(model: Model, recipes: Sequence[Recipe], of: str) -> Sloped:
    """Return the part of a model that computes some attentions and one tensor `of` it, with the gradients.

    An attention's context is its probabilities times its values, so the gradient by the probabilities is the gradient
    by the context times the values: that holds for fused attentions too, which hand out no probabilities.

    Raises
    ------
    MethodError
        The model's own context of an attention can't be told from what follows it.
    LayerError
        As for :func:`~onnx_inspect.graph.gradient.gradient`.
    """
    one = opened(model, recipes, {r.layer.name: Selection() for r in recipes}, beside=[of])
    part = upgrade(one.model)
    chains = {r.layer.name: _chain(part, r, of) for r in recipes}
    anchors = [anchor for anchor, _ in chains.values()]
    grown = gradient(part, anchors, of)
    proto = onnx.ModelProto()
    proto.CopyFrom(grown.proto)
    found: dict[str, str] = {}
    for number, recipe in enumerate(recipes):
        sketch = Sketch(grown.opsets["ai.onnx"], f"relevance_{number}")
        anchor, moves = chains[recipe.layer.name]
        found[recipe.layer.name] = _by_probabilities(sketch, recipe, gradient_name(anchor), anchor, moves)
        proto.graph.node.extend(sketch.nodes)
        proto.graph.initializer.extend(sketch.constants)
    specs = {name: TensorSpec(name, "float32", (None,) * 5) for name in found.values()}
    whole = replace(grown, proto=proto, tensors={**grown.tensors, **specs})
    return Sloped(expose(whole, list(found.values())), one.probabilities, found)


def _chain(model: Model, recipe: Recipe, of: str) -> tuple[str, list[onnx.NodeProto]]:
    """The tensor on the way to the target that holds an attention's context, and what only rearranges it after that."""
    name, moves = recipe.context, []
    while of not in descendants(model, name):
        node = model.producers.get(name)
        if node is None or node.op_type not in MOVING:
            raise MethodError(
                f"no gradient by the attention {recipe.layer.name!r}: what it hands on can't be told from the graph"
            )
        moves.append(node)
        name = node.input[0]
    return name, moves[::-1]


def _by_probabilities(sketch: Sketch, recipe: Recipe, slope: str, anchor: str, moves: Sequence[onnx.NodeProto]) -> str:
    """Add ``(gradient by the context) values^T``, with its leading axes in order."""
    renamed = {anchor: slope}
    for node in moves:
        rest = [renamed.get(name, name) for name in node.input]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Cast":
            attributes = {"to": int(onnx.TensorProto.FLOAT)}
        renamed[node.output[0]] = sketch.add(node.op_type, *rest, **attributes)
    rank, own = len(recipe.lead) + 2, sizes(recipe)
    values = sketch.swapped(sketch.float32(recipe.values), rank)
    product = sketch.add("MatMul", sketch.float32(renamed[recipe.context]), values)
    return canonical(sketch, product, recipe.lead, (own.queries, own.keys))
