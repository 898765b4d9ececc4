"""Whether a model takes any number of samples, and how a fixed batch of one is freed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_inspect.graph.model import Dim, Model, build
from onnx_inspect.graph.surgery import data_dependent

SYMBOL = "batch"


def batch_axes(model: Model) -> dict[str, int | None]:
    """Axis of each input along which samples lie; None for what all samples share.

    A symbol that opens one input's shape marks the batch axis in all of them; without symbols axis 0 of length 1 is it.
    """
    opening = next((s.shape[0] for s in model.inputs if s.shape and isinstance(s.shape[0], str)), None)
    axes: dict[str, int | None] = {}
    for spec in model.inputs:
        shape = spec.shape
        if spec.name in model.shared:
            axes[spec.name] = None
        elif not shape:
            axes[spec.name] = 0 if shape is None else None
        elif opening is not None and opening in shape:
            axes[spec.name] = shape.index(opening)
        elif not isinstance(shape[0], int) or opening is None:
            axes[spec.name] = 0
        else:
            axes[spec.name] = None
    return axes


def fixed_batch(model: Model) -> int | None:
    """Return the batch size that the inputs' shapes insist on, or None when they leave it open."""
    sizes = {
        spec.shape[axis]
        for spec in model.inputs
        if spec.shape and (axis := batch_axes(model)[spec.name]) is not None and isinstance(spec.shape[axis], int)
    }
    fixed = [s for s in sizes if isinstance(s, int)]
    return max(fixed) if fixed else None


def free(model: Model) -> Model:
    """Return the model with its batch of one made symbolic, and the constants that carry the one adjusted.

    Constant Reshape targets that start with 1 get -1 (or 0 where they hold a -1 already); constants concatenated with
    batched tensors are expanded to the batch. Whether that was enough is for a trial run to say: compare a batch of two
    with two singles.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    axes = batch_axes(model)
    dependent = data_dependent(model)
    for info in graph.input:
        axis = axes.get(info.name)
        if axis is not None and info.type.tensor_type.HasField("shape"):
            dims = info.type.tensor_type.shape.dim
            if len(dims) > axis:
                dims[axis].dim_param = SYMBOL
    for output in graph.output:
        if output.type.tensor_type.HasField("shape"):
            for dim in list(output.type.tensor_type.shape.dim)[:1]:
                dim.Clear()
    del graph.value_info[:]
    _free_reshapes(graph, model, dependent)
    _free_concats(graph, model, dependent)
    return replace(build(proto, source=model.source, digest=model.digest, folder=model.folder), shared=model.shared)


def _free_reshapes(graph: onnx.GraphProto, model: Model, dependent: set[str]) -> None:
    for index, node in enumerate(graph.node):
        if node.op_type != "Reshape" or node.input[0] not in dependent:
            continue
        target = _target(node, model)
        if target is None or not target or target[0] != 1:
            continue
        freed = [0 if -1 in target else -1, *target[1:]]
        if len(node.input) < 2:  # opset 1 to 4 hold the target in an attribute
            next(a for a in node.attribute if a.name == "shape").ints[:] = freed
            continue
        name = f"{node.input[1]}__batch_{index}"  # another name: other nodes may read the same constant
        graph.initializer.append(numpy_helper.from_array(np.array(freed, np.int64), name))
        node.input[1] = name


def _target(node: onnx.NodeProto, model: Model) -> list[int] | None:
    if len(node.input) < 2:
        return next((list(a.ints) for a in node.attribute if a.name == "shape"), None)
    tensor = model.constants.get(node.input[1])
    if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    return [int(v) for v in numpy_helper.to_array(tensor).ravel()]


def _free_concats(graph: onnx.GraphProto, model: Model, dependent: set[str]) -> None:
    """Expand class tokens and the like: a constant with one row, concatenated with a batch along another axis."""
    nodes: list[onnx.NodeProto] = []
    for index, node in enumerate(graph.node):
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        leader = next((n for n in node.input if n in dependent), None)
        if node.op_type == "Concat" and axis != 0 and leader is not None:
            for position, name in enumerate(node.input):
                shape = _constant_shape(model, name)
                if name in dependent or not shape or shape[0] != 1 or len(shape) < 2:
                    continue
                made = f"{name}__expanded_{index}_{position}"
                nodes.extend(_expand(graph, name, leader, made, len(shape)))
                node.input[position] = made
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _constant_shape(model: Model, name: str) -> tuple[Dim, ...] | None:
    tensor = model.constants.get(name)
    return tuple(tensor.dims) if tensor is not None else model.tensor(name).shape


def _expand(graph: onnx.GraphProto, name: str, leader: str, made: str, rank: int) -> list[onnx.NodeProto]:
    """Nodes that repeat `name` along axis 0 as often as `leader` has rows."""
    graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), f"{made}_start"))
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), f"{made}_stop"))
    graph.initializer.append(numpy_helper.from_array(np.ones(rank - 1, np.int64), f"{made}_ones"))
    make = onnx.helper.make_node
    return [
        make("Shape", [leader], [f"{made}_shape"], name=f"{made}_shape"),
        make("Slice", [f"{made}_shape", f"{made}_start", f"{made}_stop"], [f"{made}_n"], name=f"{made}_n"),
        make("Concat", [f"{made}_n", f"{made}_ones"], [f"{made}_target"], name=f"{made}_target", axis=0),
        make("Expand", [name, f"{made}_target"], [made], name=made),
    ]
