"""Does the exporters' contract hold whatever the framework: checked, named and mapped by value, or not written?"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters._contract import ExportSpec, Reference, Report, distance, publish
from exporters._modules import match
from exporters._names import name_outputs
from onnx_inspect.engine import Engine
from onnx_inspect.errors import ModelError, RunError
from onnx_inspect.graph.read import parse, read

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(4, 3)).astype(np.float32)
X = RNG.normal(size=(5, 4)).astype(np.float32)


def network(opset: int = 18) -> onnx.ModelProto:
    """``y = relu(x @ w); z = y + 1``."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], name="a/product"),
        helper.make_node("Relu", ["product"], ["y"], name="a/relu"),
        helper.make_node("Add", ["y", "one"], ["z"], name="b/add"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])]
    outputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 3])]
    weights = [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(np.float32(1), "one")]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def product(x: np.ndarray) -> np.ndarray:
    return x @ WEIGHT


def reference(x: np.ndarray, wrong: float = 0.0) -> Reference:
    y = np.maximum(product(x), 0)
    modules = {"a.linear": product(x), "a": y, "b": y + 1, "elsewhere": y + 7}
    return Reference({"x": x}, {"z": y + 1 + wrong}, modules)


def run(out: Path, *, wrong: float = 0.0, tolerance: float = 1e-4, proto: onnx.ModelProto | None = None) -> Report:
    spec = ExportSpec(object(), {"x": X[:1]}, out, tolerance=tolerance)
    return publish(
        spec,
        proto or network(),
        [reference(X[:1]), reference(X, wrong)],
        scopes={"a/product": ("a", "a.linear"), "a/relu": ("a",), "b/add": ("b",)},
        framework="numpy",
        version="1",
        started=time.perf_counter(),
    )


def test_modules_without_a_tensor_of_their_value_are_left_out(tmp_path: Path) -> None:
    report = run(tmp_path / "net.onnx")
    assert report.modules == {"a.linear": "product", "a": "y", "b": "z"}
    assert report.unmapped == ("elsewhere",)
    assert report.samples == 6
    assert read(tmp_path / "net.onnx").layer("a").output.name == "y"


def test_scopes_alone_map_nothing() -> None:
    found = match(parse(network().SerializeToString()), {"x": X}, {"a": product(X) * 2}, {"a/relu": ("a",)}, 1e-4)
    assert found == {}


def test_of_equal_values_the_one_inside_the_module_is_taken() -> None:
    proto = network()
    proto.graph.node.insert(1, helper.make_node("Identity", ["product"], ["twin"], name="c/twin"))
    model, value = parse(proto.SerializeToString()), product(X)
    assert match(model, {"x": X}, {"c": value}, {"c/twin": ("c",)}, 1e-4) == {"c": "twin"}
    assert match(model, {"x": X}, {"twin": value}, {}, 1e-4) == {"twin": "twin"}
    assert match(model, {"x": X}, {"free": value}, {}, 1e-4) == {"free": "product"}


@pytest.mark.parametrize(("wrong", "passes"), [(0.0, True), (1e-5, True), (0.1, False), (np.nan, False)])
def test_only_what_agrees_within_the_tolerance_is_written(tmp_path: Path, wrong: float, passes: bool) -> None:
    out = tmp_path / "net.onnx"
    if passes:
        assert run(out, wrong=wrong).max_difference["z"] == pytest.approx(wrong, abs=1e-6)
    else:
        with pytest.raises(RunError, match="'z' of the exported model differs"):
            run(out, wrong=wrong)
    assert out.exists() == passes
    assert len(list(tmp_path.iterdir())) == passes


def test_the_tolerance_is_relative_to_the_outputs_size(tmp_path: Path) -> None:
    peak = float(np.abs(reference(X).outputs["z"]).max())
    run(tmp_path / "net.onnx", wrong=0.9e-2 * peak, tolerance=1e-2)
    with pytest.raises(RunError):
        run(tmp_path / "net.onnx", wrong=1.2e-2 * peak, tolerance=1e-2)


def test_another_opset_than_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="opset 18 was asked for, this way of exporting makes 17"):
        run(tmp_path / "net.onnx", proto=network(17))


@pytest.mark.parametrize(
    ("found", "expected", "gap"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.5),
        ([np.nan, np.inf], [np.nan, np.inf], 0.0),
        ([np.inf, 1.0], [-np.inf, 1.0], np.inf),
        ([np.nan], [0.0], np.inf),
        ([1.0], [1.0, 1.0], np.inf),
        ([], [], 0.0),
    ],
)
def test_distance_is_the_largest_gap_and_infinite_where_values_cannot_be_compared(
    found: list[float], expected: list[float], gap: float
) -> None:
    assert distance(np.array(found), np.array(expected)) == gap


def test_distance_does_not_wrap_small_integers() -> None:
    assert distance(np.array([250], np.uint8), np.array([3], np.uint8)) == 247


def test_named_outputs_push_aside_who_has_their_name_and_copy_what_no_node_makes() -> None:
    proto = network()
    before = Engine(parse(proto.SerializeToString())).run({"x": X})["z"]
    for name, shape in (("w", [4, 3]), ("z", ["N", 3]), ("x", ["N", 4])):
        proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    name_outputs(proto, ["y", "product", "again", "echo"])
    onnx.checker.check_model(proto)
    found = Engine(parse(proto.SerializeToString())).run({"x": X})
    np.testing.assert_array_equal(found["y"], before)
    np.testing.assert_array_equal(found["again"], before)
    np.testing.assert_array_equal(found["product"], WEIGHT)
    np.testing.assert_array_equal(found["echo"], X)
