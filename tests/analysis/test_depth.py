"""Whether the layers chosen for the user are those that a network's blocks end with."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from onnx_inspect.analysis.depth import along_depth
from onnx_inspect.graph.build import build
from onnx_inspect.graph.model import Model


def network(nodes: list[onnx.NodeProto], shape: tuple[int, ...] = (1, 4, 8, 8)) -> Model:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return build(proto, source="net.onnx", digest="", folder=Path())


def shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return {layer.output.name: (1, 4, 8, 8) for layer in model.layers}


def chosen(model: Model, most: int = 8) -> list[str]:
    return [layer.name for layer in along_depth(model, shapes(model), most=most)]


def block(number: int, source: str) -> list[onnx.NodeProto]:
    """A residual block: two branches of sines, their sum, a Relu."""
    return [
        helper.make_node("Sin", [source], [f"a{number}"], name=f"a{number}"),
        helper.make_node("Sin", [f"a{number}"], [f"b{number}"], name=f"b{number}"),
        helper.make_node("Add", [f"b{number}", source], [f"c{number}"], name=f"add{number}"),
        helper.make_node("Relu", [f"c{number}"], [f"d{number}"], name=f"relu{number}"),
    ]


def residual(blocks: int) -> Model:
    nodes = [node for n in range(blocks) for node in block(n, f"d{n - 1}" if n else "x")]
    return network([*nodes, helper.make_node("Sin", [f"d{blocks - 1}"], ["y"], name="end")])


def test_only_ends_of_residual_blocks_are_chosen() -> None:
    assert chosen(residual(4)) == ["relu0", "relu1", "relu2", "relu3", "end"]


def test_they_are_spread_evenly_and_the_last_is_among_them() -> None:
    assert chosen(residual(9), most=4) == ["relu0", "relu3", "relu6", "end"]


def test_a_layer_that_the_next_one_only_activates_is_left_out() -> None:
    nodes = [
        helper.make_node("Sin" if n % 2 == 0 else "Relu", ["x" if n == 0 else f"t{n - 1}"], [f"t{n}"], name=f"n{n}")
        for n in range(9)
    ]
    assert chosen(network([*nodes, helper.make_node("Sin", ["t8"], ["y"], name="end")])) == [
        "n1",
        "n3",
        "n5",
        "n7",
        "n8",
        "end",
    ]


def test_a_network_with_a_shortcut_over_everything_falls_back_on_all_its_layers() -> None:
    nodes = [helper.make_node("Sin", ["x" if n == 0 else f"t{n - 1}"], [f"t{n}"], name=f"n{n}") for n in range(4)]
    found = chosen(network([*nodes, helper.make_node("Concat", ["t3", "x"], ["y"], name="end", axis=1)]))
    assert found == ["n0", "n1", "n2", "n3", "end"]


def test_shape_arithmetic_is_never_chosen() -> None:
    nodes = [
        helper.make_node("Sin", ["x"], ["a"], name="a"),
        helper.make_node("Shape", ["a"], ["s"], name="shape"),
        helper.make_node("Sin", ["a"], ["b"], name="b"),
        helper.make_node("Reshape", ["b", "s"], ["c"], name="reshape"),
        helper.make_node("Sin", ["c"], ["y"], name="end"),
    ]
    assert chosen(network(nodes)) == ["a", "b", "end"]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_at_most_as_many_as_asked_for(most: int) -> None:
    assert len(chosen(residual(6), most=most)) == most


def test_a_single_one_is_the_last() -> None:
    assert chosen(residual(6), most=1) == ["end"]
