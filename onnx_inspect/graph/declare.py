"""How a tensor's type and shape are declared in a graph."""

from __future__ import annotations

import numpy as np
import onnx

from onnx_inspect.graph.model import TensorSpec


def value_info(spec: TensorSpec, *, needs_type: bool = False) -> onnx.ValueInfoProto:
    """Declare a tensor with what is known of it; an input, which needs a type, is float32 where nobody says."""
    if (not spec.dtype and not needs_type) or spec.dtype in ("sequence", "map", "optional"):
        return onnx.ValueInfoProto(name=spec.name)
    element = elem_type(spec.dtype or "float32")
    return onnx.helper.make_tensor_value_info(spec.name, element, None if spec.shape is None else list(spec.shape))


def elem_type(dtype: str) -> int:
    """ONNX's number for a type by its numpy name, or its name in ml_dtypes."""
    if dtype == "string":
        return int(onnx.TensorProto.STRING)
    import ml_dtypes

    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(getattr(ml_dtypes, dtype, None) or dtype)))
