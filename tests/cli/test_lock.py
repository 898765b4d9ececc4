"""`lock` and `verify`: what still agrees, what drifts and from where, and what can't be compared."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

FIXTURES = Path(__file__).parents[2] / "fixtures"
NET = FIXTURES / "shapes_resnet.onnx"
STAR, CROSS = (FIXTURES / "inputs" / f"shape_{name}.png" for name in ("star", "cross"))
Run = Callable[..., Any]


@pytest.fixture
def locked(run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "net.lock.json"
    assert run("lock", NET, STAR, CROSS, "-o", path, "--quiet").code == 0
    return path


def edited(tmp_path: Path, edit: Callable[[onnx.GraphProto], object], source: Path = NET) -> Path:
    proto = onnx.load(source)
    edit(proto.graph)
    onnx.save(proto, tmp_path / "edited.onnx")
    return tmp_path / "edited.onnx"


def renamed(path: Path, tmp_path: Path, *, shuffled: bool = True) -> Path:
    """The same graph with every node and tensor renamed, and its nodes in another topological order."""
    proto, rng = onnx.load(path), random.Random(0)
    graph = proto.graph
    kept = {value.name for value in (*graph.input, *graph.output)}
    names: dict[str, str] = {}

    def new(name: str) -> str:
        return name if not name or name in kept else names.setdefault(name, f"t{rng.randrange(10**9)}")

    for tensor in graph.initializer:
        tensor.name = new(tensor.name)
    for node in graph.node:
        node.name = f"n{rng.randrange(10**9)}"
        node.input[:], node.output[:] = map(new, node.input), map(new, node.output)
    del graph.value_info[:]
    if shuffled:
        ready = {t.name for t in graph.initializer} | {i.name for i in graph.input} | {""}
        waiting, order = list(graph.node), []
        while waiting:
            free = [node for node in waiting if set(node.input) <= ready]
            node = rng.choice(free)
            waiting.remove(node)
            order.append(node)
            ready.update(node.output)
        del graph.node[:]
        graph.node.extend(order)
    notes = {p.key: p.value for p in proto.metadata_props if p.key.endswith("preprocess")}
    del proto.metadata_props[:]
    proto.metadata_props.extend(onnx.StringStringEntryProto(key=k, value=v) for k, v in notes.items())
    onnx.save(proto, tmp_path / "renamed.onnx")
    return tmp_path / "renamed.onnx"


def test_the_model_itself_agrees(run: Run, locked: Path) -> None:
    result = run("verify", NET, locked, "--json")
    assert result.code == 0, result.err
    assert result.json["agree"] is True
    assert result.json["first"] is None
    assert result.json["identical_file"] is True
    assert {pair["matched_by"] for pair in result.json["matched"]} == {"input", "name"}
    assert max(pair["relative_error"] for pair in result.json["matched"]) < 1e-6  # the file keeps float32


def test_a_lock_is_small_and_holds_no_weights_and_no_pixels(run: Run, locked: Path) -> None:
    data = json.loads(locked.read_text())
    assert locked.stat().st_size < 1000 * len(data["layers"]) < NET.stat().st_size / 5
    assert data["inputs"]["content"] is None
    assert all(len(sample["fed"]) == 64 for sample in data["inputs"]["samples"])
    assert set(data["layers"][0]) == {
        *("name", "tensor", "op_type", "shape", "dtype", "sums", "quantiles", "mean", "std", "nan", "inf")
    }


def test_renamed_and_reordered_nodes_still_agree(run: Run, locked: Path, tmp_path: Path) -> None:
    result = run("verify", renamed(NET, tmp_path), locked, "--json", "--strict")
    assert result.code == 0, result.err
    assert result.json["missing"] == result.json["added"] == []
    assert max(pair["relative_error"] for pair in result.json["matched"]) < 1e-5


def scale(graph: onnx.GraphProto, node: int, factor: float, slot: int = 1) -> str:
    """Scale a constant input of one node; return the node's name."""
    chosen = graph.node[node]
    tensor = next(t for t in graph.initializer if t.name == chosen.input[slot])
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))
    return chosen.name


def without(graph: onnx.GraphProto, node: int) -> str:
    """Take a node out; return the name of the node that read it first."""
    gone = graph.node[node]
    source, tensor = gone.input[0], gone.output[0]
    graph.node.remove(gone)
    reader = next(n for n in graph.node if tensor in n.input)
    for other in graph.node:
        other.input[:] = [source if name == tensor else name for name in other.input]
    return reader.name


def convolutions() -> list[int]:
    return [i for i, node in enumerate(onnx.load(NET).graph.node) if node.op_type == "Conv"]


@pytest.mark.parametrize("node", convolutions())
def test_a_scaled_weight_is_named_first(node: int, run: Run, locked: Path, tmp_path: Path) -> None:
    guilty: list[str] = []
    path = edited(tmp_path, lambda graph: guilty.append(scale(graph, node, 1.05)))
    result = run("verify", path, locked, "--json")
    assert result.code == 1, result.err
    assert result.json["first"]["now"] == guilty[0]
    assert result.json["first"]["relative_error"] == pytest.approx(0.05, rel=0.5)  # less where a bias is added


@pytest.mark.parametrize("node", [0, 4, 12])
def test_a_dropped_bias_is_named_first_among_renamed_nodes(node: int, run: Run, locked: Path, tmp_path: Path) -> None:
    place = [i for i, n in enumerate(onnx.load(NET).graph.node) if n.op_type == "Conv" and len(n.input) > 2][node % 9]
    path = edited(tmp_path, lambda graph: scale(graph, place, 0.0, slot=2))
    result = run("verify", renamed(path, tmp_path, shuffled=False), locked, "--json")
    assert result.code == 1, result.err
    assert result.json["first"]["locked"] == onnx.load(NET).graph.node[place].name


def test_a_removed_relu_is_missing_and_its_reader_drifts(run: Run, locked: Path, tmp_path: Path) -> None:
    place = [i for i, n in enumerate(onnx.load(NET).graph.node) if n.op_type == "Relu"][3]
    reader: list[str] = []
    path = edited(tmp_path, lambda graph: reader.append(without(graph, place)))
    result = run("verify", path, locked, "--json")
    assert result.code == 1
    assert result.json["missing"] == [onnx.load(NET).graph.node[place].name]
    assert result.json["first"]["now"] == reader[0]


def test_int8_agrees_within_its_own_steps_only(run: Run, locked: Path) -> None:
    strict = run("verify", FIXTURES / "int8_qdq.onnx", locked, "--json")
    assert strict.code == 1
    assert strict.json["first"]["op_type"] == "Conv"
    assert strict.json["missing"] == []
    wide = run("verify", FIXTURES / "int8_qdq.onnx", locked, "--rtol", "0.2")
    assert wide.code == 0, wide.out
    assert "agrees" in wide.out
    assert run("verify", FIXTURES / "int8_qdq.onnx", locked, "--rtol", "0.2", "--strict").code == 1


def test_simplified_models_agree(run: Run, locked: Path, tmp_path: Path) -> None:
    onnxslim: Any = pytest.importorskip("onnxslim", reason="onnxslim is a simplifier that users run")
    slim = onnxslim.slim(onnx.load(renamed(NET, tmp_path)))
    onnx.save(slim, tmp_path / "slim.onnx")
    assert run("verify", tmp_path / "slim.onnx", locked).code == 0


def test_random_inputs_are_made_again_from_the_seed(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert run("lock", FIXTURES / "multi_input.onnx", "random", "random", "--seed", 5, "-o", path).code == 0
    assert run("verify", FIXTURES / "multi_input.onnx", path).code == 0
    data = json.loads(path.read_text())
    assert data["inputs"]["files"] == []
    data["seed"] = 6
    path.write_text(json.dumps(data))
    result = run("verify", FIXTURES / "multi_input.onnx", path)
    assert result.code == 2
    assert "SHA-256" in result.err


def test_a_lock_without_inputs_is_made_on_random_ones_and_said(run: Run, tmp_path: Path) -> None:
    result = run("lock", NET, "-o", tmp_path / "a.json", "--json")
    assert result.code == 0
    assert "random, from --seed 0" in result.err
    assert result.json["inputs"] == ["random"]
    assert run("verify", NET, tmp_path / "a.json").code == 0


def test_other_inputs_are_refused_and_the_same_content_elsewhere_is_not(run: Run, locked: Path, tmp_path: Path) -> None:
    assert run("verify", NET, locked, CROSS, STAR).code == 2
    assert run("verify", NET, locked, STAR).code == 2
    (tmp_path / "moved.png").write_bytes(STAR.read_bytes())
    assert run("verify", NET, locked, tmp_path / "moved.png", CROSS).code == 0


def test_inputs_that_are_gone_are_asked_for_unless_they_were_kept(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "star.png"
    picture.write_bytes(STAR.read_bytes())
    assert run("lock", NET, picture, "-o", tmp_path / "a.json").code == 0
    assert run("lock", NET, picture, "-o", tmp_path / "b.json", "--keep-inputs").code == 0
    picture.unlink()
    gone = run("verify", NET, tmp_path / "a.json", "--quiet")
    assert gone.code == 2
    assert "--keep-inputs" in gone.err
    kept = run("verify", renamed(NET, tmp_path), tmp_path / "b.json")
    assert kept.code == 0, kept.err


def test_another_preprocess_of_the_same_pictures_drifts_from_the_input_on(run: Run, locked: Path) -> None:
    result = run("verify", NET, locked, "--preprocess", "unit", "--json")
    assert result.code == 1
    assert result.json["first"]["now"] == "input"
    assert "fed in another way" in result.err


def test_flips_count_where_no_layer_is_beyond_its_limits(run: Run, locked: Path, tmp_path: Path) -> None:
    data = json.loads(locked.read_text())
    data["classes"][1] = (data["classes"][1] + 1) % 6
    locked.write_text(json.dumps(data))
    result = run("verify", NET, locked, "--json")
    assert result.code == 1
    assert result.json["flips"] == [1]
    assert run("verify", NET, locked, "--max-flips", 1).code == 0


def test_non_finite_values_are_drift(run: Run, locked: Path, tmp_path: Path) -> None:
    path = edited(tmp_path, lambda graph: scale(graph, 0, float("nan")))
    result = run("verify", path, locked, "--json")
    assert result.code == 1
    assert "NaN" in result.json["first"]["drift"]


FAILURES: dict[str, tuple[Callable[[Path], list[Any]], int, str]] = {
    "another model": (lambda lock: ["verify", FIXTURES / "digits_vit.onnx", lock], 2, "is it another model"),
    "no lockfile": (lambda lock: ["verify", NET, lock.parent / "none.json"], 2, "no such lockfile"),
    "a model as the lock": (lambda lock: ["verify", NET, NET], 2, "no lockfile"),
    "missing model": (lambda lock: ["verify", "nowhere.onnx", lock], 3, "nowhere.onnx"),
    "missing input": (lambda lock: ["verify", NET, lock, "nowhere.png"], 2, "nowhere.png"),
    "unwritable": (lambda lock: ["lock", NET, STAR, "-o", "/proc/none/a.json"], 2, "/proc/none"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failures_are_one_line(case: str, run: Run, locked: Path) -> None:
    words, code, telling = FAILURES[case]
    result = run(*words(locked), "--quiet")
    assert result.code == code, result.err
    assert len(result.err.splitlines()) == 1, result.err
    assert telling in result.err


@pytest.mark.parametrize(
    ("key", "value"), [("version", 99), ("layers", None), ("format", "x"), ("entries", [{"name": "x"}])]
)
def test_damaged_and_newer_lockfiles_are_refused_in_one_line(key: str, value: Any, run: Run, locked: Path) -> None:
    data = json.loads(locked.read_text())
    locked.write_text(json.dumps(data | {key: value}))
    result = run("verify", NET, locked, "--quiet")
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert locked.name in result.err


def test_verify_writes_what_json_prints(run: Run, locked: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    assert run("verify", NET, locked, "-o", out, "--quiet").code == 0
    assert json.loads(out.read_text())["agree"] is True
    assert {"agree", "first", "matched", "missing", "added", "flips"} <= set(json.loads(out.read_text()))


def test_siblings_are_fed_by_their_own_convention(run: Run, tmp_path: Path) -> None:
    real = Path(__file__).parents[3] / "shared" / "real"
    if not real.is_dir():
        pytest.skip(f"{real} is not here")
    lock = tmp_path / "vww.json"
    picture = real / "images" / "three_nurses.jpg"
    assert run("lock", real / "models" / "visual_wake_words_fp32.onnx", picture, "-o", lock, "--quiet").code == 0
    result = run("verify", real / "models" / "visual_wake_words_int8.onnx", lock, "--rtol", "0.6", "--json")
    assert result.code in (0, 1), result.err
    errors = [pair["relative_error"] for pair in result.json["matched"] if pair["matched_by"] == "output"]
    assert errors


def test_a_random_picture_is_digested_as_it_is_fed(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)).save(picture)
    assert run("lock", NET, picture, "-o", tmp_path / "a.json").code == 0
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (20, 30, 3), np.uint8)).save(picture)
    assert run("verify", NET, tmp_path / "a.json").code == 2
