"""Does the PyTorch exporter do what its options say, and refuse clearly what it can't do?"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_inspect.engine import Engine
from onnx_inspect.errors import InputError, InspectError, LayerError, MissingExtra, ModelError, RunError
from onnx_inspect.graph.read import read
from onnx_inspect.inputs.labels import read_labels
from onnx_inspect.inputs.preprocess import Preprocess
from onnx_inspect.inputs.resolve import resolve

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from exporters import pytorch  # noqa: E402  it needs torch

nn = torch.nn

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.fc = nn.Linear(width, 4)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))

def wide():
    print("made")
    return Net(8)

def needy(width):
    return Net(width)

net = Net()
number = 3
"""


def small() -> Any:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 4, 5))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder that holds ``ownnet.py`` and is not importable otherwise."""
    (tmp_path / "ownnet.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "ownnet", raising=False)
    return tmp_path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "net.onnx"


def fast(model: Any, out: Path, **options: Any) -> Any:
    """Export the quick way, for what doesn't depend on the way."""
    return pytorch.export(model, **{"input": (1, 3, 6, 6), "out": out, "legacy": True, **options})


@pytest.mark.parametrize("source", ["ownnet:Net", "ownnet:wide", "ownnet:net"])
def test_a_source_is_a_class_a_factory_or_a_module_of_the_current_folder(folder: Path, out: Path, source: str) -> None:
    paths = list(sys.path)
    assert fast(source, out).path == out
    assert read(out).outputs[0].shape == ("batch", 4)
    assert sys.path == paths


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("ownnet", "write module.path:factory"),
        ("nowhere:Net", "can't import 'nowhere'"),
        ("ownnet:Nothing", "ownnet has no 'Nothing'; it has: torch, nn, Net"),
        ("ownnet:needy", "failed when called without arguments"),
        ("ownnet:number", "gave a int, not a torch.nn.Module"),
    ],
)
def test_a_source_that_makes_no_network_is_named(folder: Path, out: Path, source: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        fast(source, out)


@pytest.mark.parametrize("nest", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_come_from_a_state_dict_or_a_checkpoint(tmp_path: Path, out: Path, nest: Any, prefix: str) -> None:
    trained, x = small(), torch.randn(2, 3, 6, 6)
    file = tmp_path / "weights.pt"
    torch.save(nest({prefix + name: value + 1 for name, value in trained.state_dict().items()}), file)
    fast(small(), out, weights=file)
    trained.load_state_dict({name: value + 1 for name, value in trained.state_dict().items()})
    found = Engine(read(out)).run({"input": x.numpy()})["output"]
    np.testing.assert_allclose(found, trained(x).detach().numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"0.weight": torch.zeros(4, 3, 3, 3)}, "it holds no '0.bias'"),
        (small().state_dict() | {"extra": torch.zeros(1)}, "'extra', which the model lacks"),
        (small().state_dict() | {"3.bias": torch.zeros(7)}, "'3.bias' of shape (7,) where the model has (5,)"),
        ([1, 2], "holds no state_dict"),
    ],
)
def test_weights_that_do_not_fit_are_said_to(tmp_path: Path, out: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=re.escape(message)):
        fast(small(), out, weights=tmp_path / "weights.pt")


def test_a_pickled_network_is_not_unpickled(folder: Path, out: Path) -> None:
    torch.save(small(), folder / "whole.pt")
    with pytest.raises(InputError, match=r"holds no plain weights.*save model.state_dict\(\)"):
        fast(small(), out, weights=folder / "whole.pt")
    with pytest.raises(InputError, match="no such file"):
        fast(small(), out, weights=folder / "missing.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_difference_above_the_tolerance_leaves_no_file(out: Path, legacy: bool) -> None:
    with pytest.raises(RunError, match=r"differs from Sequential by .* nothing was written"):
        pytorch.export(small(), input=(1, 3, 6, 6), out=out, legacy=legacy, tolerance=1e-12)
    assert list(out.parent.iterdir()) == []
    out.write_text("precious")
    with pytest.raises(RunError):
        pytorch.export(small(), input=(1, 3, 6, 6), out=out, legacy=legacy, tolerance=1e-12)
    assert out.read_text() == "precious"


class Sampled(nn.Module):
    """Something else at every run: no export can be right."""

    def forward(self, x: Any) -> Any:
        return x + torch.rand_like(x)


def test_a_network_that_draws_random_numbers_is_refused(out: Path) -> None:
    with pytest.raises(RunError, match="differs from Sampled"):
        fast(Sampled(), out)


class Frozen(nn.Module):
    """The number of samples is taken for a constant while tracing."""

    def forward(self, x: Any) -> Any:
        return x.reshape(int(x.shape[0]) * 3, -1).sum(1)


def test_a_batch_size_written_into_the_trace_is_noticed(out: Path) -> None:
    with pytest.raises(InspectError):
        fast(Frozen(), out)
    assert not out.exists()
    fast(Frozen(), out, dynamic=False, input=(2, 3, 6, 6))
    assert read(out).inputs[0].shape == (2, 3, 6, 6)


class Branching(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * 2 if x.sum() > -1e9 else x


def test_a_branch_that_tracing_froze_is_noted(out: Path) -> None:
    (note,) = fast(Branching(), out).notes
    assert Path(__file__).name in note and "Python boolean" in note
    with pytest.raises(ModelError, match="PyTorch can't export the model"):
        pytorch.export(Branching(), input=(1, 3, 6, 6), out=out)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_failing_export_prints_nothing(out: Path, legacy: bool, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match=r"opset 99|onnx_opset_version: 99"):
        pytorch.export(small(), input=(1, 3, 6, 6), out=out, legacy=legacy, opset=99)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("opset", "legacy"), [(11, True), (20, False)])
def test_the_opset_asked_for_is_the_one_in_the_file(out: Path, opset: int, legacy: bool) -> None:
    pytorch.export(small(), input=(1, 3, 6, 6), out=out, opset=opset, legacy=legacy)
    assert read(out).opsets["ai.onnx"] == opset


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.table = nn.Conv2d(3, 5, 3), nn.Embedding(4, 5)

    def forward(self, image: Any, facts: Any, ids: Any) -> Any:
        pooled = self.conv(image).mean((2, 3))
        return pooled + facts.sum(1, keepdim=True), self.table(ids).mean(1) * pooled


@pytest.mark.parametrize("legacy", [False, True])
def test_several_inputs_keep_the_names_that_forward_gives_them(out: Path, legacy: bool) -> None:
    network = Two()
    shapes = ["1,3,6,6", (1, 4), "1,7:int64"]
    pytorch.export(network, input=shapes, out=out, legacy=legacy, outputs=["scores"])
    model = read(out)
    assert [s.name for s in model.inputs] == ["image", "facts", "ids"]
    assert [s.name for s in model.outputs] == ["scores", "output_1"]
    given = {"image": torch.randn(3, 3, 6, 6), "facts": torch.randn(3, 4), "ids": torch.randint(0, 4, (3, 7))}
    found = Engine(model).run({name: value.numpy() for name, value in given.items()})
    for name, expected in zip(("scores", "output_1"), network(**given), strict=True):
        np.testing.assert_allclose(found[name], expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_sample_of_the_users_own_is_what_is_checked(out: Path) -> None:
    network = nn.Embedding(50, 4)
    report = fast(network, out, input=torch.tensor([[49, 7], [3, 12]]))
    assert report.samples == 5
    assert fast(small(), out, input=np.ones((1, 3, 6, 6), np.float32)).samples == 4


@pytest.mark.parametrize("given", ["a,b", "1,0,3", "", (), "1,3:strange", 7])
def test_an_input_that_is_no_shape_is_refused(out: Path, given: Any) -> None:
    with pytest.raises(InputError, match="is no shape: write positive numbers, batch first"):
        fast(small(), out, input=given)


def test_a_shape_that_does_not_fit_is_named(out: Path) -> None:
    with pytest.raises(InputError, match=r"Sequential can't take input \(1, 5, 6, 6\)"):
        fast(small(), out, input=(1, 5, 6, 6))
    with pytest.raises(InputError, match=r"Two takes 3 inputs \(image, facts, ids\), 4 were given"):
        fast(Two(), out, input=[(1, 3), (1, 3), (1, 3), (1, 3)])


def test_a_layer_that_is_no_module_suggests_the_nearest(out: Path) -> None:
    with pytest.raises(LayerError, match=r"layer 'tabel' is no module of Two.*closest: 'table'"):
        fast(Two(), out, input=["1,3,6,6", "1,4", "1,7:int64"], layers=["tabel"])


def test_a_module_that_is_never_called_is_no_layer(out: Path) -> None:
    network = small()
    network[0].spare = nn.Linear(2, 2)
    with pytest.raises(LayerError, match=r"layer '0.spare' .* its forward is never called"):
        fast(network, out, layers=["0.spare"])


class Crowded(nn.Module):
    """A module named as PyTorch names the value of an unrelated operation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU()

    def forward(self, x: Any) -> Any:
        return self.relu(self.conv(torch.relu(x)) - 0.1)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_layer_keeps_its_name_when_another_value_has_it(out: Path, legacy: bool) -> None:
    network = Crowded()
    pytorch.export(network, input=(1, 3, 6, 6), layers=["relu"], out=out, legacy=legacy)
    x = torch.randn(2, 3, 6, 6)
    found = Engine(read(out)).run({"input": x.numpy()})
    np.testing.assert_allclose(found["relu"], network(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    onnx.checker.check_model(str(out), full_check=True)


def test_names_that_would_clash_are_refused(out: Path) -> None:
    with pytest.raises(InputError, match="'conv' would name two values"):
        fast(Crowded(), out, layers=["conv"], outputs=["conv"])
    with pytest.raises(InputError, match="'input' would name two values"):
        fast(Crowded(), out, outputs=["input"])
    with pytest.raises(InputError, match="2 output names were given, Crowded has 1"):
        fast(Crowded(), out, outputs=["a", "b"])


def test_preprocessing_and_labels_are_read_back_from_the_file(out: Path) -> None:
    values = {"size": [6, 6], "resize": "crop", "layout": "NCHW", "colour": "BGR", "scale": 0.5}
    stamped = Preprocess.from_json({**values, "mean": [1.0, 2.0, 3.0], "std": 1})
    fast(small(), out, preprocess=stamped, labels=["a", "b", "c", "d", "é"])
    model = read(out)
    assert resolve(None, model.inputs[0], model.metadata)[0] == stamped
    assert read_labels(None, model.metadata) == ("a", "b", "c", "d", "é")
    fast(small(), out, preprocess=stamped.to_json())
    assert resolve(None, read(out).inputs[0], read(out).metadata)[0] == stamped


def test_half_precision_is_exported_as_it_is(out: Path) -> None:
    network = small().half()
    report = fast(network, out, input="1,3,6,6:float16", layers=["0"], tolerance=5e-3)
    assert [s.dtype for s in (*read(out).inputs, *read(out).outputs)] == ["float16"] * 3
    assert report.modules["0"] == "0"


def test_missing_pytorch_names_the_extra(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=re.escape("needs torch: pip install 'onnx-inspect[torch]'")):
        fast("ownnet:Net", out)


def test_a_seed_decides_the_sample(out: Path) -> None:
    differences = [fast(small(), out, seed=seed).max_difference["output"] for seed in (0, 0, 1, 2, 3, 4)]
    assert differences[0] == differences[1]
    assert len(set(differences)) > 1


def test_the_report_is_plain_json(out: Path) -> None:
    report = fast(small(), out, layers=["1"])
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert data["path"] == str(out) and set(data["max_difference"]) == {"output", "1"}
