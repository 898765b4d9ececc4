"""The commands and the Python in README.md work as they stand."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import run  # noqa: F401  # the fixture

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
STANDINGS = {  # what README calls by a reader's names
    "net.onnx": ROOT / "fixtures" / "shapes_resnet.onnx",
    "net.int8.onnx": ROOT / "fixtures" / "int8_qdq.onnx",
    "net_int8.onnx": ROOT / "fixtures" / "int8_qdq.onnx",
    "cross.png": ROOT / "fixtures" / "inputs" / "shape_cross.png",
    "cat.jpg": ROOT / "fixtures" / "inputs" / "shape_star.png",
    "vit.onnx": ROOT / "fixtures" / "digits_vit.onnx",
    "reviews.onnx": ROOT / "fixtures" / "sentiment.onnx",
    "digits.onnx": ROOT / "fixtures" / "digits_convnet.onnx",
    "digits.npz": ROOT / "fixtures" / "inputs" / "digits.npz",
    "teacher.onnx": ROOT / "fixtures" / "digits_convnet.onnx",
    "student.onnx": ROOT / "fixtures" / "digits_vit.onnx",
    "epoch1.onnx": ROOT / "fixtures" / "digits_convnet_epoch1.onnx",
    "epoch3.onnx": ROOT / "fixtures" / "digits_convnet_epoch3.onnx",
}
Run = Callable[..., Any]


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.S)
    lines = [line.split("  #")[0].split(" # ")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("onnx-inspect")]


def test_there_are_commands_to_test() -> None:
    assert len(commands()) >= 8


@pytest.mark.parametrize("line", commands())
def test_command_works(line: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.chdir(tmp_path)
    if "--text" in line:
        pytest.importorskip("tokenizers")
    digits = tmp_path / "digits"
    digits.mkdir()
    for picture in (ROOT / "fixtures" / "inputs").glob("digit_*.png"):
        shutil.copy(picture, digits)
    if " captured/ " in line and "capture " not in line:
        data = (str(STANDINGS["digits.onnx"]), str(STANDINGS["digits.npz"]), "--layer", "Relu:-1")
        assert run("capture", *data, "-o", "captured").code == 0
    if "export pytorch" in line:
        pytest.importorskip("torch")
        monkeypatch.syspath_prepend(str(ROOT))
        line = line.replace("my.models:resnet", "fixtures.networks:ShapesResNet")
    (tmp_path / "names.txt").write_text(
        "\n".join(["circle", "square", "triangle", "star", "cross", "tabby, tabby cat"])
    )
    words = [str(STANDINGS.get(word, word)) for word in shlex.split(line)[1:]]
    if "tabby, tabby cat" in words:
        words += ["--labels", "names.txt"]
    if "export" in words:
        words[words.index("-o") + 1] = "made.onnx"
    result = run(*words)
    assert result.code == 0, result.err


def test_python_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        names: dict[str, Any] = {"np": np}
        exec(block, names)  # the reader's own lines
        assert len(names) > 2
