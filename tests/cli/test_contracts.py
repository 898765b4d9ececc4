"""What people's scripts rely on: JSON keys, array names and shapes, files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from onnx_inspect import discover

FIXTURES = Path(__file__).parents[2] / "fixtures"
INPUTS = FIXTURES / "inputs"
Run = Callable[..., Any]


@pytest.mark.parametrize("name", [name for name in discover.names("onnx_inspect.cli") if name != "app"])
def test_help_shows_an_example_on_lines_of_its_own(run: Run, name: str) -> None:
    text = run(name, "--help").out
    assert "\\b" not in text  # click's mark for "don't wrap", which a raw docstring would print
    assert "\n  Example:  onnx-inspect " in text


def test_predict_json_ranks_classes_with_their_labels_and_probabilities(run: Run) -> None:
    result = run(
        "predict", FIXTURES / "shapes_resnet.onnx", INPUTS / "shape_star.png", INPUTS / "shape_cross.png", "--json"
    )
    assert result.code == 0
    assert set(result.json) >= {"model", "provider", "inputs"}
    assert [entry["top"][0]["label"] for entry in result.json["inputs"]] == ["star", "cross"]
    for entry in result.json["inputs"]:
        scores = [ranked["score"] for ranked in entry["top"]]
        assert scores == sorted(scores, reverse=True)
        assert all(set(ranked) == {"index", "label", "score"} for ranked in entry["top"])
    whole = run("predict", FIXTURES / "shapes_resnet.onnx", INPUTS / "shape_star.png", "--json", "--top", 6)
    assert sum(ranked["score"] for ranked in whole.json["inputs"][0]["top"]) == pytest.approx(1, abs=1e-6)


def test_predict_says_what_outputs_hold_that_are_no_class_scores(run: Run) -> None:
    result = run("predict", FIXTURES / "conv3d.onnx", INPUTS / "conv3d.npy", "--json")
    assert result.code == 0
    outputs = result.json["inputs"][0]["outputs"]
    assert all(set(o) == {"name", "dtype", "shape", "min", "max", "mean"} for o in outputs)


def test_summary_json_has_its_keys_and_marks_one_default_layer(run: Run) -> None:
    result = run("summary", FIXTURES / "digits_convnet.onnx", "--json")
    keys = {"model", "ir_version", "opset", "producer", "parameters", "macs", "inputs", "outputs", "layers"}
    assert set(result.json) >= keys
    row = {"index", "name", "op_type", "output", "shape", "parameters", "macs", "scope", "cam_rank"}
    assert all(set(layer) >= row for layer in result.json["layers"])
    assert [layer["op_type"] for layer in result.json["layers"] if layer["cam_rank"] == 1] == ["MaxPool"]
    # 3*6*25+6 + 6*16*25+16 + 400*120+120 + 120*84+84 + 84*10+10
    assert result.json["parameters"] == 456 + 2416 + 48120 + 10164 + 850
    # outputs x inputs of a unit, layer by layer
    assert result.json["macs"] == 28 * 28 * 6 * 75 + 10 * 10 * 16 * 150 + 48000 + 10080 + 840


def test_cam_saves_raw_maps_by_method_with_their_meta(run: Run, tmp_path: Path) -> None:
    saved = tmp_path / "maps.npz"
    pictures = [INPUTS / "shape_star.png", INPUTS / "shape_cross.png"]
    methods = ["cam", "eigen-cam", "score-cam", "ablation-cam", "recipro-cam"]
    words = [word for method in methods for word in ("--method", method)]
    result = run("cam", FIXTURES / "shapes_resnet.onnx", *pictures, *words, "--save", saved, "-o", tmp_path, "--json")
    assert result.code == 0
    with np.load(saved) as stored:
        assert set(stored.files) == {*methods, "meta"}
        meta = json.loads(str(stored["meta"]))
        for method in methods:
            assert stored[method].dtype == np.float32
            assert stored[method].shape == (2, 8, 8)
        assert stored["cam"].min() < 0 < stored["cam"].max()  # raw and signed
    assert {k: v for k, v in result.json.items() if k != "figures"} == meta
    for entry in meta["methods"].values():
        assert set(entry) >= {"layer", "params", "passes", "seconds", "provider", "inputs"}
        assert entry["provider"] == "CPUExecutionProvider"
    assert [i["target"]["label"] for i in meta["methods"]["cam"]["inputs"]] == ["star", "cross"]
    assert [Path(p).name for p in result.json["figures"]] == ["shape_star-cam.png", "shape_cross-cam.png"]
    for path in result.json["figures"]:
        assert np.asarray(Image.open(path).convert("RGB")).std() > 20  # not blank


def test_cam_with_several_layers_names_each_result_by_both(run: Run, tmp_path: Path) -> None:
    saved = tmp_path / "maps.npz"
    words = ["--method", "eigen-cam", "--layer", "Relu:1", "--layer", "Relu:0", "--save", saved, "-o", tmp_path]
    assert run("cam", FIXTURES / "digits_convnet.onnx", INPUTS / "digit_3.png", *words).code == 0
    with np.load(saved) as stored:
        assert len([k for k in stored.files if k.startswith("eigen-cam@")]) == 2


def test_a_method_that_cannot_apply_is_skipped_with_its_reason(run: Run, tmp_path: Path) -> None:
    words = ["--method", "cam", "--method", "recipro-cam", "-o", tmp_path, "--json"]
    result = run("cam", FIXTURES / "digits_convnet.onnx", INPUTS / "digit_3.png", *words)
    assert result.code == 0
    assert set(result.json["methods"]) == {"recipro-cam"}
    assert "Gemm" in result.json["skipped"][0]["reason"]


def test_a_dead_network_is_said_to_be_flat(run: Run, tmp_path: Path) -> None:
    result = run("cam", FIXTURES / "dead.onnx", "random", "-o", tmp_path, "--method", "recipro-cam", "--json")
    assert result.code == 0
    assert result.json["methods"]["recipro-cam"]["inputs"][0]["flat"] is True
    assert result.json["methods"]["recipro-cam"]["inputs"][0]["peak"] is None


def test_activations_save_one_array_per_layer_with_the_batch_axis(run: Run, tmp_path: Path) -> None:
    saved = tmp_path / "trace.npz"
    net = FIXTURES / "digits_convnet.onnx"
    words = ["--layer", "Conv:0", "--layer", "Gemm:-1", "--save", saved, "-o", tmp_path, "--json"]
    result = run("activations", net, INPUTS / "digit_3.png", INPUTS / "digit_5.png", *words)
    assert result.code == 0
    names = [layer["layer"] for layer in result.json["layers"]]
    with np.load(saved) as stored:
        assert list(stored.files) == names
        assert [stored[name].shape for name in names] == [(2, 6, 28, 28), (2, 10)]
        session = ort.InferenceSession(net, providers=["CPUExecutionProvider"])
        pixels = np.stack([np.asarray(Image.open(INPUTS / f"digit_{d}.png"), np.float32) for d in (3, 5)])
        meta = json.loads(session.get_modelmeta().custom_metadata_map["onnx_inspect.preprocess"])
        x = (pixels * meta["scale"] - np.float32(meta["mean"])) / np.float32(meta["std"])
        feeds = {session.get_inputs()[0].name: x.transpose(0, 3, 1, 2).astype(np.float32)}
        np.testing.assert_allclose(stored[names[1]], session.run(None, feeds)[0], atol=1e-4)


def test_weights_json_describes_every_layer_with_weights(run: Run, tmp_path: Path) -> None:
    result = run("weights", FIXTURES / "digits_convnet.onnx", "-o", tmp_path, "--json")
    assert result.code == 0
    assert len(list(tmp_path.glob("*.png"))) == 5


def test_expose_writes_a_model_that_any_runtime_runs(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "open.onnx"
    assert run("expose", FIXTURES / "skip.onnx", "--layer", "Relu:0", "--layer", "Relu:0", "-o", out).code == 0
    before = ort.InferenceSession(FIXTURES / "skip.onnx", providers=["CPUExecutionProvider"])
    after = ort.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert len(after.get_outputs()) == len(before.get_outputs()) + 1


def test_failures_are_json_too(run: Run) -> None:
    result = run("predict", FIXTURES / "gap.onnx", "random", "--labels", "/nowhere/names.txt", "--json")
    assert result.code == 2
    assert set(result.json) == {"error"}
    assert set(result.json["error"]) == {"kind", "message"}
    assert len(result.err.splitlines()) == 1


def test_demo_draws_every_step_and_one_page_with_all(run: Run, tmp_path: Path) -> None:
    result = run("demo", "-o", tmp_path / "demo")
    assert result.code == 0
    page = (tmp_path / "demo" / "index.html").read_text()
    pictures = list((tmp_path / "demo").glob("*/*.png"))
    assert len(pictures) >= 12
    assert all(picture.relative_to(tmp_path / "demo").as_posix() in page for picture in pictures)


def test_every_command_has_help_with_an_example(run: Run) -> None:
    from onnx_inspect.cli.app import group

    for name in group.list_commands(None):  # type: ignore[arg-type]
        shown = run(name, "--help")
        assert shown.code == 0
        assert "Example:" in shown.out, name


def test_no_words_at_all_show_the_help(run: Run) -> None:
    shown = run()
    assert shown.code == 2
    assert "Commands:" in shown.out + shown.err
