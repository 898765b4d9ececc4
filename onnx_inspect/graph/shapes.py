"""Which type and shape each tensor has, found without touching the weights' bytes."""

from __future__ import annotations

import onnx

from onnx_inspect.errors import ModelError

SMALL = 4096  # elements: constants up to this size may decide shapes (Reshape targets, axes, pads)


def infer(proto: onnx.ModelProto, source: str) -> dict[str, onnx.ValueInfoProto]:
    """Type and shape by tensor name: inputs, outputs, declared and inferred values.

    Raises
    ------
    ModelError
        Shapes contradict each other, so that no runtime can run the model.
    """
    light = _without_weights(proto)
    try:
        inferred = onnx.shape_inference.infer_shapes(light, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        message = " ".join(str(error).split())
        if "Incompatible" in message or "incompatible" in message or "ismatch" in message:
            raise ModelError(f"{source}: its shapes contradict each other: {message}") from error
        inferred = onnx.shape_inference.infer_shapes(light)
    graph = inferred.graph
    return {v.name: v for v in [*graph.value_info, *graph.input, *graph.output]}


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
