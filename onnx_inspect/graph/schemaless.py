"""Which types the outputs of operators have that the runtime serves though onnx has no rule for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import onnx
from onnx import TypeProto

from onnx_inspect.graph.constants import attribute

Types = Mapping[str, TypeProto]
MICROSOFT = "com.microsoft"

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
# Operators whose first output is like their first input, by domain. The standard ones were withdrawn in 2018, but
# for GroupNormalization, of whose shape onnx says nothing.
ALIKE = {
    MICROSOFT: {
        *("BiasGelu", "FastGelu", "Gelu", "QuickGelu", "MultiHeadAttention", "RotaryEmbedding"),
        *("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization"),
        *("QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax", "QuantizeLinear", "DequantizeLinear"),
    },
    "ai.onnx.ml": {"Imputer", "Normalizer", "Scaler"},
    "": {"Affine", "GroupNormalization", "ImageScaler", "ParametricSoftplus", "Scale", "ScaledTanh"},
}
TO_FLOAT = {"MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DequantizeLinear", "Imputer", "Normalizer", "Scaler"}


def standard(node: onnx.NodeProto, attributes: Mapping[str, Any]) -> onnx.NodeProto:
    """Return the standard operator that has a com.microsoft node's shape; `attributes` are those that it knows."""
    name, positions = STANDARD[node.op_type]
    inputs = [node.input[i] for i in positions]
    result = onnx.helper.make_node(name, inputs, [node.output[0]], name=node.name)
    result.attribute.extend(a for a in node.attribute if a.name in attributes)
    return result


def output_type(node: onnx.NodeProto, types: Types) -> TypeProto | None:
    """Type of the first output as it follows from those of the inputs; None where no rule here knows the operator."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    if not node.input or node.input[0] not in types:
        return None
    if node.op_type in ALIKE.get(domain, ()):
        return _typed(types[node.input[0]], element(node, types))
    rule = RULES.get((domain, node.op_type))
    try:
        return None if rule is None else rule(node, types)
    except (KeyError, IndexError):
        return None  # an input of which nothing is known, or of another rank


def element(node: onnx.NodeProto, types: Types) -> int:
    """Element type of what an operator of `STANDARD` or `ALIKE` makes."""
    if node.op_type in TO_FLOAT or (node.op_type == "QGemm" and not any(node.input[7:8])):
        return onnx.TensorProto.FLOAT
    if node.op_type == "QuantizeLinear" and len(node.input) > 2 and node.input[2] in types:
        return types[node.input[2]].tensor_type.elem_type
    return types[node.input[0]].tensor_type.elem_type


def _typed(kind: TypeProto, element: int) -> TypeProto:
    result = TypeProto()
    result.CopyFrom(kind)
    result.tensor_type.elem_type = element
    return result


def _crop(node: onnx.NodeProto, types: Types) -> TypeProto:
    result = _typed(types[node.input[0]], element(node, types))
    dims = result.tensor_type.shape.dim
    left, top, right, bottom = attribute(node, "border", [0, 0, 0, 0])
    for dim, less in zip(dims[2:4], (top + bottom, left + right), strict=False):
        if dim.HasField("dim_value"):
            dim.dim_value -= less
        else:
            dim.Clear()
    for dim, size in zip(dims[2:4], attribute(node, "scale", []), strict=False):
        dim.dim_value = size
    return result


def _columns(node: onnx.NodeProto, types: Types) -> TypeProto:
    """ArrayFeatureExtractor: the data's rows, one column per index."""
    result = _typed(types[node.input[0]], element(node, types))
    dims, picked = result.tensor_type.shape.dim, types[node.input[1]].tensor_type.shape.dim
    if len(dims) == 1:
        dims.add(dim_value=1)
        dims.reverse()
    if all(dim.HasField("dim_value") for dim in picked):
        dims[-1].dim_value = math.prod(dim.dim_value for dim in picked)
    else:
        dims[-1].Clear()
    return result


def _attention(node: onnx.NodeProto, types: Types) -> TypeProto:
    """Input (N, T, D), weight (D, queries + keys + values): the output has the values' size."""
    result = _typed(
        types[node.input[0]], onnx.TensorProto.FLOAT if node.op_type == "QAttention" else element(node, types)
    )
    sizes = attribute(node, "qkv_hidden_sizes", [])
    made = types[node.input[1]].tensor_type.shape.dim[1].dim_value
    result.tensor_type.shape.dim[2].dim_value = sizes[2] if sizes else made // 3
    return result


def _embedding(node: onnx.NodeProto, types: Types) -> TypeProto:
    """Ids (N, T) and a table (entries, D): (N, T, D)."""
    table = types[node.input[2]].tensor_type
    result = _typed(types[node.input[0]], table.elem_type)
    result.tensor_type.shape.dim.add().CopyFrom(table.shape.dim[1])
    return result


def _packed_product(node: onnx.NodeProto, types: Types) -> TypeProto:
    result = _typed(types[node.input[0]], element(node, types))
    result.tensor_type.shape.dim[-1].dim_value = attribute(node, "N", 0)
    return result


RULES: dict[tuple[str, str], Callable[[onnx.NodeProto, Types], TypeProto]] = {
    ("", "Crop"): _crop,
    ("ai.onnx.ml", "ArrayFeatureExtractor"): _columns,
    (MICROSOFT, "Attention"): _attention,
    (MICROSOFT, "QAttention"): _attention,
    (MICROSOFT, "EmbedLayerNormalization"): _embedding,
    (MICROSOFT, "MatMulNBits"): _packed_product,
}
