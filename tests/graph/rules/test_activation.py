"""Activation functions: each derivative against autograd and differences, away from kinks and at them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnx_inspect.graph.rules._rule import table
from tests.graph.rules.oracle import check

torch = pytest.importorskip("torch", reason="PyTorch's autograd is the oracle")
F = torch.nn.functional


def selu(x: Any) -> Any:
    """With the standard's constants, which are those of PyTorch rounded to float32."""
    gamma, alpha = 1.05070102214813232421875, 1.67326319217681884765625
    return gamma * torch.where(x > 0, x, alpha * (torch.exp(x) - 1))


CASES: dict[str, tuple[str, dict[str, Any], Any, int]] = {
    "relu": ("Relu", {}, F.relu, 18),
    "leaky": ("LeakyRelu", {}, lambda x: F.leaky_relu(x, 0.01), 18),
    "leaky-steep": ("LeakyRelu", {"alpha": 1.5}, lambda x: F.leaky_relu(x, 1.5), 18),
    "leaky-negative": ("LeakyRelu", {"alpha": -0.5}, lambda x: F.leaky_relu(x, -0.5), 18),
    "elu": ("Elu", {}, F.elu, 18),
    "elu-alpha": ("Elu", {"alpha": 0.25}, lambda x: F.elu(x, 0.25), 18),
    "selu": ("Selu", {}, selu, 18),
    "celu": ("Celu", {"alpha": 0.5}, lambda x: F.celu(x, 0.5), 18),
    "gelu": ("Gelu", {}, F.gelu, 20),
    "gelu-tanh": ("Gelu", {"approximate": "tanh"}, lambda x: F.gelu(x, approximate="tanh"), 20),
    "sigmoid": ("Sigmoid", {}, torch.sigmoid, 18),
    "hard-sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, F.hardsigmoid, 18),
    "hard-sigmoid-default": ("HardSigmoid", {}, lambda x: torch.clamp(0.2 * x + 0.5, 0, 1), 18),
    "hard-swish": ("HardSwish", {}, F.hardswish, 18),
    "mish": ("Mish", {}, F.mish, 18),
    "softplus": ("Softplus", {}, F.softplus, 18),
    "softsign": ("Softsign", {}, F.softsign, 18),
    "tanh": ("Tanh", {}, torch.tanh, 18),
    "thresholded": ("ThresholdedRelu", {"alpha": 0.4}, lambda x: F.threshold(x, 0.4, 0.0), 18),
    "swish": ("Swish", {}, F.silu, 24),
    "swish-alpha": ("Swish", {"alpha": 1.75}, lambda x: x * torch.sigmoid(1.75 * x), 24),
    "hard-shrink": ("Shrink", {"lambd": 0.5}, lambda x: F.hardshrink(x, 0.5), 18),
    "soft-shrink": ("Shrink", {"lambd": 0.5, "bias": 0.5}, lambda x: F.softshrink(x, 0.5), 18),
}


@pytest.mark.parametrize("case", CASES)
def test_activations_have_pytorchs_gradient(case: str) -> None:
    kind, attributes, formula, opset = CASES[case]
    x = np.random.default_rng(0).normal(0, 2, (2, 3, 5))
    check([helper.make_node(kind, ["x"], ["y"], **attributes)], {"x": x}, formula, opset=opset)


@pytest.mark.parametrize("case", ["relu", "leaky", "elu", "selu", "celu", "hard-shrink", "thresholded"])
def test_the_derivative_at_a_kink_is_pytorchs(case: str) -> None:
    kind, attributes, formula, opset = CASES[case]
    kink = attributes.get("lambd", attributes.get("alpha", 0.0) if kind == "ThresholdedRelu" else 0.0)
    x = np.array([[kink, -kink, 0.0, 1.0]])
    check([helper.make_node(kind, ["x"], ["y"], **attributes)], {"x": x}, formula, opset=opset, differences=False)


@pytest.mark.parametrize("shape", [(3, 1, 1), (1,), (2, 3, 4, 4)])
def test_the_slope_of_prelu_has_a_gradient(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    inputs = {"x": rng.normal(size=(2, 3, 4, 4)), "s": rng.normal(size=shape)}
    node = helper.make_node("PRelu", ["x", "s"], ["y"])
    check([node], inputs, lambda x, s: torch.where(x > 0, x, x * s))


def test_a_saturated_gelu_has_no_nan() -> None:
    x = np.array([[-30.0, 30.0, -1e-8, 0.0]])
    for attributes, formula in (({}, F.gelu), ({"approximate": "tanh"}, lambda x: F.gelu(x, approximate="tanh"))):
        node = helper.make_node("Gelu", ["x"], ["y"], **attributes)
        check([node], {"x": x}, formula, opset=20)


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".activation")}
    assert rules == {kind for kind, *_ in CASES.values()} | {"PRelu"}
