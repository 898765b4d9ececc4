"""Guided backpropagation, FullGrad, ShapleyCAM and completeness against PyTorch and their own identities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_inspect.errors import MethodError
from onnx_inspect.graph.biases import biases
from onnx_inspect.graph.read import read
from onnx_inspect.inputs.read import read as read_inputs
from onnx_inspect.methods import attribute
from onnx_inspect.scene import Scene, scene
from onnx_inspect.targets import parse
from tests.cli.conftest import run  # noqa: F401  # the fixture

torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
FIXTURES = Path(__file__).parents[2] / "fixtures"
STAR = FIXTURES / "inputs" / "shape_star.png"


def nets() -> dict[str, Any]:
    """Small networks in float64's reach: rectifiers alone, and a tail that bends."""
    nn = torch.nn
    torch.manual_seed(0)

    def body(act: type[Any]) -> list[Any]:
        bn = nn.BatchNorm2d(6)
        with torch.no_grad():
            for values in (bn.weight, bn.bias, bn.running_mean, bn.running_var):
                values.copy_(torch.rand(6) + 0.2)
        return [nn.Conv2d(3, 6, 3, padding=1), bn, act(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), act()]

    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 16)]
    return {
        "relu": nn.Sequential(*body(nn.ReLU), *tail, nn.ReLU(), nn.Linear(16, 4)),
        "relu6": nn.Sequential(*body(nn.ReLU6), *tail, nn.ReLU6(), nn.Linear(16, 4)),
        "silu": nn.Sequential(*body(nn.SiLU), *tail, nn.SiLU(), nn.Linear(16, 4)),
    }


def exported(name: str, folder: Path, layer: str | None = None) -> tuple[Any, Scene]:
    net = nets()[name].eval()
    path = folder / f"{name}.onnx"
    torch.onnx.export(
        net,
        (torch.zeros(1, 3, 10, 12),),
        str(path),
        dynamo=False,
        opset_version=17,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        input_names=["x"],
        dynamic_axes={"x": {0: "n"}},
    )
    model = read(path)
    array = np.random.default_rng(0).normal(size=(2, 3, 10, 12)).astype(np.float32)
    np.save(folder / "x.npy", array)
    batch = read_inputs(model.inputs, [str(folder / "x.npy")], metadata=model.metadata)
    return net, scene(model, batch, layer=layer, target=parse("2", None)[0])


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize("name", ["relu", "relu6"])
def test_guided_backpropagation_is_pytorchs_with_hooks_at_every_rectifier(name: str, tmp_path: Path) -> None:
    net, view = exported(name, tmp_path)
    for module in net:
        if isinstance(module, torch.nn.ReLU | torch.nn.ReLU6):
            module.inplace = False
            module.register_full_backward_hook(lambda _, given, __: (given[0].clamp(min=0),))
    x = torch.tensor(view.batch.arrays["x"], requires_grad=True)
    net(x)[:, 2].sum().backward()
    # relu(mask g) = mask relu(g): clamping behind the rule, as hooks do, is clamping before it
    expected = x.grad.abs().amax(1).numpy()
    found = attribute(view, "guided-backprop").values
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * expected.max())  # sums in float32
    assert np.abs(found - attribute(view, "saliency").values).max() > 0.01 * expected.max()


def test_shares_of_input_and_biases_add_up_to_the_score_of_a_network_of_rectifiers(tmp_path: Path) -> None:
    net, view = exported("relu", tmp_path)
    found = attribute(view, "full-grad")
    assert found.account is not None and found.account.total is not None
    np.testing.assert_allclose(found.account.total, found.account.change, rtol=1e-5)
    score = net(torch.tensor(view.batch.arrays["x"]))[:, 2].detach().numpy()
    np.testing.assert_allclose(found.account.change, score, rtol=1e-5)


def test_shares_of_another_activation_leave_a_gap_that_is_said(tmp_path: Path) -> None:
    found = attribute(exported("silu", tmp_path)[1], "full-grad")
    assert found.account is not None and found.account.total is not None
    assert np.abs(found.account.total / found.account.change - 1).min() > 1e-3


def test_full_grad_is_the_sum_of_its_scaled_layers(tmp_path: Path) -> None:
    """Against PyTorch: gradients by the outputs of every layer with a bias, times the bias."""
    net, view = exported("relu", tmp_path)
    x = torch.tensor(view.batch.arrays["x"][:1], requires_grad=True)
    kept, value = [], x
    for module in net:
        value = module(value)
        if isinstance(module, torch.nn.Conv2d | torch.nn.BatchNorm2d):
            value.retain_grad()
            kept.append((module, value))
    value[0, 2].backward()

    def psi(share: Any) -> Any:
        share = share.abs()
        share = share - share.min()
        share = (share / share.max()).sum(1, keepdim=True)
        return torch.nn.functional.interpolate(share, x.shape[2:], mode="bilinear", align_corners=False)[0, 0]

    expected = psi((x * x.grad).detach())
    for module, made in kept:
        bias = module.bias
        if isinstance(module, torch.nn.BatchNorm2d):
            bias = bias - module.running_mean * module.weight / (module.running_var + module.eps).sqrt()
        expected = expected + psi((bias[None, :, None, None] * made.grad).detach())
    found = attribute(view, "full-grad").values[0]
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5 * float(expected.max()))


def test_every_bias_is_found_also_the_one_that_normalisation_implies(tmp_path: Path) -> None:
    net, view = exported("relu", tmp_path)
    model = view.context.model
    ranks = {name: len(shape) for name, shape in view.context.shapes.items()}
    found = biases(model, "x", view.sections.tensors[0], ranks)
    assert [bias.values.size for bias in found] == [6, 6, 8, 16, 4]
    implied = net[1].bias - net[1].running_mean * net[1].weight / (net[1].running_var + net[1].eps).sqrt()
    np.testing.assert_allclose(found[1].values.ravel(), implied.detach().numpy(), rtol=1e-5)


def test_shapley_cam_is_pytorchs_hessian_product(tmp_path: Path) -> None:
    net, view = exported("silu", tmp_path, layer="Mul:0")
    with torch.no_grad():
        a = net[:3](torch.tensor(view.batch.arrays["x"]))
    a = a.double().requires_grad_()
    first = torch.autograd.grad(net[3:].double()(a)[:, 2].sum(), a, create_graph=True)[0]
    second = torch.autograd.grad(first, a, grad_outputs=a.detach())[0]
    assert float(second.abs().max()) > 1e-3 * float(first.detach().abs().max())
    weights = (first - 0.5 * second).mean((2, 3), keepdim=True)
    expected = (weights * a).sum(1).detach().numpy()
    found = attribute(view, "shapley-cam").values
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())  # float32


def test_shapley_cam_on_a_piecewise_linear_tail_is_grad_cam() -> None:
    model = read(FIXTURES / "shapes_resnet.onnx")
    batch = read_inputs(model.inputs, [str(STAR)], metadata=model.metadata)
    view = scene(model, batch, layer="Relu:2", target=parse("0", batch.labels)[0])
    np.testing.assert_allclose(attribute(view, "shapley-cam").values, attribute(view, "grad-cam").values, rtol=1e-6)


def test_shapley_cam_refuses_a_target_that_bends_itself() -> None:
    model = read(FIXTURES / "shapes_resnet.onnx")
    batch = read_inputs(model.inputs, [str(STAR)], metadata=model.metadata)
    view = scene(model, batch, target=parse(f"similar:@{FIXTURES / 'inputs' / 'shape_cross.png'}", batch.labels)[0])
    if view.fixed.linear:
        pytest.fail("a likeness is no sum of outputs")
    with pytest.raises(MethodError, match="second derivatives are for sums"):
        attribute(view, "shapley-cam")


def test_completeness_is_said_in_notes_json_and_under_the_picture(run: Any, tmp_path: Path) -> None:  # noqa: F811
    result = run(
        "cam",
        FIXTURES / "shapes_resnet.onnx",
        STAR,
        "--method",
        "integrated-gradients",
        *("--json", "-o", tmp_path, "--save", tmp_path / "maps.npz"),
    )
    assert result.code == 0, result.err
    said = result.json["methods"]["integrated-gradients"]["inputs"][0]["completeness"]
    with np.load(tmp_path / "maps.npz") as saved:
        maps = dict(saved)
    assert said["sum"] == pytest.approx(float(maps["integrated-gradients"].sum(dtype=np.float64)), rel=1e-5)
    assert said["gap"] == pytest.approx(said["change"] - said["sum"], abs=1e-9)
    assert abs(said["gap"]) < 0.05 * abs(said["change"])
    line = f"shares: {said['sum']:.4g} of {said['change']:.4g}, off {abs(said['gap'] / said['change']):.1%}"
    assert line in result.err
    stored = json.loads(str(maps["meta"]))
    assert stored["methods"]["integrated-gradients"]["inputs"][0]["completeness"] == said
