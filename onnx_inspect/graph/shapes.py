"""Which type and shape each tensor has, found without touching the weights' bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping

import onnx

from onnx_inspect.errors import ModelError

PROBLEM = (
    r"\(op_type:(\w+), node name: ([^)]*)\): \[\w+\] (.*?)(?= \(op_type:|$)"  # onnx's words, of which there may be many
)
SMALL = 4096  # elements: constants up to this size may decide shapes (Reshape targets, axes, pads)


def inferred(proto: onnx.ModelProto, source: str) -> onnx.GraphProto:
    """Return the graph with all types and shapes that follow declared, in its bodies too; large weights are inputs.

    Raises
    ------
    ModelError
        Shapes contradict each other, so that no runtime can run the model.
    """
    light = _without_weights(proto)
    try:
        return onnx.shape_inference.infer_shapes(light, strict_mode=True, data_prop=True).graph
    except Exception as error:  # onnx raises many kinds, mostly for operators without a rule, which is no problem
        for kind, name, problem in re.findall(PROBLEM, " ".join(str(error).split())):
            if "ncompatible" in problem or "ismatch" in problem:
                raise ModelError(f"{source}: its shapes contradict each other at {kind} {name!r}: {problem}") from error
    try:
        return onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    except Exception:  # as above; then what the model declares is all that is known, and the runtime has the last word
        return light.graph


def infer(proto: onnx.ModelProto, source: str) -> dict[str, onnx.ValueInfoProto]:
    """Type and shape by name of the main graph's tensors: inputs, outputs, declared and inferred values.

    Raises
    ------
    ModelError
        As for :func:`inferred`.
    """
    graph = inferred(proto, source)
    return {v.name: v for v in [*graph.value_info, *graph.input, *graph.output]}


def bind(proto: onnx.ModelProto, source: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shape by tensor name for inputs of given shapes; what still can't be told is left out.

    Raises
    ------
    ModelError
        Shapes contradict each other.
    """
    light = _without_weights(proto)
    del light.graph.value_info[:]
    for info in light.graph.input:
        if info.name in shapes and info.type.HasField("tensor_type"):
            element = info.type.tensor_type.elem_type
            info.CopyFrom(onnx.helper.make_tensor_value_info(info.name, element, list(shapes[info.name])))
    for output in light.graph.output:
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")
    found = {}
    for name, info in infer(light, source).items():
        dims = info.type.tensor_type.shape.dim if info.type.tensor_type.HasField("shape") else None
        if dims is not None and all(d.HasField("dim_value") for d in dims):
            found[name] = tuple(d.dim_value for d in dims)
    return found


def _without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Copy the model with its large initialisers turned into inputs of the same type and shape."""
    light = onnx.ModelProto(ir_version=max(proto.ir_version, 4))
    light.opset_import.extend(proto.opset_import)
    graph, whole = light.graph, proto.graph
    graph.name = whole.name or "graph"
    graph.node.extend(whole.node)
    graph.output.extend(whole.output)
    graph.value_info.extend(whole.value_info)
    large = {}
    for tensor in whole.initializer:
        count = 1
        for dim in tensor.dims:
            count *= dim
        if count <= SMALL and tensor.data_location != onnx.TensorProto.EXTERNAL:
            graph.initializer.append(tensor)
        else:
            large[tensor.name] = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
    weights = {t.name for t in whole.initializer}
    graph.input.extend(v for v in whole.input if v.name not in weights)
    graph.input.extend(large.values())
    return light
