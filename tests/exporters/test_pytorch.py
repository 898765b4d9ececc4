"""Does an exported PyTorch network compute what the network computes, layer by layer, for any batch?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_inspect.engine import Engine
from onnx_inspect.graph.read import read
from onnx_inspect.graph.surgery import expose

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from exporters import pytorch  # noqa: E402  it needs torch

nn = torch.nn
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32, sums in another order


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: Any) -> Any:
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class Residual(nn.Module):
    """Blocks with BatchNorm and shortcuts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.blocks = nn.Sequential(Block(6), Block(6))
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Any) -> Any:
        return self.fc(self.blocks(torch.relu(self.stem(x))).mean((2, 3)))


class ViT(nn.Module):
    """An encoder layer of torch's own, then nn.MultiheadAttention that returns its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, 16))
        self.position = nn.Embedding(17, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Any) -> Any:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(tokens.shape[0], -1, -1), tokens], 1) + self.position(torch.arange(17))
        tokens = self.encoder(tokens)
        mixed, _ = self.attention(tokens, tokens, tokens, average_attn_weights=False)
        return self.head((tokens + mixed)[:, 0])


class Recurrent(nn.Module):
    """An LSTM both ways over embedded ids; a dictionary comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.lstm = nn.LSTM(8, 6, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(12, 3)

    def forward(self, ids: Any) -> Any:
        states, (last, _) = self.lstm(self.embedding(ids))
        return {"logits": self.fc(states[:, -1]), "last": last}


class InPlace(nn.Module):
    """One Relu used twice, in place, so that it overwrites what came before it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.drop, self.linear = nn.Dropout(), nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        x = self.drop(self.relu(self.bn(self.relu(self.conv(x)))))
        return self.linear(x.mean((2, 3)))


@dataclass(frozen=True)
class Case:
    make: Any
    input: str
    layers: tuple[str, ...]
    own: tuple[str, ...]  # names of the network's own outputs


CASES = {
    "residual": Case(Residual, "1,3,20,12", ("stem", "blocks.*"), ("output",)),
    "vit": Case(ViT, "1,3,16,16", ("patch", "attention", "encoder.layers.1*", "position"), ("output",)),
    "lstm": Case(Recurrent, "2,7:int64", ("embedding", "lstm"), ("logits", "last")),
    "inplace": Case(InPlace, "1,3,9,8", ("conv", "bn", "relu", "linear"), ("output",)),
}


@dataclass(frozen=True)
class Exported:
    case: Case
    network: Any
    path: Path
    report: Any


def make(case: Case) -> Any:
    """Seeded, with BatchNorm statistics that are not the initial ones."""
    torch.manual_seed(7)
    network = case.make()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network


@pytest.fixture(scope="module", params=[(name, legacy) for name in CASES for legacy in (False, True)], ids=str)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    name, legacy = request.param
    case = CASES[name]
    network = make(case)
    path = tmp_path_factory.mktemp(name) / "net.onnx"
    report = pytorch.export(network, input=case.input, layers=case.layers, out=path, legacy=legacy)
    return Exported(case, network.eval(), path, report)


def inputs(case: Case, n: int) -> Any:
    """New samples, unlike those that the exporter tried."""
    generator = torch.Generator().manual_seed(99)
    shape = (n, *(int(d) for d in case.input.partition(":")[0].split(",")[1:]))
    ids = case.input.endswith("int64")
    return torch.randint(0, 20, shape, generator=generator) if ids else torch.randn(shape, generator=generator)


def record(network: Any, x: Any) -> tuple[list[Any], dict[str, list[Any]]]:
    """Outputs, and what each module returned at each call, as PyTorch's own hooks see it."""
    seen: dict[str, list[Any]] = {}

    def keep(path: str) -> Any:
        def hook(_module: Any, _given: Any, result: Any) -> None:
            found = torch.utils._pytree.tree_leaves(result)
            seen.setdefault(path, []).extend(value.clone().numpy() for value in found if value is not None)

        return hook

    handles = [module.register_forward_hook(keep(path)) for path, module in network.named_modules() if path]
    with torch.no_grad():
        outputs = torch.utils._pytree.tree_leaves(network(x))
    for handle in handles:
        handle.remove()
    return [value.numpy() for value in outputs], seen


@pytest.mark.parametrize("n", [1, 5])
def test_outputs_are_pytorchs_own_for_any_batch(exported: Exported, n: int) -> None:
    x = inputs(exported.case, n)
    expected, _ = record(exported.network, x)
    found = Engine(read(exported.path)).run({"input": x.numpy()})
    for name, value in zip(exported.case.own, expected, strict=True):
        np.testing.assert_allclose(found[name], value, **CLOSE)


def test_layers_are_outputs_named_by_their_paths_and_hold_what_hooks_see(exported: Exported) -> None:
    x = inputs(exported.case, 4)
    _, seen = record(exported.network, x)
    model = read(exported.path)
    exposed = [o.name for o in model.outputs][len(exported.case.own) :]
    assert {name.split("#")[0].split(".")[0] for name in exposed} == {t.split(".")[0] for t in exported.case.layers}
    # PyTorch's position table has no batch axis, so everything is run in one piece.
    found = dict(zip(exposed, _run(exported.path, x, exposed), strict=True))
    for name, value in found.items():
        path, _, number = name.partition("#")
        np.testing.assert_allclose(value, seen[path][int(number or 0)], **CLOSE)


def _run(path: Path, x: Any, names: list[str]) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return list(session.run(names, {"input": x.numpy()}))


def test_modules_are_mapped_to_tensors_that_hold_their_values(exported: Exported, tmp_path: Path) -> None:
    x = inputs(exported.case, 3)
    _, seen = record(exported.network, x)
    model = read(exported.path)
    modules = json.loads(model.metadata["onnx_inspect.modules"])
    assert modules == exported.report.modules
    opened = tmp_path / "open.onnx"
    onnx.save_model(expose(model, modules.values()).proto, opened)
    names = list(dict.fromkeys(modules.values()))
    values = dict(zip(names, _run(opened, x, names), strict=True))
    for key, tensor in modules.items():
        path, _, number = key.partition("#")
        np.testing.assert_allclose(values[tensor], seen[path][int(number or 0)], **CLOSE)
        assert model.layer(key).output.name == tensor


def test_every_module_is_mapped_or_said_to_be_gone(exported: Exported) -> None:
    _, seen = record(exported.network, inputs(exported.case, 2))
    called = {key for key in seen}
    mapped = {key.split("#")[0] for key in exported.report.modules}
    gone = {key.split("#")[0] for key in exported.report.unmapped}
    assert mapped | gone == called
    # Only convolutions that a BatchNorm was folded into, and a state that nobody reads, have no tensor.
    assert {key for key in exported.report.unmapped if "conv" not in key} <= {"lstm#2"}


def test_the_reported_difference_is_small_and_covers_every_output(exported: Exported) -> None:
    assert set(exported.report.max_difference) == {o.name for o in read(exported.path).outputs}
    assert 0 <= max(exported.report.max_difference.values()) < 1e-5


def test_the_file_is_valid_and_its_batch_open(exported: Exported) -> None:
    onnx.checker.check_model(str(exported.path), full_check=True)
    model = read(exported.path)
    assert all(isinstance(spec.shape[0], str) for spec in model.inputs if spec.shape)
    assert model.opsets["ai.onnx"] == 18


def test_the_file_says_what_made_it_and_nothing_of_the_machine(exported: Exported) -> None:
    model = read(exported.path)
    versions = json.loads(model.metadata["onnx_inspect.versions"])
    assert model.metadata["onnx_inspect.framework"] == "pytorch"
    assert versions["pytorch"] == torch.__version__ and versions["onnx"] == onnx.__version__
    data = exported.path.read_bytes()
    assert str(Path(__file__).parent).encode() not in data and b"site-packages" not in data


def test_the_network_is_left_as_it_was(tmp_path: Path) -> None:
    network = make(CASES["lstm"]).train()
    network.fc.eval()
    network.fc.weight.requires_grad_(False)
    network(torch.zeros(2, 7, dtype=torch.int64))["logits"].sum().backward()
    grads = {name: None if p.grad is None else p.grad.clone() for name, p in network.named_parameters()}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    pytorch.export(network, input="2,7:int64", layers=["lstm"], out=tmp_path / "net.onnx")
    assert [m.training for m in network.modules()] == [m is not network.fc for m in network.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert torch.backends.mha.get_fastpath_enabled() == fast and torch.equal(torch.get_rng_state(), state)
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (name != "fc.weight")
        assert (parameter.grad is None) == (grads[name] is None)
        assert grads[name] is None or torch.equal(parameter.grad, grads[name])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network(torch.zeros(2, 7, dtype=torch.int64))["logits"].shape == (2, 3)
