"""Layers are found the ways people name them; a miss suggests the nearest names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_inspect.errors import LayerError
from onnx_inspect.graph.model import Model, TensorSpec, constant_tensor
from onnx_inspect.graph.read import parse, read


@pytest.fixture(scope="module")
def net(fixtures: Path) -> Model:
    """The skip fixture with the notes that an exporter writes: module paths by tensor, and torch's scopes on a node."""
    proto = onnx.load(fixtures / "skip.onnx")
    modules = json.dumps({"layer1.0.conv2": "a2", "layer1": "a_out"})
    proto.metadata_props.add(key="onnx_inspect.modules", value=modules)
    for node in proto.graph.node:
        if node.name in ("b1_node", "b_relu_node"):
            scope = f"layer2.1.{node.name[:2]}"
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', 'layer2', '{scope}', 'op']")
    return parse(proto.SerializeToString(), source="net.onnx")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a1_node", "a1_node"),  # node
        ("a1", "a1_node"),  # tensor
        ("layer1.0.conv2", "a2_node"),  # module path of the exporter's notes
        ("layer1", "a_out_node"),  # a module is what it gives
        ("layer2.1.b1", "b1_node"),  # module path on the node
        ("layer2.1", "b_relu_node"),  # its last layer
        ("layer2", "b_relu_node"),
        ("b[12]", "b2_node"),  # a glob that matches one tensor alone
        ("*_relu_nod?", None),  # several
        ("long*", "long_add_node"),
        ("Conv:0", "stem_node"),
        ("conv:-1", "top_node"),
        ("Gemm:0", "fc_node"),
        ("0", "stem_node"),
        ("-1", "fc_node"),
    ],
)
def test_a_layer_is_found_by(net: Model, text: str, name: str | None) -> None:
    if name is None:
        with pytest.raises(LayerError, match=r"matches 4 layers of net.onnx \(stem_relu_node, a_relu_node.*: name one"):
            net.layer(text)
        assert {layer.name for layer in net.find(text)} == {f"{n}_relu_node" for n in ("stem", "a", "b", "top")}
    elif text == "b[12]":
        assert {layer.name for layer in net.find(text)} == {"b1_node", "b2_node"}
    else:
        assert net.layer(text).name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stem_rleu", r"layer 'stem_rleu' is not in net.onnx \(19 layers\); closest: 'stem_relu'"),
        ("layer1.0.conv3", "closest: 'layer"),
        ("Conv:9", "it has 6 Conv layers, 'Conv:0' to 'Conv:5'"),
        ("LSTM:0", "is not in net.onnx"),
        ("19", "is not in net.onnx"),
        ("-20", "is not in net.onnx"),
        ("z*", "is not in net.onnx"),
        ("", "is not in net.onnx"),
    ],
)
def test_a_miss_says_what_is_near(net: Model, text: str, message: str) -> None:
    with pytest.raises(LayerError, match=message) as caught:
        net.layer(text)
    assert "\n" not in str(caught.value)


def test_a_number_that_names_a_tensor_is_that_tensor(fixtures: Path) -> None:
    model = read(fixtures / "unnamed.onnx")
    assert model.layer("4").output.name == "4"  # not the layer of index 4, which makes '8'
    assert model.layer("1").index == 1  # '1' is a weight, no layer: an index then


def test_layers_are_in_topological_order_with_unique_names(fixtures: Path) -> None:
    for path in sorted(fixtures.glob("*.onnx")):
        model = read(path)
        names = [layer.name for layer in (*model.layers, *model.inner)]
        assert len(set(names)) == len(names)
        assert [layer.index for layer in model.layers] == list(range(len(model.layers)))
        position = {layer.output.name: layer.index for layer in model.layers}
        for layer in model.layers:
            for source in model.producers[layer.output.name].input:
                assert position.get(source, -1) < layer.index


def test_every_layer_is_found_by_its_own_names(fixtures: Path) -> None:
    for path in sorted(fixtures.glob("*.onnx")):
        model = read(path)
        for layer in (*model.layers, *model.inner):
            assert model.layer(layer.name) is layer
            assert model.layer(layer.output.name) is layer


def test_constant_nodes_are_weights_not_layers(make: Callable[..., Model]) -> None:
    value = numpy_helper.from_array(np.array([1, 2], np.float32), "v")
    nodes = [helper.make_node("Constant", [], ["c"], value=value), helper.make_node("Add", ["x", "c"], ["y"])]
    model = make(nodes, {"x": ("float32", ["N", 2])}, ["y"])
    assert [layer.op_type for layer in model.layers] == ["Add"]
    np.testing.assert_array_equal(numpy_helper.to_array(model.constants["c"]), [1, 2])


@pytest.mark.parametrize(
    ("attributes", "values"),
    [
        ({"value_float": 1.5}, np.float32(1.5)),
        ({"value_floats": [1.5, 2.5]}, np.array([1.5, 2.5], np.float32)),
        ({"value_int": 7}, np.int64(7)),
        ({"value_ints": [7, 8]}, np.array([7, 8])),
        ({"value_string": "a"}, None),
    ],
)
def test_constant_nodes_of_every_form_are_read(attributes: dict[str, object], values: object) -> None:
    tensor = constant_tensor(helper.make_node("Constant", [], ["c"], **attributes))
    if values is None:
        assert tensor is None
    else:
        assert tensor is not None
        found = numpy_helper.to_array(tensor)
        np.testing.assert_array_equal(found, values)
        assert found.dtype == np.asarray(values).dtype


def test_further_outputs_of_a_node_are_layers_of_their_own_name(fixtures: Path) -> None:
    model = read(fixtures / "lstm.onnx")
    assert model.layer("states").name == "lstm_node"
    last = model.layer("last")
    assert (last.name, last.op_type, last.output.name, last.index) == (
        "last",
        "LSTM",
        "last",
        model.layer("lstm_node").index,
    )


def test_a_node_without_its_first_output_is_named_by_the_second(make: Callable[..., Model]) -> None:
    nodes = [
        helper.make_node("Dropout", ["x"], ["d", "mask"]),
        helper.make_node("TopK", ["d", "k"], ["", "where"], name="top"),
    ]
    model = make(nodes, {"x": ("float32", ["N", 4])}, ["where"], {"k": [2]})
    assert model.layer("where").name == "top"
    assert model.layer("mask").op_type == "Dropout"


def test_consumers_look_into_bodies(fixtures: Path) -> None:
    model = read(fixtures / "if_loop.onnx")
    assert [n.name for n in model.consumers["relu"]] == ["shape_node", "first_if_node"]
    assert [n.name for n in model.consumers["first_if"]] == ["loop_node"]


def test_specs_say_what_is_unknown() -> None:
    assert TensorSpec("a", "float32", ("N", None, 3)).describe() == "float32 [N, ?, 3]"
    assert TensorSpec("a", "", None).describe() == "? [...]"
    assert TensorSpec("a", "bfloat16", ()).is_float
    assert not TensorSpec("a", "uint8", ()).is_float


# Layers inside control flow


def test_layers_inside_control_flow_are_found(fixtures: Path) -> None:
    model = read(fixtures / "if_loop.onnx")
    layer = model.layer("first_if_node/then_branch/first_if_then_conv_node")
    assert (layer.op_type, layer.around, layer.index) == ("Conv", ("If",), model.layer("first_if_node").index)
    assert layer.output.name == "first_if_node/then_branch/first_if_then_conv"
    assert layer.output.shape == ("N", 4, 8, 10)
    assert model.layer("first_if_then_conv_node") is layer  # the end of a name is enough
    assert model.layer("then_branch/first_if_then_conv") is layer
    looped = model.layer("loop_conv")
    assert looped.around == ("Loop",)
    assert looped.output.shape == (None, "N", 4, 8, 10)  # turns first
    assert {la.name for la in model.find("loop_node/body/*")} == {la.name for la in model.inner if "loop" in la.name}


def test_operators_are_counted_in_the_main_graph_first(fixtures: Path) -> None:
    model = read(fixtures / "if_loop.onnx")
    assert model.layer("Conv:-1").name == "stem_node"
    assert model.layer("Sigmoid:0").around == ("If",)  # there is none outside
    assert model.layer("-1").name == "fc_node"


def test_an_ambiguous_end_of_a_name_is_said(make: Callable[..., Model]) -> None:
    def body(op: str) -> onnx.GraphProto:
        made = helper.make_tensor_value_info(f"{op}_y", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["x"], [f"{op}_y"], name="act")], op, [], [made])

    flow = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=body("Relu"), else_branch=body("Neg"))
    model = make([flow], {"x": ("float32", ["N", 2]), "c": (np.bool_, [])}, ["y"])
    with pytest.raises(LayerError, match=r"'act' matches 2 layers .*choice/then_branch/act"):
        model.layer("act")


def test_layers_of_nested_bodies_and_their_further_outputs_are_found(real: Path) -> None:
    model = read(real / "models" / "silero_vad_16k_op15.onnx")
    layer = model.layer("LSTM:0")
    assert layer.name == "/model/decoder/If_1/then_branch/model/decoder/rnn/LSTM"
    assert model.layer("/model/decoder/rnn/LSTM") is layer
    last = model.layer("/model/decoder/If_1/then_branch/model/decoder/rnn/LSTM_output_2")
    assert last.output.name == last.name
    assert last.around == ("If",)
    assert max(len(la.around) for la in model.inner) == 3
