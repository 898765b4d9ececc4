"""Which numbers each layer uses, in which layout; onnxruntime, closed forms and plain loops are the oracles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from onnx_inspect.errors import LayerError, ModelError
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import parse, read
from onnx_inspect.graph.weights import LayerWeight, distinct, layer_weights, of_layers, parameters

ROOT = Path(__file__).parents[2]
REAL = ROOT / "../shared/real/models"
Array = NDArray[Any]
RNG = np.random.default_rng(7)


def proto(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Sequence[Any]]],
    constants: dict[str, Array | onnx.TensorProto],
    outputs: Sequence[str] = ("y",),
    opset: int = 21,
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(v, k) if isinstance(v, np.ndarray) else v for k, v in constants.items()]
    made = [onnx.ValueInfoProto(name=name) for name in outputs]
    given = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    graph = helper.make_graph(nodes, "g", given, made, tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def model(*args: Any, **kwargs: Any) -> Model:
    return parse(proto(*args, **kwargs).SerializeToString())


def run(model: Model, **feeds: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: Array = session.run(None, feeds)[0]
    return result


def weight(model: Model, role: str = "weight") -> LayerWeight:
    return next(w for w in layer_weights(model) if w.role == role)


def normal(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


def node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=f"{op}_node", **attributes)


# Layouts


@pytest.mark.parametrize("trans", [0, 1])
def test_gemm_weights_are_output_by_input(trans: int) -> None:
    stored = normal(*((5, 3) if trans else (3, 5)))
    net = model([node("Gemm", "x w b", transB=trans)], {"x": (T.FLOAT, [2, 3])}, {"w": stored, "b": normal(5)})
    x = normal(2, 3)
    assert weight(net).shape == (5, 3)
    np.testing.assert_allclose(x @ weight(net).array().T + weight(net, "bias").array(), run(net, x=x), rtol=1e-5)


def test_matmul_by_a_constant_on_the_left_is_output_by_input() -> None:
    net = model([node("MatMul", "w x")], {"x": (T.FLOAT, [3, 2])}, {"w": normal(5, 3)})
    x = normal(3, 2)
    np.testing.assert_allclose(weight(net).array() @ x, run(net, x=x), rtol=1e-5)
    assert weight(net).shape == (5, 3)


def test_batched_matmul_turns_its_last_two_axes_only() -> None:
    net = model([node("MatMul", "x w")], {"x": (T.FLOAT, [4, 2, 3])}, {"w": normal(4, 3, 5)})
    x = normal(4, 2, 3)
    assert weight(net).shape == (4, 5, 3)
    np.testing.assert_allclose(np.einsum("bni,boi->bno", x, weight(net).array()), run(net, x=x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolution_is_laid_out_as_a_convolution(groups: int) -> None:
    net = model([node("ConvTranspose", "x w", group=groups)], {"x": (T.FLOAT, [1, 4, 3, 3])}, {"w": normal(4, 3, 2, 2)})
    x = normal(1, 4, 3, 3)
    got, expected = weight(net).array(), run(net, x=x)
    assert got.shape == (3 * groups, 4 // groups, 2, 2)
    slow = np.zeros_like(expected)
    for out in range(3 * groups):
        for i in range(4 // groups):
            source = x[0, (out // 3) * (4 // groups) + i]
            for row in range(3):
                for column in range(3):
                    slow[0, out, row : row + 2, column : column + 2] += source[row, column] * got[out, i]
    np.testing.assert_allclose(slow, expected, rtol=1e-4, atol=1e-5)


def test_lstm_gates_are_named_in_onnx_order() -> None:
    hidden, size = 4, 3
    constants = {"w": normal(1, 4 * hidden, size), "r": normal(1, 4 * hidden, hidden), "b": normal(1, 8 * hidden)}
    net = model([node("LSTM", "x w r b", "- h", hidden_size=hidden)], {"x": (T.FLOAT, [2, 1, size])}, constants, ["h"])
    w, r, b = weight(net), weight(net, "recurrent"), weight(net, "bias")
    assert (w.shape, r.shape, b.shape) == ((4, hidden, size), (4, hidden, hidden), (8, hidden))
    x = normal(2, 1, size)
    gates = {name.removesuffix(" gate"): i for i, name in enumerate(w.parts)}
    state, cell = np.zeros(hidden), np.zeros(hidden)
    for step in x[:, 0]:
        sums = [w.array()[g] @ step + r.array()[g] @ state + b.array()[g] + b.array()[4 + g] for g in range(4)]
        opened = {name: 1 / (1 + np.exp(-sums[i])) for name, i in gates.items()}
        cell = opened["forget"] * cell + opened["input"] * np.tanh(sums[gates["cell"]])
        state = opened["output"] * np.tanh(cell)
    np.testing.assert_allclose(state, run(net, x=x)[0, 0], rtol=1e-5)
    assert b.parts[0] == "input gate, from the input"


def test_both_directions_of_a_gru_become_parts() -> None:
    constants = {"w": normal(2, 6, 3), "r": normal(2, 6, 2)}
    cell = node("GRU", "x w r", "y", hidden_size=2, direction="bidirectional")
    found = weight(model([cell], {"x": (T.FLOAT, [5, 1, 3])}, constants))
    assert found.parts[:4] == (
        "forward update gate",
        "forward reset gate",
        "forward hidden gate",
        "reverse update gate",
    )
    np.testing.assert_array_equal(found.array()[4], constants["w"][1, 2:4])


# What a weight passes through


def test_weights_are_found_behind_nodes_that_move_or_convert_them() -> None:
    """The order of gates of a PyTorch LSTM is changed by Slice and Concat; Keras transposes; half weights are cast."""
    nodes = [
        node("Cast", "half", "single", to=T.FLOAT),
        node("Transpose", "single", "turned", perm=[1, 0]),
        node("Slice", "turned from to axis", "part"),
        node("Concat", "part part", "twice", axis=1),
        node("Unsqueeze", "twice axis", "raised"),
        node("Squeeze", "raised axis", "lowered"),
        node("Reshape", "lowered shape", "w"),
        node("MatMul", "x w"),
    ]
    constants = {
        "half": normal(4, 6).astype(np.float16),
        "from": np.array([1]),
        "to": np.array([4]),
        "axis": np.array([0]),
        "shape": np.array([4, 6]),
    }
    net = model(nodes, {"x": (T.FLOAT, [1, 4])}, constants)
    found = weight(net)
    assert [w.layer.op_type for w in layer_weights(net)] == ["MatMul"]
    assert (found.shape, found.dtype, dict(found.stored)) == ((6, 4), "float16", {"half": 24})
    x = np.eye(4, dtype=np.float32)[2:3]
    np.testing.assert_array_equal(found.array()[:, 2], run(net, x=x)[0])


def test_constant_nodes_are_weights_too() -> None:
    stored = normal(4, 3, 2, 2)
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(stored))
    net = model([constant, node("Conv", "x w")], {"x": (T.FLOAT, [1, 3, 5, 5])}, {})
    np.testing.assert_array_equal(weight(net).array(), stored)


def test_a_sum_of_input_and_constant_is_no_constant() -> None:
    net = model(
        [node("Add", "x b", "s"), node("MatMul", "s w")], {"x": (T.FLOAT, [1, 3])}, {"b": normal(3), "w": normal(3, 2)}
    )
    assert [(w.layer.op_type, w.role) for w in layer_weights(net)] == [("Add", "bias"), ("MatMul", "weight")]


def test_sparse_initialisers_are_made_dense() -> None:
    values = helper.make_tensor("w", T.FLOAT, [2], [1.5, -2.0])
    whole = proto([node("MatMul", "x w")], {"x": (T.FLOAT, [1, 3])}, {})
    sparse = helper.make_sparse_tensor(values, helper.make_tensor("i", T.INT64, [2], [1, 5]), [3, 2])
    whole.graph.sparse_initializer.append(sparse)
    found = weight(parse(whole.SerializeToString()))
    np.testing.assert_array_equal(found.array(), [[0, 0, 0], [1.5, 0, -2.0]])


def test_weights_inside_a_body_belong_to_the_layer_there() -> None:
    inner = helper.make_graph(
        [node("MatMul", "x w", "inner")],
        "then",
        [],
        [onnx.ValueInfoProto(name="inner")],
        [numpy_helper.from_array(normal(3, 2), "w")],
    )
    other = helper.make_graph([node("MatMul", "x outer", "inner")], "else", [], [onnx.ValueInfoProto(name="inner")])
    net = model(
        [node("If", "c", then_branch=inner, else_branch=other)],
        {"x": (T.FLOAT, [1, 3]), "c": (T.BOOL, [])},
        {"outer": normal(3, 2)},
    )
    found = layer_weights(net)
    assert {w.layer.name for w in found} == {"If_node/then_branch/MatMul_node", "If_node/else_branch/MatMul_node"}
    assert parameters(found) == 12
    assert of_layers(found, [net.layer("If_node")], "net") == found


def test_a_layer_without_weights_is_an_error_that_names_others() -> None:
    net = model([node("MatMul", "x w", "s"), node("Relu", "s")], {"x": (T.FLOAT, [1, 3])}, {"w": normal(3, 2)})
    with pytest.raises(LayerError, match=r"no weights in 'Relu_node' \(Relu\) of net.onnx.*'MatMul_node'"):
        of_layers(layer_weights(net), [net.layer("Relu_node")], "net.onnx")


# Dtypes and storage


@pytest.mark.parametrize("kind", [T.FLOAT16, T.BFLOAT16, T.DOUBLE, T.FLOAT8E4M3FN, T.FLOAT8E5M2])
def test_any_float_becomes_float32_exactly(kind: int) -> None:
    values = [0.0, 1.0, -2.5, 0.125, 448.0, -0.015625]
    stored = helper.make_tensor("w", kind, [3, 2], values)
    cast = node("Cast", "w", "single", to=T.FLOAT)
    net = model([cast, node("MatMul", "x single")], {"x": (T.FLOAT, [1, 3])}, {"w": stored})
    got = weight(net).array()
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.array(values, np.float32).reshape(3, 2).T)


def test_arrays_are_read_only() -> None:
    net = model([node("MatMul", "x w")], {"x": (T.FLOAT, [1, 3])}, {"w": normal(3, 2)})
    with pytest.raises(ValueError, match="read-only"):
        weight(net).array()[0] = 1


def external(folder: Path, offset: int, length: int | None = None) -> tuple[Path, NDArray[np.float32]]:
    stored = normal(3, 2)
    (folder / "w.data").write_bytes(b"\xff" * offset + stored.tobytes() + b"\xff" * 8)
    tensor = onnx.TensorProto(name="w", data_type=T.FLOAT, dims=[3, 2], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", "w.data"), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    path = folder / "net.onnx"
    path.write_bytes(proto([node("MatMul", "x w")], {"x": (T.FLOAT, [1, 3])}, {"w": tensor}).SerializeToString())
    return path, stored


@pytest.mark.parametrize("length", [None, 24])
def test_external_data_are_read_at_their_offset(tmp_path: Path, length: int | None) -> None:
    path, stored = external(tmp_path, 16, length)
    np.testing.assert_array_equal(weight(read(path)).array(), stored.T)


def test_external_data_that_were_cut_after_reading_are_an_error(tmp_path: Path) -> None:
    path, _ = external(tmp_path, 16, 24)
    net = read(path)
    (tmp_path / "w.data").write_bytes(b"\xff" * 20)
    with pytest.raises(ModelError, match="too short for weight 'w'"):
        weight(net).array()


def test_an_initialiser_whose_bytes_are_too_few_is_an_error() -> None:
    broken = onnx.TensorProto(name="w", data_type=T.FLOAT, dims=[300, 200], raw_data=b"\0" * 12)
    net = model([node("MatMul", "x w")], {"x": (T.FLOAT, [1, 300])}, {"w": broken})
    with pytest.raises(ModelError, match="'w' is broken"):
        weight(net).array()


def test_complex_weights_are_refused() -> None:
    net = model([node("MatMul", "x w")], {"x": (T.COMPLEX64, [1, 3])}, {"w": normal(3, 2)})
    odd = layer_weights(net)[0]
    object.__setattr__(odd, "load", lambda: np.ones((2, 3), np.complex64))
    with pytest.raises(ModelError, match="complex64, not real numbers"):
        odd.array()


# Counting


def test_parameters_count_what_was_learned_once() -> None:
    nodes = [
        node("MatMul", "x w", "a"),
        node("MatMul", "a w", "b"),
        node("Mul", "b half", "c"),
        node("Reshape", "c shape", "d"),
        node("BatchNormalization", "d s o m v", "e"),
        node("Add", "e bias"),
    ]
    constants: dict[str, Array | onnx.TensorProto] = {
        "w": normal(4, 4),
        "half": np.array(0.5, np.float32),
        "shape": np.array([1, 4]),
        "bias": normal(4),
        **{name: np.abs(normal(4)) for name in "somv"},
    }
    net = model(nodes, {"x": (T.FLOAT, [1, 4])}, constants)
    assert parameters(layer_weights(net)) == 16 + 4 + 4 + 4  # w once; scale, offset and bias; no mean, variance, 0.5
    assert len(layer_weights(net)) == 7
    assert len(distinct(layer_weights(net))) == 6


def test_settings_are_no_weights() -> None:
    nodes = [
        node("Resize", "x - scales", "r", mode="nearest"),
        node("Clip", "r low high", "c"),
        node("Gather", "c ids", axis=1),
    ]
    constants: dict[str, Array | onnx.TensorProto] = {
        "scales": np.array([1, 1, 2, 2], np.float32),
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
        "ids": np.array([0, 1]),
    }
    assert layer_weights(model(nodes, {"x": (T.FLOAT, [1, 3, 4, 4])}, constants)) == ()


def test_linear_models_of_scikit_learn_keep_their_weights_in_attributes() -> None:
    attributes = {"coefficients": [1.0, 2, 3, 4, 5, 6], "intercepts": [0.5, -0.5], "classlabels_ints": [0, 1]}
    whole = proto([], {"x": (T.FLOAT, [1, 3])}, {}, ["label", "p"])
    whole.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    whole.graph.node.append(
        helper.make_node("LinearClassifier", ["x"], ["label", "p"], name="lin", domain="ai.onnx.ml", **attributes)
    )
    found = layer_weights(parse(whole.SerializeToString()))
    np.testing.assert_array_equal(found[0].array(), [[1, 2, 3], [4, 5, 6]])
    assert parameters(found) == 8


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("squeezenet1_fp32", 1_235_496),
        ("squeezenet1_fp16", 1_235_496),
        ("resnet20_cifar10", 272_474),
        ("silero_vad_16k_op15", 309_633),
    ],
)  # SqueezeNet 1.1's and ResNet-20's papers' counts; Silero's lies inside an If
def test_known_parameter_counts_of_real_models(name: str, count: int) -> None:
    path = REAL / f"{name}.onnx"
    if not path.exists():
        pytest.skip("the real models are not here")
    assert parameters(layer_weights(read(path))) == count


def test_every_weight_of_the_real_models_has_the_shape_it_says() -> None:
    if not REAL.is_dir():
        pytest.skip("the real models are not here")
    for path in sorted(REAL.rglob("*.onnx")):
        for found in layer_weights(read(path)):
            values = found.array()
            assert values.shape == found.shape, (path.name, found.name)
            assert np.isfinite(values).all(), (path.name, found.name)
            assert not found.note, (path.name, found.name)
