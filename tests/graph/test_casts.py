"""Types that numpy doesn't have go in and come out as float32, with the values that they hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from onnx_inspect.engine import Engine
from onnx_inspect.graph.casts import cast
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.surgery import expose

X = np.array([[-3.2, 0.1, 1.0], [2.7, 6.0, -1.5]], np.float32)
TYPES = {
    TensorProto.BFLOAT16: ml_dtypes.bfloat16,
    TensorProto.FLOAT8E4M3FN: ml_dtypes.float8_e4m3fn,
    TensorProto.FLOAT8E5M2: ml_dtypes.float8_e5m2,
    TensorProto.INT4: ml_dtypes.int4,
    TensorProto.UINT4: ml_dtypes.uint4,
}


def to(kind: int, source: str, made: str) -> Any:
    return helper.make_node("Cast", [source], [made], to=kind)


@pytest.mark.parametrize("kind", TYPES)
def test_outputs_hold_the_numbers_of_their_type(make: Callable[..., Model], kind: int) -> None:
    x = np.round(np.abs(X)) if kind in (TensorProto.INT4, TensorProto.UINT4) else X
    model = make([to(kind, "x", "y")], {"x": ("float32", ["N", 3])}, {"y": (kind, ["N", 3])}, opset=21)
    found = Engine(model).run({"x": x})["y"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, x.astype(TYPES[kind]).astype(np.float32))


def test_an_exposed_layer_of_such_a_type_is_cast_beside_the_others(make: Callable[..., Model]) -> None:
    nodes = [to(TensorProto.BFLOAT16, "x", "b"), to(TensorProto.FLOAT, "b", "f"), helper.make_node("Neg", ["f"], ["y"])]
    model = make(nodes, {"x": ("float32", ["N", 3])}, ["y"])
    found = Engine(expose(model, ["b"])).run({"x": X})
    np.testing.assert_array_equal(found["b"], X.astype(ml_dtypes.bfloat16).astype(np.float32))
    np.testing.assert_array_equal(found["y"], -found["b"])


@pytest.mark.parametrize("given", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_inputs_are_rounded_to_their_type(make: Callable[..., Model], given: Any) -> None:
    """Also where the input is read inside a branch only."""
    x = (TensorProto.BFLOAT16, ["N", 3])
    model = make([to(TensorProto.FLOAT, "x", "y")], {"x": x}, ["y"])
    rounded = X.astype(given).astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(Engine(model).run({"x": X.astype(given)})["y"], rounded)
    branches = [
        helper.make_graph(
            [to(TensorProto.FLOAT, "x", f"{b}_y")],
            b,
            [],
            [helper.make_tensor_value_info(f"{b}_y", TensorProto.FLOAT, None)],
        )
        for b in ("then", "else")
    ]
    flow = helper.make_node("If", ["flag"], ["y"], then_branch=branches[0], else_branch=branches[1])
    model = make([flow], {"x": x, "flag": (np.bool_, [])}, ["y"])
    np.testing.assert_array_equal(Engine(model).run({"x": X.astype(given), "flag": np.array(True)})["y"], rounded)


def test_a_model_of_plain_types_is_kept_as_it_is(make: Callable[..., Model]) -> None:
    model = make([helper.make_node("Relu", ["x"], ["y"])], {"x": ("float16", ["N", 3])}, ["y"])
    assert cast(model).model is model
