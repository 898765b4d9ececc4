"""Whole networks as both of PyTorch's exporters write them: input and layer gradients equal PyTorch's own."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.graph.gradient import gradient, gradient_name
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read
from onnx_inspect.graph.surgery import expose
from tests.conftest import run_plainly

torch = pytest.importorskip("torch", reason="PyTorch writes the models, and its autograd is the oracle")
pytest.importorskip("onnxscript", reason="PyTorch's exporters need it")
from tests.networks import NETWORKS, Network  # noqa: E402  # it needs torch

EXPORTERS = ("legacy", "dynamo")
FAST = {("resnet18", "legacy"), ("vit", "legacy"), ("mobilenet", "legacy")}
# Of the gradient's norm: twice PyTorch's own float32 error, and what folding batch norms into weights adds.
FACTOR, FOLDING = 2.0, 2e-6


def export(net: Any, sample: Any, exporter: str, path: Path) -> Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "legacy":
            names = {"input_names": ["x"], "output_names": ["y"]}
            axes = {"x": {0: "N"}, "y": {0: "N"}}
            torch.onnx.export(net, (sample,), str(path), dynamo=False, opset_version=17, dynamic_axes=axes, **names)
        else:
            batch = torch.export.Dim("N", min=1, max=64)
            with io.StringIO() as log:
                import contextlib

                with contextlib.redirect_stdout(log):
                    torch.onnx.export(
                        net,
                        (sample,),
                        str(path),
                        dynamo=True,
                        input_names=["x"],
                        output_names=["y"],
                        dynamic_shapes=({0: batch},),
                        external_data=False,
                    )
    return read(path)


def autograd(
    network: Network, net: Any, x: Any, weights: NDArray[np.float64], dtype: Any
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """The layer's values and its gradient, and that of the input, of the outputs' weighted sum."""
    net, kept = net.to(dtype), {}

    def keep(module: Any, given: Any, made: Any) -> None:
        kept["layer"] = made[0] if isinstance(made, tuple) else made
        kept["layer"].retain_grad()

    hook = dict(net.named_modules())[network.layer].register_forward_hook(keep)
    leaf = x if network.tokens else x.to(dtype).clone().requires_grad_()
    (net(leaf) * torch.tensor(weights, dtype=dtype)).sum().backward()
    hook.remove()
    of_input = None if network.tokens else leaf.grad.double().numpy()
    return kept["layer"].detach().double().numpy(), kept["layer"].grad.double().numpy(), of_input


def tensor_of(model: Model, values: NDArray[Any], feeds: dict[str, Any]) -> str:
    """The tensor of a model that holds these values: exporters name layers in their own ways."""
    names = [la.output.name for la in model.layers if la.output.dtype == "float32"]
    found = run_plainly(expose(model, names), feeds, names)
    same = [n for n in names if found[n].shape == values.shape and np.allclose(found[n], values, atol=1e-4)]
    assert same, "no tensor holds the layer's values"
    return same[0]


def error(value: NDArray[Any], truth: NDArray[Any]) -> float:
    assert value.shape == truth.shape
    return float(np.linalg.norm(value - truth) / np.linalg.norm(truth))


@pytest.mark.parametrize(
    ("name", "exporter"),
    [
        pytest.param(name, exporter, marks=() if (name, exporter) in FAST else pytest.mark.slow)
        for name in NETWORKS
        for exporter in EXPORTERS
    ],
)
def test_gradients_of_a_network_are_pytorchs(name: str, exporter: str, tmp_path: Path) -> None:
    network = NETWORKS[name]
    net = network.net()
    model = export(net, network.inputs(2), exporter, tmp_path / "net.onnx")
    x = network.inputs(3, seed=5)  # another batch than the exporter saw
    feeds = {"x": x.numpy()}
    made = run_plainly(model, feeds, ["y"])["y"]
    weights = np.random.default_rng(0).normal(size=made.shape)
    _, own_layer, own_input = autograd(network, net, x, weights, torch.float32)
    values, true_layer, true_input = autograd(network, net, x, weights, torch.float64)
    layer = tensor_of(model, values, feeds)
    wanted = [layer] if network.tokens else [layer, "x"]
    found = run_plainly(
        gradient(model, wanted, "y"), feeds | {"seed": weights.astype(np.float32)}, [gradient_name(n) for n in wanted]
    )
    assert error(found[gradient_name(layer)], true_layer) <= FACTOR * error(own_layer, true_layer) + FOLDING
    if true_input is not None and own_input is not None:
        assert error(found[gradient_name("x")], true_input) <= FACTOR * error(own_input, true_input) + FOLDING
