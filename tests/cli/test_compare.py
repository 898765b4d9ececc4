"""`compare` from the command line: what it prints, draws and exits with."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from benchmarks import planted_faults, siblings

FIXTURES = Path(__file__).parents[2] / "fixtures"
DIGITS = [FIXTURES / "inputs" / f"digit_{n}.png" for n in (3, 5)]
SHAPES = [FIXTURES / "inputs" / f"shape_{n}.png" for n in ("star", "cross")]
NET, EPOCH1 = FIXTURES / "digits_convnet.onnx", FIXTURES / "digits_convnet_epoch1.onnx"
RESNET, INT8 = FIXTURES / "shapes_resnet.onnx", FIXTURES / "int8_qdq.onnx"
Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where figures go


def test_json_keeps_the_contract(run: Run) -> None:
    found = run("compare", RESNET, INT8, *SHAPES, "--json")
    assert found.code == 0
    assert set(found.json) >= {"agree", "outputs", "matched", "unmatched_a", "unmatched_b", "culprit"}
    assert found.json["agree"] is True
    keys = {"a", "b", "confidence", "cosine", "sqnr_db", "max_abs", "local_sqnr_db"}
    assert all(set(pair) >= keys for pair in found.json["matched"])
    assert all(0 < pair["confidence"] <= 1 and pair["cosine"] > 0.99 for pair in found.json["matched"])
    assert set(found.json["culprit"]) >= {"a", "b", "why"}
    (output,) = found.json["outputs"]
    assert output["top1"] == 1 and output["flips"] == [] and output["rank"] > 0.9
    assert len(found.json["matched"]) == 27


def test_identical_files_say_so_and_exit_0(run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(NET.read_bytes())
    found = run("compare", NET, copy, "-q")
    assert found.code == 0
    assert "the two files are identical" in found.out
    assert run("compare", NET, copy, "--json").json["culprit"] is None


def test_a_planted_fault_is_named_and_exits_1(run: Run, tmp_path: Path) -> None:
    garden = planted_faults.Garden(onnx.load(NET), random.Random(2))
    plant = planted_faults.relu_removed(garden)
    assert plant is not None
    onnx.save(plant.model, tmp_path / "planted.onnx")
    found = run("compare", NET, tmp_path / "planted.onnx", *DIGITS, "--min-cosine", 0.9999, "-o", tmp_path / "seen.png")
    assert found.code == 1
    assert f"culprit: {plant.guilty}" in found.out
    assert "B lacks the Relu" in found.out
    assert "they don't agree: layer" in found.out
    assert np.asarray(Image.open(tmp_path / "seen.png").convert("RGB")).std() > 20  # not blank


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ((), 1),
        (("--max-flips", 4), 0),
        (("--max-flips", 3), 1),
        (("--atol", 1000), 0),
        (("--atol", 0.001), 1),
        (("--rtol", 0.001), 1),
        (("--min-cosine", -1), 0),
        (("--min-cosine", 0.9), 1),
    ],
)
def test_limits_decide_the_exit_code(run: Run, limits: tuple[Any, ...], code: int) -> None:
    found = run("compare", EPOCH1, NET, *limits, "--json", "-q")  # four random inputs, all of another class
    assert found.code == code
    assert found.json["agree"] is (code == 0)
    assert (found.json["offence"] is None) is (code == 0)


def test_random_inputs_come_from_the_seed(run: Run) -> None:
    one, again, other = (run("compare", EPOCH1, NET, "--seed", seed, "--json") for seed in (1, 1, 2))
    assert one.json == again.json
    assert one.json["outputs"][0]["max_abs"] != other.json["outputs"][0]["max_abs"]
    assert "4 random ones" in one.err


def test_networks_without_anything_in_common_are_never_fine(run: Run, tmp_path: Path) -> None:
    nodes = [helper.make_node("Sqrt", ["x"], ["y"]), helper.make_node("ReduceSum", ["y"], ["z"], keepdims=0)]
    inputs = [helper.make_tensor_value_info("x", 1, ["N", 3, 32, 32])]
    outputs = [helper.make_tensor_value_info("z", 1, [])]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(proto, tmp_path / "other.onnx")
    assert run("compare", NET, tmp_path / "other.onnx", *DIGITS).code != 0
    assert run("compare", "--weights", NET, tmp_path / "other.onnx").code == 2


def test_inputs_that_can_t_be_shared_are_one_clear_line(run: Run) -> None:
    found = run("compare", NET, FIXTURES / "lstm.onnx", *DIGITS)
    assert found.code == 2
    assert len(found.err.strip().splitlines()) >= 1 and "lstm.onnx" in found.err


def test_npz_pb_and_shapes_are_inputs(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1, 3, 32, 32)).astype(np.float32)
    np.savez(tmp_path / "x.npz", input=values)
    folder = tmp_path / "test_data_set_0"
    folder.mkdir()
    (folder / "input_0.pb").write_bytes(numpy_helper.from_array(values, "input").SerializeToString())
    found = [run("compare", EPOCH1, NET, word, "--json") for word in (tmp_path / "x.npz", folder)]
    assert found[0].json["outputs"] == found[1].json["outputs"]
    session = run("compare", EPOCH1, NET, "input:[1,3,32,32]", "--json", "--seed", 5)
    assert session.code in (0, 1) and len(session.json["inputs"]) == 1
    named = run("compare", EPOCH1, NET, "-I", f"input=@{tmp_path / 'x.npz'}", "--json")
    assert named.json["outputs"] == found[0].json["outputs"]


def test_each_model_gets_pictures_through_its_own_layout(run: Run, tmp_path: Path) -> None:
    siblings.channels_last(NET, tmp_path / "last.onnx", None)
    found = run("compare", NET, tmp_path / "last.onnx", *DIGITS, "--json")
    assert found.code == 0
    assert found.json["outputs"][0]["cosine"] == pytest.approx(1)
    assert [0, 2, 3, 1] in [pair["order"] for pair in found.json["matched"]]


def test_a_table_has_a_row_for_each_layer_and_the_figure_s_path(run: Run) -> None:
    found = run("compare", RESNET, INT8, *SHAPES, "-q")
    assert found.code == 0
    for name in ("conv2d", "relu_8", "logits"):
        assert name in found.out
    assert found.out.rstrip().endswith("shapes_resnet-int8_qdq-layers.png")
    assert not found.err


def test_weights_are_compared_without_inputs(run: Run, tmp_path: Path) -> None:
    found = run("compare", "--weights", RESNET, INT8, "--json", "-o", tmp_path / "w.png")
    assert found.code == 0
    assert {"a", "b", "cosine", "relative", "histogram", "sqnr_db"} <= set(found.json["matched"][0])
    assert np.asarray(Image.open(tmp_path / "w.png").convert("RGB")).std() > 20
    assert run("compare", "--weights", EPOCH1, NET, "-o", tmp_path).code == 1
    assert "identical" in run("compare", "--weights", NET, NET, "-o", tmp_path).out


def test_a_framework_s_network_comes_first(run: Run) -> None:
    found = run("compare", NET, "some.module:factory")
    assert found.code == 2
    assert "name it first" in found.err
