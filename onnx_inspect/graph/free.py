"""How a batch of one, written into a model's shapes and constants, is made a batch of any size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_inspect.graph.batch import SYMBOL, batch_axes, varying
from onnx_inspect.graph.build import build
from onnx_inspect.graph.model import Model, subgraphs

# Inputs that must have as many rows as the operator's other inputs, and the axis that counts them.
ROWS = {
    "GridSample": {1: 0},
    "GatherElements": {1: 0},
    "ScatterElements": {0: 0, 1: 0},
    "LSTM": {4: 0, 5: 1, 6: 1},
    "GRU": {4: 0, 5: 1},
    "RNN": {4: 0, 5: 1},
}
RECURRENT = ("LSTM", "GRU", "RNN")
SIZES = {"Resize": 3}  # which input holds a whole output shape that can't say "as many as there are"


def free(model: Model) -> Model:
    """Return the model with its batch of one made symbolic, and the constants that carry the one adjusted.

    Constant Reshape targets get -1 for the axis that takes up the batch; constants joined with batched tensors, initial
    states of recurrences and the like are expanded to the batch; sizes of a Resize take theirs from what is resized.
    Whether that was enough is for a trial run to say: compare a batch of two with two singles.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    axes = batch_axes(model)
    for info in graph.input:
        axis = axes.get(info.name)
        if axis is not None and len(info.type.tensor_type.shape.dim) > axis:
            info.type.tensor_type.shape.dim[axis].dim_param = SYMBOL
    _forget(graph)
    batched = varying(model)
    nodes: list[onnx.NodeProto] = []
    for index, node in enumerate(graph.node):
        leader = next((name for name in node.input if name in batched), None)
        if leader is not None:
            if node.op_type == "Reshape" and node.input[0] in batched:
                _free_reshape(graph, model, node, index)
            nodes.extend(_expanded(graph, model, node, index, leader, batched))
            nodes.extend(_resized(graph, model, node, index))
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    freed = build(proto, source=model.source, digest=model.digest, folder=model.folder)
    return replace(freed, shared=model.shared)


def _forget(graph: onnx.GraphProto) -> None:
    """Drop what the graph and its bodies say of shapes; the ranks of outputs stay."""
    del graph.value_info[:]
    for output in graph.output:
        for dim in output.type.tensor_type.shape.dim:
            dim.Clear()
    for node in graph.node:
        for body in subgraphs(node):
            _forget(body)


def _free_reshape(graph: onnx.GraphProto, model: Model, node: onnx.NodeProto, index: int) -> None:
    """Let axis 0 of a constant target take up the batch, also where it is folded into windows or heads."""
    attribute = next((a for a in node.attribute if a.name == "shape"), None)  # where opsets 1 to 4 hold it
    target = list(attribute.ints) if attribute is not None else _integers(model, node.input[1])
    if not target or target[0] in (0, -1):
        return
    if -1 in target:
        known = model.tensor(node.output[0]).shape or ()
        size = known[target.index(-1)] if len(known) == len(target) else None
        if isinstance(size, int):
            target[target.index(-1)] = size
        elif target[0] != 1:
            return
    freed = [0 if -1 in target else -1, *target[1:]]
    if attribute is not None:
        attribute.ints[:] = freed
    else:
        node.input[1] = _constant(graph, f"{node.input[1]}__batch_{index}", freed)  # others may read the same one


def _expanded(
    graph: onnx.GraphProto, model: Model, node: onnx.NodeProto, index: int, leader: str, batched: set[str]
) -> Iterable[onnx.NodeProto]:
    """Nodes that repeat what has one row where the node wants a row for each sample; the node then reads theirs."""
    rows = dict(ROWS.get(node.op_type, {}))
    axis = next((int(a.i) for a in node.attribute if a.name == "axis"), 0)
    last = next((bool(a.i) for a in node.attribute if a.name == "layout"), False)
    if node.op_type == "Concat" and axis != 0:
        rows = dict.fromkeys(range(len(node.input)), 0)
    elif node.op_type in ("GatherElements", "ScatterElements") and axis == 0:
        rows = {}
    elif node.op_type in RECURRENT and last:
        rows = dict.fromkeys(rows, 0)
    counted = 1 if node.op_type in RECURRENT and not last else 0
    for position, along in rows.items():
        name = node.input[position] if position < len(node.input) else ""
        shape = model.constants[name].dims if name in model.constants else model.tensor(name).shape
        if not name or name in batched or not shape or len(shape) <= along or shape[along] != 1:
            continue
        made = f"{name}__rows_{index}_{position}"
        yield from _count(graph, leader, counted, f"{made}_n")
        ones = [
            _constant(graph, f"{made}_{side}", [1] * n) for side, n in (("a", along), ("b", len(shape) - along - 1))
        ]
        parts = [ones[0], f"{made}_n", ones[1]]
        yield onnx.helper.make_node("Concat", parts, [f"{made}_target"], name=f"{made}_target", axis=0)
        yield onnx.helper.make_node("Expand", [name, f"{made}_target"], [made], name=made)
        node.input[position] = made


def _resized(graph: onnx.GraphProto, model: Model, node: onnx.NodeProto, index: int) -> Iterable[onnx.NodeProto]:
    """Nodes that make constant sizes of a whole output follow the batch of what is resized."""
    position = SIZES.get(node.op_type)
    if position is None or len(node.input) <= position or any(a.name == "axes" for a in node.attribute):
        return
    sizes = _integers(model, node.input[position])
    if not sizes or sizes[0] != 1:
        return
    made = f"{node.input[position]}__batch_{index}"
    yield from _count(graph, node.input[0], 0, f"{made}_n")
    rest = _constant(graph, f"{made}_rest", sizes[1:])
    yield onnx.helper.make_node("Concat", [f"{made}_n", rest], [made], name=made, axis=0)
    node.input[position] = made


def _count(graph: onnx.GraphProto, name: str, axis: int, made: str) -> list[onnx.NodeProto]:
    """Nodes that give the length of one axis, as a tensor of one number."""
    start, stop = _constant(graph, f"{made}_start", [axis]), _constant(graph, f"{made}_stop", [axis + 1])
    return [
        onnx.helper.make_node("Shape", [name], [f"{made}_shape"], name=f"{made}_shape"),
        onnx.helper.make_node("Slice", [f"{made}_shape", start, stop], [made], name=made),
    ]


def _constant(graph: onnx.GraphProto, name: str, values: list[int]) -> str:
    graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    return name


def _integers(model: Model, name: str) -> list[int]:
    """Values of a constant shape; none where it isn't one, or lies in another file."""
    tensor = model.constants.get(name)
    if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return []
    return [int(v) for v in numpy_helper.to_array(tensor).ravel()]
