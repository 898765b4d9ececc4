"""Which types the outputs of operators have that the runtime serves though onnx has no rule for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import onnx
from onnx import TypeProto

from onnx_inspect.graph.constants import attribute

# com.microsoft operators as the standard one that has their shape and their cost: (operator, inputs to look at).
STANDARD: dict[str, tuple[str, tuple[int, ...]]] = {
    "DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "MatMulIntegerToFloat": ("MatMul", (0, 1)),
    "FusedConv": ("Conv", (0, 1)),
    "FusedGemm": ("Gemm", (0, 1)),
    "QGemm": ("Gemm", (0, 3)),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
}
# Operators whose first output is like their first input, by domain. The standard ones were withdrawn in 2018; of them
# Crop alone changes the shape.
ALIKE = {
    "com.microsoft": {
        *("BiasGelu", "FastGelu", "Gelu", "QuickGelu", "MultiHeadAttention", "RotaryEmbedding"),
        *("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization"),
        *("QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax", "QuantizeLinear", "DequantizeLinear"),
    },
    "ai.onnx.ml": {"Imputer", "Normalizer", "Scaler"},
    "": {"Affine", "Crop", "ImageScaler", "ParametricSoftplus", "Scale", "ScaledTanh"},
}
TO_FLOAT = {"MatMulIntegerToFloat", "DequantizeLinear"}


def standard(node: onnx.NodeProto, attributes: Mapping[str, Any]) -> onnx.NodeProto:
    """Return the standard operator that has the node's shape; the node itself where it is one or has none.

    `attributes` are those that the standard operator knows; the node's others are left out.
    """
    if node.domain != "com.microsoft" or node.op_type not in STANDARD:
        return node
    name, positions = STANDARD[node.op_type]
    inputs = [node.input[i] for i in positions if i < len(node.input)]
    result = onnx.helper.make_node(name, inputs, [node.output[0]], name=node.name)
    result.attribute.extend(a for a in node.attribute if a.name in attributes)
    return result


def output_types(node: onnx.NodeProto, types: Mapping[str, TypeProto]) -> dict[str, TypeProto]:
    """Types of the outputs that follow from those of the inputs; empty where no rule here knows the operator."""
    if node.op_type == "ArrayFeatureExtractor" and all(name in types for name in node.input):
        return {node.output[0]: _columns(types[node.input[0]], types[node.input[1]])}
    known = ALIKE.get("" if node.domain == "ai.onnx" else node.domain, set())
    if node.op_type not in known or not node.input or node.input[0] not in types:
        return {}
    result = TypeProto()
    result.CopyFrom(types[node.input[0]])
    if node.op_type == "Crop":
        _crop(node, result)
    elif node.op_type in TO_FLOAT or node.domain == "ai.onnx.ml":
        result.tensor_type.elem_type = onnx.TensorProto.FLOAT
    elif node.op_type == "QuantizeLinear" and len(node.input) > 2 and node.input[2] in types:
        result.tensor_type.elem_type = types[node.input[2]].tensor_type.elem_type
    return {node.output[0]: result}


def _crop(node: onnx.NodeProto, result: TypeProto) -> None:
    dims = result.tensor_type.shape.dim
    left, top, right, bottom = attribute(node, "border", [0, 0, 0, 0])
    for dim, less in zip(dims[2:4], (top + bottom, left + right), strict=False):
        if dim.HasField("dim_value"):
            dim.dim_value -= less
        else:
            dim.Clear()
    for dim, size in zip(dims[2:4], attribute(node, "scale", []), strict=False):
        dim.dim_value = size


def _columns(data: TypeProto, indices: TypeProto) -> TypeProto:
    """Type of the columns that a list of indices takes: the data's rows, one column per index."""
    result = TypeProto()
    result.CopyFrom(data)
    dims, picked = result.tensor_type.shape.dim, indices.tensor_type.shape.dim
    if len(dims) == 1:
        dims.add(dim_value=1)
        dims.reverse()
    if dims and all(dim.HasField("dim_value") for dim in picked):
        dims[-1].dim_value = math.prod(dim.dim_value for dim in picked)
    elif dims:
        dims[-1].Clear()
    return result
