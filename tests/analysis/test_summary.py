"""A summary's JSON is what people's scripts rely on, for every model there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from onnx_inspect.analysis.summary import summarise
from onnx_inspect.errors import InputError
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import parse, read

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures"
REAL = ROOT / "../shared/real/models"
KEYS = {"model", "ir_version", "opset", "producer", "parameters", "macs", "inputs", "outputs", "layers"}
LAYER_KEYS = {"index", "name", "op_type", "output", "shape", "parameters", "macs", "scope", "cam_rank"}


def small() -> Model:
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], name="dq"),
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "w"], ["b"], name="second"),
        helper.make_node("Relu", ["b"], ["y"], name="relu"),
    ]
    tensors = [numpy_helper.from_array(np.ones((4, 4), np.int8), "q"), numpy_helper.from_array(np.float32(0.5), "s")]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [info("x", T.FLOAT, ["n", 4])], [info("y", T.FLOAT, ["n", 4])], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="me")
    proto.producer_version = "1.2"
    return parse(proto.SerializeToString(), source="small.onnx")


def test_the_whole_summary_of_a_small_model() -> None:
    found = summarise(small(), ranks={"relu": 1, "first": 2}).to_json()
    digest = found.pop("digest")
    assert len(digest) == 64
    tensor = {"dtype": "float32", "shape": ["n", 4]}
    rows = [
        ("dq", "DequantizeLinear", "w", [4, 4], 0, 0, None, True),
        ("first", "MatMul", "a", ["n", 4], 16, 16, 2, False),
        ("second", "MatMul", "b", ["n", 4], 16, 16, None, False),
        ("relu", "Relu", "y", ["n", 4], 0, 0, 1, False),
    ]
    keys = ("name", "op_type", "output", "shape", "parameters", "macs", "cam_rank", "constant")
    assert found == {
        "model": "small.onnx",
        "ir_version": 8,
        "opset": 17,
        "opsets": {"ai.onnx": 17},
        "producer": "me 1.2",
        "parameters": 16,  # both layers share them
        "macs": 32,
        "known_macs": 32,
        "unknown_macs": 0,
        "activation_bytes": 64,
        "peak_activation_bytes": 32,
        "size_bytes": None,
        "inputs": [{"name": "x", **tensor}],
        "outputs": [{"name": "y", **tensor}],
        "bound": {"x": [1, 4]},
        "layers": [
            {"index": i, "scope": "", "dtype": "float32", **dict(zip(keys, row, strict=True))}
            for i, row in enumerate(rows)
        ],
        "ops": [
            {"op_type": "MatMul", "count": 2, "parameters": 32, "macs": 32},
            {"op_type": "DequantizeLinear", "count": 1, "parameters": 0, "macs": 0},
            {"op_type": "Relu", "count": 1, "parameters": 0, "macs": 0},
        ],
        "metadata": {},
    }


def test_costs_follow_the_shapes_asked_for() -> None:
    assert summarise(small(), shapes={"x": (10, 4)}).macs == 320
    with pytest.raises(InputError, match="no input 'z'"):
        summarise(small(), shapes={"z": (1, 4)})


def test_costs_that_are_not_known_are_null_and_counted() -> None:
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")]
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", T.FLOAT, ["n", "t", 4])],
        [info("y", T.FLOAT, ["n", "t", 2])],
        [numpy_helper.from_array(np.ones((4, 2), np.float32), "w")],
    )
    found = summarise(parse(helper.make_model(graph, ir_version=8).SerializeToString())).to_json()
    assert (found["macs"], found["known_macs"], found["unknown_macs"]) == (None, 0, 1)
    assert (found["activation_bytes"], found["layers"][0]["macs"]) == (None, None)
    assert found["bound"] == {"x": [1, "t", 4]}


def test_the_size_holds_external_data(tmp_path: Path) -> None:
    for name in ("external.onnx", "external.data"):
        (tmp_path / name).write_bytes((FIXTURES / name).read_bytes())
    size = sum((tmp_path / name).stat().st_size for name in ("external.onnx", "external.data"))
    assert summarise(read(tmp_path / "external.onnx")).size_bytes == size


def test_opset_of_a_model_without_standard_operators() -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(small().proto)
    proto.opset_import[0].domain, proto.opset_import[0].version = "ai.onnx.ml", 3
    del proto.graph.node[:]
    proto.graph.node.append(helper.make_node("Normalizer", ["x"], ["y"], name="n", domain="ai.onnx.ml"))
    assert summarise(parse(proto.SerializeToString())).opset == 3


def contract(found: dict[str, Any]) -> None:
    assert set(found) >= KEYS
    assert isinstance(found["opset"], int)
    for row in found["layers"]:
        assert set(row) >= LAYER_KEYS
    assert [row["index"] for row in found["layers"]] == list(range(len(found["layers"])))
    known = [row["macs"] for row in found["layers"]]
    assert found["macs"] == (None if None in known else sum(known))
    assert sum(op["count"] for op in found["ops"]) == len(found["layers"])
    assert found["parameters"] <= sum(row["parameters"] for row in found["layers"])


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.onnx")), ids=lambda path: path.stem)
def test_fixtures_keep_the_contract(path: Path) -> None:
    contract(json.loads(json.dumps(summarise(read(path)).to_json(), allow_nan=False)))


def test_real_models_keep_the_contract() -> None:
    if not REAL.is_dir():
        pytest.skip("the real models are not here")
    for path in sorted(REAL.rglob("*.onnx")):
        contract(json.loads(json.dumps(summarise(read(path)).to_json(), allow_nan=False)))


def test_weights_inside_control_flow_count_for_their_node() -> None:
    rows = {row.layer.name: row for row in summarise(read(FIXTURES / "if_loop.onnx")).layers}
    assert rows["first_if_node"].parameters == 2 * (4 * 4 * 9 + 4)
    assert rows["loop_node"].parameters == 4 * 4 * 9 + 4
