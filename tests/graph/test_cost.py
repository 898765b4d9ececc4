"""Costs: plain loops, hand counts, and the papers' numbers are the oracles."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from onnx_inspect.graph.cost import bits, cost
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import parse, read
from onnx_inspect.graph.weights import layer_weights, parameters

ROOT = Path(__file__).parents[2]
REAL = ROOT / "../shared/real/models"
Array = NDArray[Any]


def node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=f"{op}_{outputs.split()[0]}", **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[Any]],
    outputs: Sequence[str] = ("y",),
    constants: Mapping[str, Array] = {},
    opset: int = 23,
    kind: int = T.FLOAT,
) -> Model:
    given = [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()]
    tensors = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", given, [onnx.ValueInfoProto(name=name) for name in outputs], tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return parse(helper.make_model(graph, opset_imports=opsets, ir_version=11).SerializeToString())


# Single operators


@pytest.mark.parametrize(("groups", "stride", "dilation"), [(1, 1, 1), (2, 1, 1), (4, 2, 1), (1, 1, 2)])
def test_convolutions_count_one_product_per_weight_and_place(groups: int, stride: int, dilation: int) -> None:
    net = model(
        [node("Conv", "x w", group=groups, strides=[stride] * 2, dilations=[dilation] * 2)],
        {"x": [2, 4, 9, 7], "w": [8, 4 // groups, 3, 2]},
    )
    reach = [(9 - dilation * 2 - 1) // stride + 1, (7 - dilation - 1) // stride + 1]
    loop = sum(
        1 for _ in itertools.product(range(2), range(8), *map(range, reach), range(4 // groups), range(3), range(2))
    )
    assert cost(net).total == loop


def test_transposed_convolutions_count_each_input_with_its_weights() -> None:
    net = model([node("ConvTranspose", "x w", strides=[2, 2])], {"x": [1, 4, 5, 6], "w": [4, 3, 2, 2]})
    assert cost(net).total == 4 * 5 * 6 * 3 * 2 * 2


HEADS = {"q_num_heads": 4, "kv_num_heads": 2}  # grouped queries: two heads share keys and values
MS = "com.microsoft"


@pytest.mark.parametrize(
    ("made", "inputs", "expected"),
    [
        (node("MatMul", "x w"), ([5, 2, 3], [5, 3, 4]), 5 * 2 * 3 * 4),
        (node("MatMul", "x w"), ([2, 3], [3]), 6),
        (node("Gemm", "x w", transA=1), ([3, 2], [3, 4]), 24),
        (node("LSTM", "x w r", hidden_size=4), ([7, 2, 3], [1, 16, 3], [1, 16, 4]), 7 * 2 * 16 * 7),
        (node("GRU", "x w r", hidden_size=4), ([7, 1, 3], [1, 12, 3], [1, 12, 4]), 7 * 12 * 7),
        (
            node("GRU", "x w r", hidden_size=4, direction="bidirectional"),
            ([7, 1, 3], [2, 12, 3], [2, 12, 4]),
            14 * 12 * 7,
        ),
        (node("Attention", "x w r"), ([2, 3, 5, 4], [2, 3, 7, 4], [2, 3, 7, 6]), 2 * 3 * 5 * 7 * (4 + 6)),
        (
            node("Attention", "x w r", q_num_heads=3, kv_num_heads=3),
            ([2, 5, 12], [2, 7, 12], [2, 7, 12]),
            2 * 5 * 7 * 24,
        ),
        (node("Attention", "x w r", **HEADS), ([2, 5, 12], [2, 7, 6], [2, 7, 6]), 2 * 5 * 7 * 24),
        (node("Attention", "x w r", domain=MS, num_heads=2), ([2, 5, 8], [8, 24], [24]), 10 * 8 * 24 + 2 * 2 * 25 * 8),
        (node("MultiHeadAttention", "x w r", domain=MS, num_heads=2), ([2, 5, 8], [2, 7, 8], [2, 7, 8]), 2 * 35 * 16),
        (node("Einsum", "x w", equation="bij,bjk->bik"), ([2, 3, 4], [2, 4, 5]), 2 * 3 * 4 * 5),
        (node("Einsum", "x w", equation="...ij, kj"), ([2, 6, 3, 4], [5, 4]), 2 * 6 * 3 * 4 * 5),
        (node("Einsum", "x", equation="ij->ji"), ([3, 4],), 0),
        (node("Relu", "x"), ([2, 3],), 0),
    ],
)
def test_products_of_one_operator(made: onnx.NodeProto, inputs: Sequence[list[int]], expected: int) -> None:
    assert cost(model([made], dict(zip("xwr", inputs, strict=False)))).total == expected


def test_quantised_convolutions_count_as_the_real_ones() -> None:
    floats = dict.fromkeys(("xs", "ws", "ys"), np.array(0.1, np.float32)) | dict.fromkeys(("z",), np.array(0, np.uint8))
    weight = {"w": np.ones((4, 3, 3, 3), np.uint8)}
    net = model(
        [node("QLinearConv", "x xs z w ws z ys z")], {"x": [1, 3, 8, 8]}, constants={**floats, **weight}, kind=T.UINT8
    )
    assert cost(net).total == 4 * 6 * 6 * 27


def test_an_operator_whose_cost_is_not_known_leaves_the_total_unknown() -> None:
    net = model([node("Mystery", "x", "m", domain="com.microsoft"), node("MatMul", "x w")], {"x": [2, 3], "w": [3, 4]})
    found = cost(net)
    assert (found.total, found.known, found.unknown) == (None, 24, 1)


def test_free_axes_leave_the_cost_unknown_until_they_are_set() -> None:
    net = model([node("MatMul", "x w")], {"x": ["n", "t", 3], "w": [3, 4]})
    assert (cost(net).total, cost(net).unknown) == (None, 1)
    assert cost(net, {"x": (2, 5, 3)}).total == 2 * 5 * 12


def branch(inputs: str) -> onnx.GraphProto:
    return helper.make_graph([node("MatMul", inputs, "inner")], "branch", [], [onnx.ValueInfoProto(name="inner")])


@pytest.mark.parametrize(("other", "expected"), [("x w", 24), ("x v", None)])
def test_an_if_costs_what_both_branches_do(other: str, expected: int | None) -> None:
    tested = node("If", "c", then_branch=branch("x w"), else_branch=branch(other))
    nodes = [node("Cast", "flag", "c", to=T.BOOL), tested]
    assert cost(model(nodes, {"x": [2, 3], "w": [3, 4], "v": [3, 7], "flag": []})).total == expected


def test_a_loop_costs_its_body_times_its_turns() -> None:
    net = read(ROOT / "fixtures/if_loop.onnx")
    side = net.inputs[0].shape
    assert side is not None
    places = int(np.prod([d for d in side[2:] if isinstance(d, int)]))
    turns = int(numpy_helper.to_array(net.constants["turns"]))
    macs = cost(net).macs
    assert macs["stem_node"] == 4 * 27 * places
    assert macs["loop_node"] == turns * 4 * 36 * places
    assert macs["first_if_node"] == 4 * 36 * places


# Memory


def test_bits_of_dtypes() -> None:
    names = ("float32", "float16", "bfloat16", "float8_e4m3fn", "int4", "bool", "uint8", "complex64", "float4_e2m1fn")
    assert [bits(name) for name in names] == [32, 16, 16, 8, 4, 8, 8, 64, 4]


def test_a_chain_needs_two_tensors_at_once() -> None:
    nodes = [node("Relu", "x", "a"), node("Neg", "a", "b"), node("Abs", "b")]
    found = cost(model(nodes, {"x": [10]}))
    assert (found.total_bytes, found.peak_bytes) == (4 * 40, 80)


def test_a_skip_connection_is_alive_until_it_is_added() -> None:
    nodes = [node("Relu", "x", "a"), node("Neg", "a", "b"), node("Abs", "b", "c"), node("Add", "a c")]
    assert cost(model(nodes, {"x": [10]})).peak_bytes == 3 * 40  # a, b, c; then a, c, y


def test_outputs_stay_to_the_end() -> None:
    nodes = [node("Relu", "x", "a"), node("Neg", "a", "b"), node("Abs", "b", "c"), node("Sign", "c")]
    assert cost(model(nodes, {"x": [10]}, outputs=["y", "a"])).peak_bytes == 3 * 40


def test_weights_and_what_is_made_of_them_are_no_activations() -> None:
    nodes = [node("Transpose", "w", "t"), node("MatMul", "x t")]
    found = cost(model(nodes, {"x": [2, 3]}, constants={"w": np.ones((4, 3), np.float32)}))
    assert set(found.activations) == {"x", "y"}
    assert found.total_bytes == 4 * (6 + 8)


def test_unread_extra_outputs_take_no_room() -> None:
    net = model([node("Dropout", "x", "y mask")], {"x": [10]}, opset=9)
    assert set(cost(net).activations) == {"x", "y"}


# Whole networks


class Builder:
    """Convolutional networks as graphs whose weights have shapes but no numbers."""

    def __init__(self, side: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.side, self.last, self.channels = side, "x", 3

    def weights(self, *dims: int) -> str:
        name = f"w{len(self.tensors)}"
        blank = b"" if int(np.prod(dims)) > 4096 else bytes(4 * int(np.prod(dims)))
        self.tensors.append(onnx.TensorProto(name=name, data_type=T.FLOAT, dims=dims, raw_data=blank))
        return name

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        self.last = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [self.last], name=self.last, **attributes))
        return self.last

    def conv(self, out: int, kernel: int, stride: int = 1, groups: int = 1, source: str = "") -> str:
        source = source or self.last
        channels = self.width[source] if source in getattr(self, "width", {}) else self.channels
        weight = self.weights(out, channels // groups, kernel, kernel)
        made = self.add("Conv", source, weight, strides=[stride] * 2, pads=[kernel // 2] * 4, group=groups)
        norm = [self.weights(out) for _ in range(4)]
        made = self.add("BatchNormalization", made, *norm)
        self.width = {**getattr(self, "width", {}), made: out}
        self.channels = out
        return made

    def build(self, classes: int = 1000) -> Model:
        pooled = self.add("Flatten", self.add("GlobalAveragePool", self.last))
        self.add("Gemm", pooled, self.weights(classes, self.channels), self.weights(classes), transB=1)
        info = helper.make_tensor_value_info("x", T.FLOAT, ["n", 3, self.side, self.side])
        graph = helper.make_graph(self.nodes, "g", [info], [onnx.ValueInfoProto(name=self.last)], self.tensors)
        opsets = [helper.make_opsetid("", 17)]
        return parse(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def resnet(blocks: Sequence[int], bottleneck: bool) -> Model:
    net = Builder(224)
    net.conv(64, 7, 2)
    pooled = net.add("MaxPool", net.last, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    net.width[pooled] = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for block in range(count):
            stride = 2 if stage and not block else 1
            start, before = net.last, net.width[net.last]
            if bottleneck:
                net.conv(width, 1, source=start)
                net.conv(width, 3, stride)
                main = net.conv(4 * width, 1)
            else:
                net.conv(width, 3, stride, source=start)
                main = net.conv(width, 3)
            out = net.width[main]
            side = net.conv(out, 1, stride, source=start) if before != out or stride > 1 else start
            total = net.add("Add", main, side)
            net.width[total] = net.channels = out
    return net.build()


def mobilenet_v2() -> Model:
    net = Builder(224)
    net.conv(32, 3, 2)
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, out, count, first in stages:
        for block in range(count):
            hidden = net.channels * expand
            if expand > 1:
                net.conv(hidden, 1)
            net.conv(hidden, 3, first if not block else 1, groups=hidden)
            net.conv(out, 1)
    net.conv(1280, 1)
    return net.build()


@pytest.mark.parametrize(
    ("net", "macs", "learned"),
    [
        (resnet((2, 2, 2, 2), False), 1.814e9, 11_689_512),
        (resnet((3, 4, 6, 3), True), 4.089e9, 25_557_032),
        (mobilenet_v2(), 0.3008e9, 3_504_872),
    ],
    ids=["resnet18", "resnet50", "mobilenet_v2"],
)
def test_published_costs_and_parameters(net: Model, macs: float, learned: int) -> None:
    """Parameters are torchvision's to the last one; MACs are those that papers quote, to their digits."""
    assert cost(net).total == pytest.approx(macs, rel=1e-3)
    assert parameters(layer_weights(net)) == learned


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("mobilenet_v1_025_128_fp32", 13.57e6),  # TensorFlow's table says 14 M
        ("mobilenet_v1_025_128_uint8", 13.57e6),
        ("mobilenet_v2_224_uint8", 300.8e6),
        ("squeezenet1_fp32", 349.2e6),  # SqueezeNet 1.1
        ("resnet8_keras_int8", 12.5e6),  # MLPerf Tiny's
        ("visual_wake_words_int8", 7.49e6),  # MLPerf Tiny's
        ("resnet20_cifar10", 40.8e6),  # the paper's 0.041 G
    ],
)
def test_known_costs_of_real_models(name: str, macs: float) -> None:
    path = REAL / f"{name}.onnx"
    if not path.exists():
        pytest.skip("the real models are not here")
    assert cost(read(path)).total == pytest.approx(macs, rel=2e-3)


def test_every_real_model_has_a_cost_once_its_axes_are_set() -> None:
    if not REAL.is_dir():
        pytest.skip("the real models are not here")
    shapes = {
        "minilm_l6_cutvocab_int8": {"input_ids": (1, 8)},
        "minilm_l1_op23_fp16": {"input_ids": (1, 8)},
        "ppocr_v2_cls": {"x": (1, 3, 48, 192)},
        "ppocr_v3_det": {"x": (1, 3, 96, 96)},
        "silero_vad_16k_op15": {"input": (1, 512)},
    }
    for path in sorted(REAL.rglob("*.onnx")):
        found = cost(read(path), shapes.get(path.stem))
        assert found.total is not None, path.name
        assert found.total_bytes is not None and found.peak_bytes is not None, path.name
        assert 0 < found.peak_bytes <= found.total_bytes, path.name
