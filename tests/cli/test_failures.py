"""Bad input gives one line that says what, where and what to do, the right exit code, and no half-written file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FIXTURES = Path(__file__).parents[2] / "fixtures"
REAL = Path(__file__).parents[3] / "shared" / "real"
NET = FIXTURES / "shapes_resnet.onnx"
STAR = FIXTURES / "inputs" / "shape_star.png"
Run = Callable[..., Any]

CASES = {
    "missing model": (["summary", "nowhere.onnx"], 3, "nowhere.onnx"),
    "missing input": (["predict", NET, "nowhere.png"], 2, "nowhere.png"),
    "no input": (["predict", NET], 2, "no input given"),
    "wrong layer": (["cam", NET, STAR, "--layer", "node_rellu_8"], 2, "closest: 'node_relu_8'"),
    "layer without maps": (["cam", NET, STAR, "--layer", "Gemm:0"], 2, "layers that do"),
    "unknown method": (["cam", NET, STAR, "--method", "magic"], 2, "recipro-cam"),
    "unknown parameter": (["cam", NET, STAR, "--param", "depth=3"], 2, "no parameter 'depth'"),
    "parameter without value": (["cam", NET, STAR, "--param", "gaussian"], 2, "KEY=VALUE"),
    "no such class": (["cam", NET, STAR, "--target", "99"], 2, "class 99"),
    "no such label": (["cam", NET, STAR, "--target", "sqare"], 2, "'square'"),
    "unknown preset": (["predict", NET, STAR, "--preprocess", "imagnet"], 2, "imagenet"),
    "no CUDA": (["predict", NET, STAR, "--providers", "cuda"], 4, "--allow-fallback"),
    "no model option": (["expose", NET, "-o", "x.onnx"], 2, "--layer"),
    "unknown command": (["explain", NET], 2, "explain"),
    "unwritable folder": (["cam", NET, STAR, "-o", "/proc/nowhere"], 2, "/proc/nowhere"),
    "one file for two figures": (["cam", NET, STAR, STAR, "-o", "one.png"], 2, "2 figures"),
    "no such output": (["predict", NET, STAR, "--output", "logit"], 2, "logits"),
    "a class for a model without": (["cam", FIXTURES / "linear.onnx", "random"], 2, "no layer with maps"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_the_right_exit_code(case: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words, code, telling = CASES[case]
    result = run(*words, "--quiet") if words[0] != "explain" else run(*words)
    assert result.code == code, result.err
    lines = result.err.splitlines()
    assert len(lines) == 1, result.err
    assert telling in lines[0]
    assert "Traceback" not in result.err
    assert result.out == ""
    assert list(tmp_path.rglob("*")) == []


def test_wrong_shapes_and_types_are_refused(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((1, 3, 64, 65), np.float32))
    np.save(tmp_path / "text.npy", np.array(["a", "b"]))
    for name in ("wide.npy", "text.npy"):
        result = run("predict", NET, tmp_path / name, "--quiet")
        assert result.code == 2
        assert len(result.err.splitlines()) == 1
        assert name in result.err or "input" in result.err


def test_a_failure_leaves_an_older_result_as_it_was(run: Run, tmp_path: Path) -> None:
    kept = tmp_path / "maps.npz"
    kept.write_bytes(b"precious")
    result = run("cam", NET, STAR, "--method", "cam", "--layer", "Relu:0", "--save", kept, "-o", tmp_path, "--quiet")
    assert result.code == 2
    assert kept.read_bytes() == b"precious"
    assert [path.name for path in tmp_path.iterdir()] == ["maps.npz"]


@pytest.mark.parametrize("command", ["summary", "predict", "cam", "activations", "weights"])
def test_every_broken_file_fails_in_one_line(command: str, run: Run, tmp_path: Path) -> None:
    if not (REAL / "broken").is_dir():
        pytest.skip(f"{REAL} is not here")
    for path in sorted((REAL / "broken").iterdir()):
        inputs = [] if command in ("summary", "weights") else ["random"]
        words = [] if command in ("summary", "predict") else ["-o", tmp_path]
        result = run(command, path, *inputs, *words, "--quiet")
        assert result.code == 3, (path.name, result.err)
        assert len(result.err.splitlines()) == 1, result.err
        assert path.name in result.err or path.stem in result.err


def test_json_errors_carry_their_kind(run: Run) -> None:
    result = run("cam", NET, STAR, "--layer", "nothing", "--json", "--quiet")
    assert json.loads(result.out)["error"]["kind"] == "LayerError"
