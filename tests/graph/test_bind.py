"""Shapes that follow from the inputs' shapes are those that the runtime makes; what doesn't follow is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from onnx_inspect.errors import InputError
from onnx_inspect.graph.bind import bind, every, visits
from onnx_inspect.graph.input_shapes import input_specs, usual_shapes
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import parse, read

ROOT = Path(__file__).parents[2]
REAL = ROOT / "../shared/real/models"
FIXTURES = ROOT / "fixtures"
Array = NDArray[Any]
Shape = tuple[int, ...]


def node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=f"{op}_{outputs}", **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[Any] | None]],
    constants: Mapping[str, Array] = {},
    opset: int = 9,
) -> Model:
    given = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    tensors = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", given, [onnx.ValueInfoProto(name="y")], tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return parse(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def ran(model: Model, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Shapes that a run of the runtime makes of every tensor of the main graph."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model.proto)
    declared = {output.name for output in copy.graph.output}
    names = [layer.output.name for layer in model.layers if layer.output.dtype not in ("sequence", "string")]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in declared)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {s.name: np.ones(shapes[s.name], np.dtype(s.dtype)) for s in model.inputs}
    return {name: np.shape(value) for name, value in zip(names, session.run(names, feeds), strict=True)}


# Choosing the inputs' shapes


def test_a_symbol_set_for_one_input_holds_for_all() -> None:
    net = model([node("Add", "a b")], {"a": (T.FLOAT, ["n", "t"]), "b": (T.FLOAT, ["n", "t"])})
    assert bind(net, {"a": (2, 7)}) == {"a": (2, 7), "b": (2, 7), "y": (2, 7)}


def test_the_batch_is_one_and_other_free_axes_stay_unknown() -> None:
    net = model([node("Relu", "x")], {"x": (T.FLOAT, ["n", 3, "h", None])})
    assert input_specs(net)["x"].shape == (1, 3, "h", None)
    assert bind(net) == {}


def test_anonymous_symbols_are_not_taken_for_equal() -> None:
    net = model([node("Relu", "x")], {"x": (T.FLOAT, ["None", "None"])})
    assert input_specs(net)["x"].shape == (1, "None")
    assert bind(net, {"x": (2, 5)})["y"] == (2, 5)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"z": (1, 3)}, "has no input 'z'; its inputs: x"),
        ({"x": (1, 4)}, r"input 'x' of .* is float32 \[n, 3\], not \[1, 4\]"),
        ({"x": (3,)}, r"not \[3\]: give a shape that fits"),
    ],
)
def test_a_shape_that_does_not_fit_is_an_error(shapes: dict[str, Shape], message: str) -> None:
    net = model([node("Relu", "x")], {"x": (T.FLOAT, ["n", 3])})
    with pytest.raises(InputError, match=message):
        bind(net, shapes)


def test_usual_shapes_leave_nothing_open() -> None:
    inputs = {"p": (T.FLOAT, ["n", 3, None, "w"]), "i": (T.INT64, ["n", "t"]), "s": (T.INT64, [])}
    net = model([node("Identity", "p")], inputs)
    assert usual_shapes(net) == {"p": (1, 3, 224, 224), "i": (1, 16), "s": ()}


# Following the nodes


def test_shapes_that_nodes_compute_are_followed() -> None:
    """Opset 9 has no rule that carries the values of Shape, Gather and Concat to a Reshape."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Unsqueeze", "n", "n1", axes=[0]),
        node("Concat", "n1 rest", "target", axis=0),
        node("Reshape", "x target", "y"),
    ]
    constants = {"zero": np.array(0), "rest": np.array([-1])}
    net = model(nodes, {"x": (T.FLOAT, ["n", 3, 4])}, constants)
    assert bind(net, {"x": (5, 3, 4)})["y"] == (5, 12)


def test_values_that_depend_on_the_input_leave_the_shape_unknown() -> None:
    net = model([node("NonZero", "x")], {"x": (T.FLOAT, [2, 3])})
    assert "y" not in bind(net)


def test_a_huge_constant_of_shape_is_not_made() -> None:
    nodes = [node("ConstantOfShape", "size", "big"), node("Shape", "big", "s"), node("Add", "s x")]
    net = model(nodes, {"x": (T.INT64, [1])}, {"size": np.array([2**42])})
    assert bind(net)["big"] == (2**42,)


@pytest.mark.parametrize(("rank", "expected"), [(2, (3, 2)), (3, (2, 3, 5))])
def test_the_branch_of_an_if_is_taken_where_shapes_decide_it(rank: int, expected: Shape) -> None:
    info = onnx.ValueInfoProto
    then = helper.make_graph([node("Transpose", "x", "inner")], "then", [], [info(name="inner")])
    other = helper.make_graph([node("Identity", "x", "inner")], "else", [], [info(name="inner")])
    nodes = [
        node("Shape", "x", "s"),
        node("Size", "s", "rank"),
        node("Equal", "rank two", "flat"),
        node("If", "flat", then_branch=then, else_branch=other),
    ]
    net = model(nodes, {"x": (T.FLOAT, [2, 3, 5][:rank])}, {"two": np.array(2)}, opset=13)
    assert bind(net)["y"] == expected
    assert [len(visit.bodies) for visit in visits(net)] == [0, 0, 0, 1]


def test_an_if_whose_branches_differ_keeps_what_they_agree_on() -> None:
    info = onnx.ValueInfoProto
    then = helper.make_graph([node("Concat", "x x", "inner", axis=1)], "then", [], [info(name="inner")])
    other = helper.make_graph([node("Identity", "x", "inner")], "else", [], [info(name="inner")])
    net = model(
        [node("If", "c", then_branch=then, else_branch=other)],
        {"x": (T.FLOAT, [2, 3]), "c": (T.BOOL, [])},
        opset=13,
    )
    visit = visits(net)[0]
    assert visit.outputs[0].shape == (2, None)
    assert visit.outputs[0].dtype == "float32"


def body(nodes: Sequence[onnx.NodeProto], inputs: Sequence[str], outputs: Sequence[str]) -> onnx.GraphProto:
    types = {"i": (T.INT64, []), "go": (T.BOOL, []), "state": (T.FLOAT, None)}
    given = [helper.make_tensor_value_info(name, *types[name]) for name in inputs]
    return helper.make_graph(nodes, "body", given, [onnx.ValueInfoProto(name=name) for name in outputs])


def test_a_loop_of_known_length_stacks_its_turns() -> None:
    turn = body(
        [node("Relu", "state", "next"), node("Identity", "go", "on")], ["i", "go", "state"], ["on", "next", "next"]
    )
    turn.node.append(node("Neg", "next", "kept"))
    turn.output[2].name = "kept"
    net = model([node("Loop", "n - x", "last y", body=turn)], {"x": (T.FLOAT, [2, 3])}, {"n": np.array(4)}, opset=13)
    assert bind(net)["last"] == (2, 3)
    assert bind(net)["y"] == (4, 2, 3)
    assert [v.times for v in visits(net)] == [4]


def test_a_loop_whose_state_grows_has_no_fixed_shape() -> None:
    turn = body(
        [node("Concat", "state state", "next", axis=0), node("Identity", "go", "on")],
        ["i", "go", "state"],
        ["on", "next"],
    )
    net = model([node("Loop", "n - x", body=turn)], {"x": (T.FLOAT, [2, 3])}, {"n": np.array(2)}, opset=13)
    assert "y" not in bind(net)
    assert visits(net)[0].outputs[0].shape == (None, 3)


def test_a_loop_that_may_stop_early_has_no_known_length() -> None:
    nodes = [
        node("Relu", "state", "next"),
        node("ReduceSum", "next", "sum", keepdims=0),
        node("Cast", "sum", "on", to=T.BOOL),
    ]
    net = model(
        [node("Loop", "n - x", body=body(nodes, ["i", "go", "state"], ["on", "next"]))],
        {"x": (T.FLOAT, [2])},
        {"n": np.array(4)},
        opset=13,
    )
    assert visits(net)[0].times is None


def test_operators_without_a_rule_in_onnx_have_their_shapes() -> None:
    """Checked against the runtime, which serves them."""
    nodes = [
        node("ImageScaler", "x", "scaled", bias=[0.0, 0.0, 0.0], scale=2.0),
        node("Crop", "scaled", "cropped", border=[1, 2, 3, 4]),
        node("Crop", "scaled", "window", border=[1, 2, 0, 0], scale=[5, 4]),
        node("FusedConv", "cropped w", "conv", activation="Relu", domain="com.microsoft"),
        node("Gelu", "conv", "gelu", domain="com.microsoft"),
        node("Flatten", "gelu", "flat"),
        node("DynamicQuantizeMatMul", "flat q s", "product", domain="com.microsoft"),
        node("MatMulNBits", "product blocks bs", "y", domain="com.microsoft", K=16, N=3, bits=4, block_size=16),
    ]
    constants = {
        "w": np.ones((4, 3, 3, 3), np.float32),
        "q": np.ones((4 * 4 * 4, 16), np.uint8),
        "blocks": np.ones((3, 1, 8), np.uint8),
        "bs": np.ones(3, np.float32),
        "s": np.array(0.1, np.float32),
    }
    net = model(nodes, {"x": (T.FLOAT, ["n", 3, 12, 10])}, constants)
    got, expected = bind(net, {"x": (1, 3, 12, 10)}), ran(net, {"x": (1, 3, 12, 10)})
    assert {name: got[name] for name in expected} == expected
    assert {v.outputs[0].dtype for v in every(visits(net))} == {"float32"}


def test_quantised_and_fused_operators_have_their_shapes() -> None:
    steps = {"s": np.array(0.1, np.float32), "z": np.array(3, np.uint8)}
    nodes = [
        node("QLinearAdd", "x s z c s z s z", "sum", domain="com.microsoft"),
        node("QLinearAveragePool", "sum s z s z", "pooled", kernel_shape=[2, 2], domain="com.microsoft"),
        node("QLinearGlobalAveragePool", "pooled s z s z", "mean", domain="com.microsoft", channels_last=0),
        node("Flatten", "mean", "flat"),
        node("QGemm", "flat s z w s z - s z", "gemm", domain="com.microsoft", transB=1),
        node("DequantizeLinear", "gemm s z", "real", domain="com.microsoft"),
        node("Unsqueeze", "real", "tokens", axes=[1]),
        node("Attention", "tokens qkv qkvb", "y", domain="com.microsoft", num_heads=2),
    ]
    constants = {
        **steps,
        "c": np.ones((1, 3, 1, 1), np.uint8),
        "w": np.ones((4, 3), np.uint8),
        "qkv": np.ones((4, 12), np.float32),
        "qkvb": np.ones(12, np.float32),
    }
    net = model(nodes, {"x": (T.UINT8, [2, 3, 6, 5])}, constants)
    got, expected = bind(net), ran(net, {"x": (2, 3, 6, 5)})
    assert {name: got[name] for name in expected} == expected
    assert [v.outputs[0].dtype for v in visits(net)] == ["uint8"] * 5 + ["float32"] * 3


def test_columns_of_an_array_feature_extractor() -> None:
    for shape in ((2, 6), (6,)):
        whole = model([node("Relu", "x")], {"x": (T.FLOAT, shape)}, {"ids": np.array([[1, 3, 5]])}).proto
        whole.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
        whole.graph.node[0].CopyFrom(
            helper.make_node("ArrayFeatureExtractor", ["x", "ids"], ["y"], domain="ai.onnx.ml")
        )
        net = parse(whole.SerializeToString())
        assert bind(net)["y"] == ran(net, {"x": shape})["y"]


@pytest.mark.parametrize(
    ("path", "shapes"),
    [
        *(
            (FIXTURES / f"{name}.onnx", {})
            for name in ("digits_vit", "int8_qdq", "lstm", "conv3d", "function", "if_loop")
        ),
        (REAL / "vit_cifar10_pgd_2_3_16.onnx", {}),
        (REAL / "minilm_l6_cutvocab_int8.onnx", {"input_ids": (1, 9)}),
        (REAL / "minilm_l1_op23_fp16.onnx", {"input_ids": (2, 9)}),
        (REAL / "silero_vad_16k_op15.onnx", {"input": (1, 512)}),
        (REAL / "ppocr_v2_cls.onnx", {"x": (2, 3, 48, 192)}),
        (REAL / "resnet8_keras_int8.onnx", {}),
        (REAL / "deeplab_mnv2_dm05_uint8.onnx", {}),
        (REAL / "ultraface_slim_320.onnx", {}),
        (REAL / "digits_mlp_sklearn.onnx", {"X": (3, 64)}),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
def test_shapes_equal_those_of_a_run(path: Path, shapes: dict[str, Shape]) -> None:
    if not path.exists():
        pytest.skip("the real models are not here")
    net = read(path)
    got = bind(net, shapes)
    expected = ran(net, {s.name: got[s.name] for s in net.inputs})
    known = {name: shape for name, shape in got.items() if name in expected}
    assert known == {name: expected[name] for name in known}
    assert set(expected) == set(known)
