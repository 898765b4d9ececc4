"""A PyTorch network is compared with its export layer by layer, without reading a name of the graph."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the exporter's own framework")
pytest.importorskip("onnxscript", reason="torch.onnx needs it")

from exporters import pytorch  # noqa: E402  it needs torch
from onnx_inspect.cli.app import main  # noqa: E402

MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.conv, self.relu, self.fc = nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        return self.fc(self.relu(self.conv(x) + x).mean((2, 3)))

def right():
    torch.manual_seed(0)
    net = Net()
    net.stem[1].running_mean.normal_()
    net.stem[1].running_var.uniform_(0.5, 2)
    return net.eval()

def wrong():
    net = right()
    with torch.no_grad():
        net.conv.weight[2] *= 3
    return net
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "complayers.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("complayers", None)


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    shown = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, shown.out, shown.err


def test_layers_hold_what_hooks_would_see_also_where_they_work_in_place() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(inplace=True), torch.nn.Identity())
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    trace = pytorch.layers(network)({"input": x})
    linear = x @ network[0].weight.detach().numpy().T + network[0].bias.detach().numpy()
    np.testing.assert_allclose(trace.values["0"], linear, rtol=1e-5, atol=1e-6)  # float32 sums
    np.testing.assert_allclose(trace.values["1"], np.maximum(linear, 0), rtol=1e-5, atol=1e-6)
    assert [(s.name, s.op_type, s.sources) for s in trace.steps] == [
        ("0", "Gemm", ("input",)),
        ("1", "Relu", ("0",)),
        ("2", "Identity", ("1",)),
    ]
    assert list(trace.outputs) == ["1"]


def test_the_network_stays_as_it_was() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.5)).train()
    pytorch.layers(network)({"input": np.ones((1, 4), np.float32)})
    assert network.training and not network[0]._forward_hooks


def test_a_network_agrees_with_its_export_and_a_changed_one_is_found_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, "export", "pytorch", "complayers:right", "--input", "1,3,16,16", "-o", "net.onnx")[0] == 0
    code, out, _ = call(capsys, "compare", "complayers:right", "net.onnx", "--json")
    found: Any = json.loads(out)
    assert code == 0 and found["culprit"] is None
    assert {pair["a"] for pair in found["matched"]} == {"stem.1", "stem.2", "conv", "relu", "fc"}
    assert all(pair["cosine"] > 0.999999 for pair in found["matched"])
    assert found["unmatched_a"] == ["stem.0"]  # folded with its normalisation
    code, out, _ = call(capsys, "compare", "complayers:wrong", "net.onnx", "--json", "--atol", "0.001")
    found = json.loads(out)
    assert code == 1
    assert found["culprit"]["a"] == "conv"
    assert "'conv'" in found["offence"]


def test_a_factory_that_is_not_there_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "export", "pytorch", "complayers:right", "--input", "1,3,16,16", "-o", "net.onnx")[0] == 0
    code, _, err = call(capsys, "compare", "complayers:none", "net.onnx", "-q")
    assert code == 2 and "complayers has no 'none'" in err
