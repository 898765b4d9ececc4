"""Inlining local functions changes no output, and leaves the call path on every node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_inspect.engine import Engine
from onnx_inspect.errors import ModelError
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import parse, read

X = np.random.default_rng(0).normal(size=(1, 4)).astype(np.float32)
OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), **attributes)


def reference(name: str, source: str, kind: int = onnx.AttributeProto.FLOAT) -> onnx.AttributeProto:
    return onnx.AttributeProto(name=name, ref_attr_name=source, type=kind)


def function(
    name: str, inputs: str, outputs: str, nodes: Sequence[onnx.NodeProto], *, domain: str = "own", **more: Any
) -> onnx.FunctionProto:
    opsets = more.pop("opsets", OPSETS)
    return helper.make_function(domain, name, inputs.split(), outputs.split(), nodes, opsets, **more)


def proto(
    nodes: Sequence[onnx.NodeProto],
    functions: Sequence[onnx.FunctionProto],
    opsets: Sequence[onnx.OperatorSetIdProto] = OPSETS,
) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y])
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10)


def both(whole: onnx.ModelProto, plainly: Any) -> Model:
    """Check that the inlined model gives what onnxruntime gives for the original, and return it."""
    model = parse(whole.SerializeToString())
    assert not model.proto.functions
    expected = plainly(whole, {"x": X})["y"]
    np.testing.assert_array_equal(Engine(model, exact=True).run({"x": X})["y"], expected)
    return model


def test_the_fixture_gives_what_the_runtime_gives_for_its_functions(fixtures: Path, plainly: Any) -> None:
    model = read(fixtures / "function.onnx")
    x = np.random.default_rng(1).normal(size=(2, 3, 12, 16)).astype(np.float32)
    expected = plainly(fixtures / "function.onnx", {"input": x})["logits"]
    np.testing.assert_array_equal(Engine(model, exact=True).run({"input": x})["logits"], expected)


def test_the_call_path_is_kept_in_names_and_scopes(fixtures: Path) -> None:
    model = read(fixtures / "function.onnx")
    layer = model.layer("block2_node/first/conv")
    assert (layer.op_type, layer.scope) == ("Conv", "block2_node.first")
    assert model.layer("block2_node.first").name == "block2_node/first/leaky"
    assert model.layer("block1_node").name == "block1_node/add"


def test_attributes_given_by_reference_reach_the_innermost_node(fixtures: Path) -> None:
    model = read(fixtures / "function.onnx")
    slopes = {n.name: n.attribute[0].f for n in model.proto.graph.node if n.op_type == "LeakyRelu"}
    assert slopes["block1_node/second/leaky"] == pytest.approx(0.1)
    assert slopes["block2_node/second/leaky"] == pytest.approx(0.3)


def test_an_attribute_left_out_takes_the_function_s_default(plainly: Any) -> None:
    leaky = node("LeakyRelu", "a", "b")
    leaky.attribute.append(reference("alpha", "slope"))
    own = function("Leaky", "a", "b", [leaky], attribute_protos=[helper.make_attribute("slope", 0.25)])
    model = both(
        proto([node("Leaky", "x", "h", domain="own"), node("Leaky", "h", "y", domain="own", slope=0.5)], [own]), plainly
    )
    assert [n.attribute[0].f for n in model.proto.graph.node] == [0.25, 0.5]


def test_an_attribute_without_a_value_is_left_out(plainly: Any) -> None:
    leaky = node("LeakyRelu", "a", "b")
    leaky.attribute.append(reference("alpha", "slope"))
    model = both(
        proto([node("Leaky", "x", "y", domain="own")], [function("Leaky", "a", "b", [leaky], attributes=["slope"])]),
        plainly,
    )
    assert not model.proto.graph.node[0].attribute  # LeakyRelu's own default then


def test_attributes_reach_into_a_branch(plainly: Any) -> None:
    leaky = node("LeakyRelu", "a", "inner")
    leaky.attribute.append(reference("alpha", "slope"))
    bodies = [
        helper.make_graph([first], name, [], [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)])
        for name, first in (("then", leaky), ("else", node("Neg", "a", "inner")))
    ]
    nodes = [
        node("ReduceSum", "a", "sum", keepdims=0),
        node("Constant", "", "zero", value_float=0.0),
        node("Greater", "sum zero", "positive"),
        node("If", "positive", "b", then_branch=bodies[0], else_branch=bodies[1]),
    ]
    nodes[1].input[:] = []
    whole = proto(
        [node("Choose", "x", "y", domain="own", slope=0.3, name="call")],
        [function("Choose", "a", "b", nodes, attributes=["slope"])],
    )
    model = both(whole, plainly)
    assert "call/If_3/then_branch/LeakyRelu_0" in {layer.name for layer in model.inner}


def test_a_call_inside_a_branch_is_inlined(plainly: Any) -> None:
    own = function("Twice", "a", "b", [node("Add", "a a", "b")])
    bodies = [
        helper.make_graph(
            [node(op, "x", f"{op}_y", domain=domain)],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}_y", TensorProto.FLOAT, None)],
        )
        for op, domain in (("Twice", "own"), ("Neg", ""))
    ]
    nodes = [
        node("Twice", "x", "t", domain="own"),
        node("ReduceSum", "t", "sum", keepdims=0),
        node("Cast", "sum", "any", to=TensorProto.BOOL),
        node("If", "any", "y", then_branch=bodies[0], else_branch=bodies[1]),
    ]
    both(proto(nodes, [own]), plainly)


@pytest.mark.parametrize("name", ["", "same", "Twice_1"])
def test_calls_of_one_name_keep_their_tensors_apart(name: str) -> None:
    own = function("Twice", "a", "b", [node("Neg", "a", "inner"), node("Sub", "a inner", "b")])
    calls = [node("Twice", "x", "h", domain="own", name=name), node("Twice", "h", "y", domain="own", name=name)]
    model = parse(proto(calls, [own]).SerializeToString())  # onnxruntime itself refuses two nodes of one name
    assert len({layer.output.name for layer in model.layers}) == 4
    np.testing.assert_array_equal(Engine(model).run({"x": X})["y"], 4 * X)


def test_optional_inputs_and_unused_outputs_are_left_out(plainly: Any) -> None:
    own = function("Bound", "a low high", "b c", [node("Clip", "a low high", "b"), node("Neg", "a", "c")])
    whole = proto([node("Constant", "", "one", value_float=1.0), node("Bound", "x - one", "y", domain="own")], [own])
    whole.graph.node[0].input[:] = []
    model = parse(whole.SerializeToString())
    np.testing.assert_array_equal(Engine(model).run({"x": X})["y"], np.minimum(X, 1))


def test_an_input_handed_through_is_copied() -> None:
    own = function("Both", "a", "a b", [node("Neg", "a", "b")])
    whole = proto([node("Both", "x", "same negated", domain="own"), node("Sub", "same negated", "y")], [own])
    model = parse(whole.SerializeToString())
    np.testing.assert_array_equal(Engine(model).run({"x": X})["y"], 2 * X)


def test_a_function_that_calls_itself_is_refused() -> None:
    own = function("Endless", "a", "b", [node("Endless", "a", "b", domain="own", name="again")])
    with pytest.raises(ModelError, match="call each other without end"):
        parse(proto([node("Endless", "x", "y", domain="own")], [own]).SerializeToString())


def test_two_versions_of_an_operator_set_are_refused() -> None:
    own = function("Old", "a", "b", [node("Relu", "a", "b")], opsets=[helper.make_opsetid("", 13)])
    with pytest.raises(ModelError, match=r"function 'Old' needs opset 13 of 'ai.onnx', the model uses 18"):
        parse(proto([node("Old", "x", "y", domain="own")], [own]).SerializeToString())


def test_operator_sets_that_only_a_function_uses_are_imported(plainly: Any) -> None:
    more = [*OPSETS, helper.make_opsetid("com.microsoft", 1)]
    own = function("Smooth", "a", "b", [node("Gelu", "a", "b", domain="com.microsoft")], opsets=more)
    model = both(proto([node("Smooth", "x", "y", domain="own")], [own]), plainly)
    assert model.opsets == {"ai.onnx": 18, "com.microsoft": 1}


def test_a_runtime_s_operator_set_that_a_function_joins_stays_imported(plainly: Any) -> None:
    """A local function may have the domain of operators that the runtime has; the others of that domain still work."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    own = function("Mine", "a", "b", [node("Relu", "a", "b")], domain="com.microsoft", opsets=opsets)
    nodes = [node("Mine", "x", "h", domain="com.microsoft"), node("Gelu", "h", "y", domain="com.microsoft")]
    both(proto(nodes, [own], opsets), plainly)


def test_a_call_s_notes_reach_its_nodes() -> None:
    """torch writes module paths on the call; the function's nodes carry none of their own."""
    call = node("Twice", "x", "y", domain="own", name="node_twice")
    call.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'layer1', 'layer1.act', 'twice']")
    own = function("Twice", "a", "b", [node("Add", "a a", "b")])
    assert parse(proto([call], [own]).SerializeToString()).layers[0].scope == "layer1.act"
