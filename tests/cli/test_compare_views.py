"""`compare --cam` and `compare --cka`: other reasons are found, identical ones agree, what can't be compared fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

FIXTURES = Path(__file__).parents[2] / "fixtures"
INPUTS = FIXTURES / "inputs"
NET = FIXTURES / "shapes_resnet.onnx"
PICTURES = [INPUTS / f"shape_{name}.png" for name in ("star", "cross", "circle", "triangle")]
DIGITS = [INPUTS / f"digit_{digit}.png" for digit in (0, 3, 5, 7)]
Run = Callable[..., Any]


@pytest.fixture
def mirrored(tmp_path: Path) -> Path:
    """The network with its last maps mirrored: the average over them, and so the answer, is the same."""
    proto = onnx.load(NET)
    graph = proto.graph
    place, pool = next((i, n) for i, n in enumerate(graph.node) if n.op_type in ("GlobalAveragePool", "ReduceMean"))
    maps = pool.input[0]
    for name, value in (("last", [-1]), ("before", [-(2**31)]), ("axis", [3]), ("back", [-1])):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    graph.node.insert(place, helper.make_node("Slice", [maps, "last", "before", "axis", "back"], ["mirrored"], "turn"))
    graph.node[place + 1].input[0] = "mirrored"
    onnx.save(proto, tmp_path / "mirrored.onnx")
    return tmp_path / "mirrored.onnx"


def test_a_network_agrees_with_itself(run: Run, tmp_path: Path) -> None:
    result = run("compare", NET, NET, *PICTURES, "--cam", "recipro-cam", "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    assert result.json["agree"] is True
    assert [p["rank_correlation"] for p in result.json["pictures"]] == pytest.approx([1] * 4)
    assert [p["overlap"] for p in result.json["pictures"]] == pytest.approx([1] * 4)
    assert Path(result.json["figures"][0]).name == "reasons.png"
    assert len(result.json["figures"]) == 5


def test_the_same_answer_for_another_reason_is_flagged(run: Run, mirrored: Path, tmp_path: Path) -> None:
    words = ["--cam", "cam", "--layer-b", "turn", "--save", tmp_path / "m.npz", "-o", tmp_path, "--json"]
    result = run("compare", NET, mirrored, *PICTURES, *words)
    assert result.code == 1, result.err
    assert result.json["flips"] == 0
    assert result.json["reason_changed"] >= 3  # a map that is symmetric by chance may pass
    flagged = [p for p in result.json["pictures"] if p["verdict"] == "reason changed"]
    assert all(p["predicted_a"] == p["predicted_b"] for p in flagged)
    assert all(abs(p["score_a"] - p["score_b"]) < 1e-5 for p in flagged)
    with np.load(tmp_path / "m.npz") as stored:
        np.testing.assert_allclose(stored["b"], stored["a"][..., ::-1], atol=1e-4)  # the planted reason
        assert json.loads(str(stored["meta"]))["reason_changed"] == result.json["reason_changed"]
    assert run("compare", NET, mirrored, *PICTURES, *words[:-1], "--min-rank-correlation", "-1").code == 0


def test_b_is_looked_at_where_it_holds_what_a_does(run: Run, tmp_path: Path) -> None:
    result = run("compare", NET, FIXTURES / "int8_qdq.onnx", *PICTURES[:2], "--cam", "cam", "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    assert result.json["layer_a"] == "node_relu_8"
    assert result.json["layer_b"] == "relu_8_DequantizeLinear"  # after the Relu, which the quantiser absorbed
    assert result.json["median_rank_correlation"] > 0.8


def test_classes_are_found_by_their_labels(run: Run, tmp_path: Path) -> None:
    proto = onnx.load(NET)
    labels = next(p for p in proto.metadata_props if p.key == "onnx_inspect.labels")
    names = json.loads(labels.value)
    order = [5, 3, 1, 0, 2, 4]
    labels.value = json.dumps([names[i] for i in order])
    gemm = next(n for n in proto.graph.node if n.op_type == "Gemm")
    for tensor in proto.graph.initializer:
        if tensor.name in gemm.input:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[order], tensor.name))
    onnx.save(proto, tmp_path / "permuted.onnx")
    result = run("compare", NET, tmp_path / "permuted.onnx", *PICTURES, "--cam", "cam", "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    assert [p["rank_correlation"] for p in result.json["pictures"]] == pytest.approx([1] * 4)


def test_one_file_holds_the_overview(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "one.png"
    result = run("compare", NET, FIXTURES / "int8_qdq.onnx", *PICTURES[:2], "--cam", "eigen-cam", "-o", out)
    assert result.code == 0, result.err
    assert result.out.splitlines()[-1] == str(out)
    assert np.asarray(Image.open(out).convert("L")).std() > 10


def test_cka_of_other_architectures_is_drawn_and_never_called_equal(run: Run, tmp_path: Path) -> None:
    words = ["--cka", "-o", tmp_path, "--save", tmp_path / "cka.npz", "--json"]
    result = run("compare", FIXTURES / "digits_convnet.onnx", FIXTURES / "digits_vit.onnx", *DIGITS, *words)
    assert result.code == 0, result.err
    assert result.json["agree"] is None
    found = result.json["cka"]
    assert len(found["matrix"]) == len(found["layers_a"]) == len(found["nearest"]) == len(found["path"])
    assert found["samples"] == 4
    assert "tell little" in result.err
    with np.load(tmp_path / "cka.npz") as stored:
        np.testing.assert_allclose(stored["cka"], np.array(found["matrix"], float))
    assert (tmp_path / "likeness.png").stat().st_size > 5000


def test_cka_of_a_network_with_itself_is_one_on_the_diagonal(run: Run, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, (40, 3, 64, 64)).astype(np.float32)
    np.save(tmp_path / "x.npy", noise)
    result = run("compare", NET, NET, tmp_path / "x.npy", "--cka", "--min-cka", "0.99", "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    assert result.json["identical_file"] is True
    np.testing.assert_allclose(np.diag(result.json["cka"]["matrix"]), 1, atol=1e-9)
    assert [p["a"] for p in result.json["cka"]["nearest"]] == [p["b"] for p in result.json["cka"]["nearest"]]
    assert all(p["above_chance"] for p in result.json["cka"]["nearest"])
    other = FIXTURES / "int8_qdq.onnx"
    broken = run(
        "compare", NET, other, tmp_path / "x.npy", "--cka", "--min-cka", "1", "-o", tmp_path, "--layer", "Add:*"
    )
    assert broken.code in (1, 2)


FAILURES: dict[str, tuple[list[Any], int, str]] = {
    "too few inputs": ([NET, NET, PICTURES[0], "--cka"], 2, "at least 4 inputs"),
    "both views": ([NET, NET, PICTURES[0], "--cka", "--cam", "cam"], 2, "one at a time"),
    "unknown method": ([NET, NET, PICTURES[0], "--cam", "magic"], 2, "unknown method 'magic'"),
    "unknown class": ([NET, NET, PICTURES[0], "--cam", "cam", "--target", "cat"], 2, "'cat'"),
    "several targets": ([NET, NET, PICTURES[0], "--cam", "cam", "--target", "top-2"], 2, "one at a time"),
    "several layers": ([NET, NET, PICTURES[0], "--cam", "cam", "--layer", "Relu:0", "--layer", "Relu:1"], 2, "once"),
    "flat maps": ([FIXTURES / "dead.onnx", FIXTURES / "dead.onnx", "random", "--cam", "recipro-cam"], 2, "flat map"),
    "missing model": (["nowhere.onnx", NET, PICTURES[0], "--cam", "cam"], 3, "nowhere.onnx"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failures_are_one_line_and_write_nothing(
    case: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words, code, telling = FAILURES[case]
    result = run("compare", *words, "--quiet")
    assert result.code == code, result.err
    assert len(result.err.splitlines()) == 1, result.err
    assert telling in result.err
    assert list(tmp_path.rglob("*")) == []


def test_where_no_layers_correspond_their_likeness_is_shown_and_nothing_agrees(run: Run, tmp_path: Path) -> None:
    teacher, student = FIXTURES / "digits_convnet.onnx", FIXTURES / "digits_vit.onnx"
    result = run("compare", teacher, student, *DIGITS, "-o", tmp_path)
    assert result.code == 1
    assert "alike doesn't mean equal" in result.out
    assert (tmp_path / "likeness.png").is_file()
    strangers = run("compare", NET, student, *DIGITS, "-o", tmp_path / "b", "--json")
    assert strangers.code == 1
    assert strangers.json["agree"] is False
    assert strangers.json["matched"] == []
    assert strangers.json["cka"]["samples"] == 4
    alone = run("compare", NET, student, DIGITS[0], "-o", tmp_path / "c", "--quiet")
    assert alone.code == 2
    assert "different networks" in alone.err
