"""Which type and shape each tensor has, found without touching the weights' bytes."""

from __future__ import annotations

import math
import re

import onnx

from onnx_inspect.errors import ModelError

PROBLEM = r"\(op_type:(\w+), node name: ([^)]*)\): \[\w+\] (.*?)(?= \(op_type:|$)"  # one of many in onnx's message
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
        if math.prod(tensor.dims) <= SMALL and tensor.data_location != onnx.TensorProto.EXTERNAL:
            graph.initializer.append(tensor)
        else:
            large[tensor.name] = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
    weights = {t.name for t in whole.initializer}
    graph.input.extend(v for v in whole.input if v.name not in weights)
    graph.input.extend(large.values())
    return light
