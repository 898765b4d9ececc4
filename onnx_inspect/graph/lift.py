"""How a tensor inside the body of an If, Loop or Scan becomes a value of the main graph."""

from __future__ import annotations

from dataclasses import replace

import onnx

from onnx_inspect.errors import LayerError
from onnx_inspect.graph.bodies import LOOPS, Body, bodies, stacked
from onnx_inspect.graph.declare import elem_type, value_info
from onnx_inspect.graph.model import Model, TensorSpec


def lift(proto: onnx.ModelProto, model: Model, name: str) -> None:
    """Give `proto`, a copy of the model's, a tensor of the main graph that holds what a body's tensor held.

    An If gets a further output; the branch that doesn't make the tensor gives an empty one, so that a non-empty one
    says which branch ran. A Loop or Scan stacks the values of its turns along a new first axis.

    Parameters
    ----------
    name : str
        The tensor's name from outside, ``If_0/then_branch/conv_out``; the new tensor has the same.

    Raises
    ------
    LayerError
        No body makes a tensor of that name, or nothing says which type it has.
    """
    body, own = _find(model, name)
    dtype = model.tensor(name).dtype
    if dtype in ("sequence", "map", "optional"):
        raise LayerError(f"layer {name!r} of {model.source} holds a {dtype}: only tensors can leave control flow")
    if not dtype and "If" in body.around:
        raise LayerError(f"layer {name!r} of {model.source} lies in an If, and nothing says which type it has")
    graph = proto.graph
    inside = [graph]
    for position, attribute in body.steps:
        node = inside[-1].node[position]
        inside.append(next(a.g for a in node.attribute if a.name == attribute))
    made = f"{name}__{len(body.steps)}"  # another name in each graph: bodies may not reuse outer ones
    inside[-1].node.append(onnx.helper.make_node("Identity", [own], [made], name=made))
    whole = model.tensor(name).shape
    rank = None if whole is None else len(whole) - stacked(body.around)
    for depth in range(len(body.steps), 0, -1):
        position, attribute = body.steps[depth - 1]
        node = inside[depth - 1].node[position]
        outer = f"{name}__{depth - 1}" if depth > 1 else name
        _hand_out(node, attribute, outer, TensorSpec(made, dtype, None if rank is None else (None,) * rank))
        made, rank = outer, rank + 1 if rank is not None and node.op_type in LOOPS else rank


def _find(model: Model, name: str) -> tuple[Body, str]:
    """Find the body that makes a tensor, and what it calls it."""
    for body in bodies(model.proto.graph):
        if name.startswith(body.path):
            for node in body.nodes:
                for own in node.output:
                    if own and body.named(own) == name:
                        return body, own
    raise LayerError(f"tensor {name!r} is not computed by {model.source}: it can't be exposed")


def _hand_out(node: onnx.NodeProto, attribute: str, outer: str, inner: TensorSpec) -> None:
    """Make `inner`, a tensor of one of a node's bodies, its output `outer`."""
    graphs = {a.name: a.g for a in node.attribute if a.HasField("g")}
    body = graphs[attribute]
    lead = 1 if node.op_type == "Loop" else 0  # a Loop's body gives its condition first, which is no output
    for missing in range(len(node.output), len(body.output) - lead):
        node.output.append(f"{outer}__unused_{missing}")  # trailing outputs that the node leaves out
    if node.op_type == "If" and not inner.shape:
        inner = replace(inner, shape=None)  # a single number can't be empty: the other branch gives another rank
    body.output.append(value_info(inner))
    node.output.append(outer)
    if node.op_type == "If":
        for branch, graph in graphs.items():
            if branch != attribute:
                empty = replace(inner, name=f"{outer}__empty")
                value = onnx.helper.make_tensor(empty.name, elem_type(inner.dtype), [0] * len(inner.shape or (0,)), [])
                graph.node.append(onnx.helper.make_node("Constant", [], [empty.name], name=empty.name, value=value))
                graph.output.append(value_info(empty))
    if node.op_type == "Scan":
        for a in node.attribute:
            if a.name in ("scan_output_axes", "scan_output_directions"):
                a.ints.append(0)
