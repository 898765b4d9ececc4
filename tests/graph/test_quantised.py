"""Quantised weights mean what the operators that use them compute: onnxruntime and plain loops are the oracles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from onnx_inspect.graph.constants import dequantise
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.quantised import STEPS
from onnx_inspect.graph.read import parse
from onnx_inspect.graph.weights import LayerWeight, layer_weights

Array = NDArray[Any]
RNG = np.random.default_rng(3)


def model(
    nodes: Sequence[onnx.NodeProto], x: tuple[int, Sequence[int]], constants: dict[str, Array | onnx.TensorProto]
) -> Model:
    tensors = [numpy_helper.from_array(v, k) if isinstance(v, np.ndarray) else v for k, v in constants.items()]
    info = helper.make_tensor_value_info("x", *x)
    graph = helper.make_graph(nodes, "g", [info], [onnx.ValueInfoProto(name="y")], tensors)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return parse(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def run(model: Model, x: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: Array = session.run(None, {"x": x})[0]
    return result


def node(op: str, inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, [output], name=f"{op}_node", **attributes)


def weight(model: Model, role: str = "weight") -> LayerWeight:
    return next(w for w in layer_weights(model) if w.role == role)


def bytes_of(*shape: int, kind: type = np.uint8) -> Array:
    info = np.iinfo(kind)
    return RNG.integers(info.min, info.max, shape, kind, endpoint=True)


def scales(*shape: int) -> NDArray[np.float32]:
    return RNG.uniform(0.01, 0.1, shape).astype(np.float32)


# DequantizeLinear


@pytest.mark.parametrize(
    ("values", "scale", "zero", "options"),
    [
        (np.array([[0, 255], [128, 1]], np.uint8), np.float32(0.5), np.uint8(255), {}),
        (bytes_of(4, 6, kind=np.int8), scales(4), bytes_of(4, kind=np.int8), {"axis": 0}),
        (bytes_of(4, 6), scales(6), bytes_of(6), {"axis": 1}),
        (bytes_of(4, 6), scales(6), bytes_of(6), {"axis": -1}),
        (bytes_of(4, 6), scales(4), None, {"axis": 0}),
        (bytes_of(4, 6), scales(4, 2), bytes_of(4, 2), {"axis": 1, "block_size": 3}),
        (bytes_of(4, 6), scales(2, 6), None, {"axis": 0, "block_size": 2}),
        (np.array([[2**31 - 1, -(2**31)]], np.int32), np.float32(2e-9), None, {}),
    ],
)
def test_dequantised_weights_equal_the_runtimes(
    values: Array, scale: Array, zero: Array | None, options: dict[str, int]
) -> None:
    constants: dict[str, Array | onnx.TensorProto] = {"q": values, "s": np.asarray(scale)}
    if zero is not None:
        constants["z"] = np.asarray(zero)
    nodes = [node("DequantizeLinear", "q s z" if zero is not None else "q s", "w", **options), node("MatMul", "x w")]
    net = model(nodes, (T.FLOAT, [len(values), len(values)]), constants)
    found = weight(net)
    assert (found.quantised, found.dtype) == (True, str(values.dtype))
    assert dict(found.stored) == {"q": values.size}
    np.testing.assert_allclose(found.array().T, run(net, np.eye(len(values), dtype=np.float32)), rtol=1e-6)


@pytest.mark.parametrize("kind", [T.INT4, T.UINT4])
def test_four_bit_weights_are_unpacked(kind: int) -> None:
    numbers = [0, 1, 7, 3, 5, 2]
    nodes = [node("DequantizeLinear", "q s z", "w", axis=0), node("MatMul", "x w")]
    constants = {
        "q": helper.make_tensor("q", kind, [2, 3], numbers),
        "s": np.array([0.5, 2], np.float32),
        "z": helper.make_tensor("z", kind, [2], [1, 4]),
    }
    net = model(nodes, (T.FLOAT, [2, 2]), constants)
    expected = (np.array(numbers).reshape(2, 3) - np.array([[1], [4]])) * [[0.5], [2]]
    np.testing.assert_array_equal(weight(net).array(), expected.T)
    np.testing.assert_array_equal(weight(net).array().T, run(net, np.eye(2, dtype=np.float32)))


def test_a_float_weight_that_is_quantised_and_back_keeps_the_rounding() -> None:
    stored = RNG.normal(size=(3, 4)).astype(np.float32)
    nodes = [node("QuantizeLinear", "f s z", "q"), node("DequantizeLinear", "q s z", "w"), node("MatMul", "x w")]
    net = model(nodes, (T.FLOAT, [3, 3]), {"f": stored, "s": np.array(0.1, np.float32), "z": np.array(3, np.int8)})
    found = weight(net)
    assert (found.dtype, found.quantised) == ("int8", True)
    np.testing.assert_array_equal(found.array().T, run(net, np.eye(3, dtype=np.float32)))
    assert not np.array_equal(found.array().T, stored)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_dequantise_equals_a_plain_loop(rows: int, columns: int, block: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 255, (rows, columns), np.uint8, endpoint=True)
    count = -(-columns // block)
    scale = rng.uniform(0.1, 2, (rows, count)).astype(np.float32)
    zero = rng.integers(0, 255, (rows, count), np.uint8, endpoint=True)
    got = dequantise(values, scale, zero, axis=1, block=block)
    for row in range(rows):
        for column in range(columns):
            at = row, column // block
            expected = np.float32(int(values[row, column]) - int(zero[at])) * scale[at]
            assert got[row, column] == expected


# Quantised operators


@pytest.mark.parametrize("per_channel", [False, True])
def test_qlinearconv_weights_and_bias_reproduce_the_convolution(per_channel: bool) -> None:
    shape = (3,) if per_channel else ()
    constants: dict[str, Array | onnx.TensorProto] = {
        "xs": np.array(0.02, np.float32),
        "xz": np.array(120, np.uint8),
        "w": bytes_of(3, 2, 3, 3, kind=np.int8),
        "ws": scales(*shape),
        "wz": np.zeros(shape, np.int8),
        "ys": np.array(0.5, np.float32),
        "yz": np.array(128, np.uint8),
        "b": RNG.integers(-2000, 2000, 3).astype(np.int32),
    }
    net = model([node("QLinearConv", "x xs xz w ws wz ys yz b")], (T.UINT8, [1, 2, 3, 3]), constants)
    x = bytes_of(1, 2, 3, 3)
    real = (x.astype(np.float32) - 120) * np.float32(0.02)
    sums = (weight(net).array() * real).sum((1, 2, 3)) + weight(net, "bias").array()
    expected = np.clip(np.round(sums / 0.5) + 128, 0, 255)
    assert np.abs(run(net, x).ravel() - expected).max() <= 1  # a tie may round either way
    assert {w.role for w in layer_weights(net)} == {"weight", "bias"}


def test_qlinearmatmul_weights_are_output_by_input_per_column() -> None:
    constants: dict[str, Array | onnx.TensorProto] = {
        "xs": np.array(0.02, np.float32),
        "xz": np.array(0, np.uint8),
        "w": bytes_of(4, 5),
        "ws": scales(5),
        "wz": bytes_of(5),
        "ys": np.array(0.01, np.float32),
        "yz": np.array(0, np.uint8),
    }
    net = model([node("QLinearMatMul", "x xs xz w ws wz ys yz")], (T.UINT8, [1, 4]), constants)
    values = np.asarray(constants["w"]).astype(np.float64) - np.asarray(constants["wz"]).astype(np.float64)
    expected = (values * np.asarray(constants["ws"])).T
    np.testing.assert_allclose(weight(net).array(), expected, rtol=1e-6)
    assert len(layer_weights(net)) == 1  # scales are no weights


def dynamic(per_column: bool) -> Model:
    """What onnxruntime's dynamic quantisation makes of a MatMul."""
    shape = (5,) if per_column else ()
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"], name="quantise"),
        node("MatMulInteger", "xq w xz wz", "sums"),
        node("Cast", "sums", "floats", to=T.FLOAT),
        node("Mul", "xs ws", "scale"),
        helper.make_node("Mul", ["floats", "scale"], ["y"], name="rescale"),
    ]
    zero = np.zeros(shape, np.int8)
    return model(nodes, (T.FLOAT, [4, 4]), {"w": bytes_of(4, 5, kind=np.int8), "ws": scales(*shape), "wz": zero})


@pytest.mark.parametrize("per_column", [False, True])
def test_the_scale_behind_a_matmulinteger_is_found(per_column: bool) -> None:
    net = dynamic(per_column)
    found = weight(net)
    assert not found.note
    np.testing.assert_allclose(found.array().T, run(net, np.eye(4, dtype=np.float32)), rtol=1e-5, atol=1e-6)


def test_steps_without_a_constant_scale_say_so() -> None:
    net = model([node("MatMulInteger", "x w")], (T.UINT8, [1, 4]), {"w": bytes_of(4, 5, kind=np.int8)})
    found = weight(net)
    assert found.note == STEPS
    np.testing.assert_array_equal(found.array().T, found.load().T)


def test_rows_of_a_quantised_table_are_dequantised() -> None:
    nodes = [node("Gather", "w x", "rows"), node("DequantizeLinear", "rows s z")]
    net = model(
        nodes, (T.INT64, [5]), {"w": bytes_of(5, 3), "s": np.array(0.1, np.float32), "z": np.array(9, np.uint8)}
    )
    found = weight(net)
    assert (found.kind, found.quantised, found.shape) == ("embedding", True, (5, 3))
    np.testing.assert_allclose(found.array(), run(net, np.arange(5)), rtol=1e-6)


def test_an_integer_table_that_nobody_dequantises_is_no_weight() -> None:
    net = model([node("Gather", "w x")], (T.INT64, [5]), {"w": np.arange(20).reshape(10, 2)})
    assert layer_weights(net) == ()


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_of_matmulnbits_equal_the_runtimes(bits: int, zero_points: bool) -> None:
    inner, outer, block = 40, 3, 16  # the last block is not full
    blocks = -(-inner // block)
    constants: dict[str, Array | onnx.TensorProto] = {
        "w": bytes_of(outer, blocks, block * bits // 8),
        "s": scales(outer * blocks),
        "z": bytes_of(outer * -(-blocks * bits // 8)),
    }
    inputs = "x w s z" if zero_points else "x w s"
    options = {"K": inner, "N": outer, "bits": bits, "block_size": block}
    net = model([node("MatMulNBits", inputs, domain="com.microsoft", **options)], (T.FLOAT, [inner, inner]), constants)
    found = weight(net)
    assert found.shape == (outer, inner)
    expected = run(net, np.eye(inner, dtype=np.float32)).T
    np.testing.assert_allclose(found.array(), expected, rtol=1e-2, atol=5e-3)  # the runtime rounds its input to int8
