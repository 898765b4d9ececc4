"""Does `onnx-inspect export` write a checked file, report it, and fail in one line?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onnx_inspect.cli.app import main
from onnx_inspect.graph.read import read

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
        self.fc = nn.Linear(6, 2)

    def forward(self, x):
        print("shape", x.shape)
        return self.fc(self.layer1(x).mean((2, 3)))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "clinet.py").write_text(SOURCE)
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["export", "pytorch", *arguments])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_json_is_all_that_stdout_holds_even_when_the_network_prints(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(
        capsys, "clinet:Net", "--input", "1,3,8,8", "--layer", "layer1.*", "--preprocess", "signed",
        "--labels", "labels.txt", "--output-name", "logits", "--legacy", "-o", "net.onnx", "--json",
    )  # fmt: skip
    report = json.loads(out)
    assert code == 0 and "shape torch.Size" in err
    assert set(report["max_difference"]) == {"logits", "layer1.0", "layer1.1"}
    assert report["modules"]["layer1"] == "layer1.1"
    metadata = read("net.onnx").metadata
    assert json.loads(metadata["onnx_inspect.preprocess"])["size"] == [8, 8]
    assert json.loads(metadata["onnx_inspect.labels"]) == ["cat", "dog"]


def test_text_names_each_output_with_its_difference(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "clinet:Net", "--input", "1,3,8,8", "--layer", "fc", "-o", "net.onnx")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert [name for name, _ in rows] == ["output", "fc"]
    assert max(float(value) for _, value in rows) < 1e-5
    assert "net.onnx" in err and "modules named" in err


def test_weights_are_those_of_the_file(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    weights = {"layer1.0.weight": torch.zeros(6, 3, 3, 3), "layer1.0.bias": torch.ones(6)}
    weights |= {"fc.weight": torch.ones(2, 6), "fc.bias": torch.zeros(2)}
    torch.save(weights, folder / "net.pt")
    code, *_ = call(capsys, "clinet:Net", "--input", "1,3,8,8", "--weights", "net.pt", "--legacy", "-o", "net.onnx")
    from onnx_inspect.engine import Engine

    found = Engine(read("net.onnx")).run({"input": np.ones((1, 3, 8, 8), np.float32)})
    assert code == 0
    np.testing.assert_allclose(found["output"], [[6, 6]], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("clinet:Nope", "--input", "1,3,8,8"), 2, "clinet has no 'Nope'"),
        (("clinet:Net", "--input", "1,3,8,8", "--layer", "layer9"), 2, "closest: 'layer1'"),
        (("clinet:Net", "--input", "1,9,8,8"), 2, "can't take input (1, 9, 8, 8)"),
        (("clinet:Net", "--input", "1,3,8,8", "--tolerance", "0", "--legacy"), 4, "more than the tolerance of 0"),
        (("clinet:Net", "--input", "1,3,8,8", "--opset", "99", "--legacy"), 3, "PyTorch can't export"),
        (("clinet:Net", "--input", "1,3,8,8", "--labels", "none.txt"), 2, "none.txt: no such file"),
        (("clinet:Net",), 2, "Missing option '--input'"),
    ],
)
def test_failures_are_one_line_and_leave_no_file(
    capsys: pytest.CaptureFixture[str], folder: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    found, out, err = call(capsys, *arguments, "-o", "net.onnx", "--json")
    lines = [line for line in err.splitlines() if not line.startswith("shape ")]  # what the network itself prints
    assert found == code and len(lines) == 1 and message in lines[0]
    assert message in json.loads(out)["error"]["message"]
    assert not [p for p in folder.iterdir() if p.suffix == ".onnx"]


def test_an_unwritable_place_is_named(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "taken").mkdir()
    code, _, err = call(capsys, "clinet:Net", "--input", "1,3,8,8", "--legacy", "-o", "taken")
    assert code == 2 and "taken is a folder" in err


def test_an_unknown_framework_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["export", "abacus", "a:b", "--input", "1,2", "-o", "net.onnx"])
    assert stop.value.code == 2 and "pytorch" in capsys.readouterr().err
