"""Elementary functions: each derivative against autograd and differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from onnx_inspect.errors import LayerError
from onnx_inspect.graph.gradient import gradient
from onnx_inspect.graph.rules._rule import table
from tests.conftest import make_model
from tests.graph.rules.oracle import check

torch = pytest.importorskip("torch", reason="PyTorch's autograd is the oracle")

# By operator: PyTorch's function, and the interval to draw from.
CASES: dict[str, tuple[Any, float, float]] = {
    "Exp": (torch.exp, -3, 3),
    "Log": (torch.log, 0.1, 5),
    "Sqrt": (torch.sqrt, 0.1, 5),
    "Reciprocal": (torch.reciprocal, 0.2, 3),
    "Abs": (torch.abs, -2, 2),
    "Erf": (torch.erf, -2, 2),
    "Sin": (torch.sin, -6, 6),
    "Cos": (torch.cos, -6, 6),
    "Tan": (torch.tan, -1.2, 1.2),
    "Sinh": (torch.sinh, -2, 2),
    "Cosh": (torch.cosh, -2, 2),
    "Asin": (torch.asin, -0.9, 0.9),
    "Acos": (torch.acos, -0.9, 0.9),
    "Atan": (torch.atan, -3, 3),
    "Asinh": (torch.asinh, -3, 3),
    "Acosh": (torch.acosh, 1.2, 4),
    "Atanh": (torch.atanh, -0.9, 0.9),
}
FLAT = ("Floor", "Ceil", "Round", "Sign", "Hardmax")


@pytest.mark.parametrize("kind", CASES)
def test_elementary_functions_have_pytorchs_gradient(kind: str) -> None:
    formula, low, high = CASES[kind]
    x = np.random.default_rng(0).uniform(low, high, (2, 3, 4))
    check([helper.make_node(kind, ["x"], ["y"])], {"x": x}, formula)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.0, -1.5, 2.5])
def test_constant_powers_have_pytorchs_gradient(power: float) -> None:
    x = np.random.default_rng(0).uniform(0.2, 3, (2, 3))
    check(
        [helper.make_node("Pow", ["x", "p"], ["y"])],
        {"x": x},
        lambda x: torch.pow(x, power),
        constants={"p": np.array(power)},
    )


def test_whole_powers_of_negative_numbers_have_a_gradient() -> None:
    x = np.array([[-1.5, -0.5, 0.25, 2.0]])
    for power in (2, 3, 4):
        node = helper.make_node("Pow", ["x", "p"], ["y"])
        check([node], {"x": x}, lambda x, p=power: torch.pow(x, p), constants={"p": np.array(power)})


def test_the_exponent_of_a_power_has_a_gradient_and_may_be_broadcast() -> None:
    rng = np.random.default_rng(0)
    inputs = {"x": rng.uniform(0.2, 3, (2, 3, 4)), "p": rng.uniform(-2, 2, (3, 1))}
    check([helper.make_node("Pow", ["x", "p"], ["y"])], inputs, torch.pow)


def test_a_power_of_zero_at_zero_is_flat() -> None:
    x, powers = np.array([[0.0, 0.0, 2.0]]), np.array([0.0, 1.0, 0.0])
    check(
        [helper.make_node("Pow", ["x", "p"], ["y"])],
        {"x": x},
        lambda x: torch.pow(x, torch.tensor(powers, dtype=x.dtype)),
        constants={"p": powers},
        differences=False,
    )


def test_remainders_have_pytorchs_gradient() -> None:
    rng = np.random.default_rng(0)
    inputs = {"x": rng.uniform(-5, 5, (2, 6)), "d": rng.uniform(0.5, 2, (1, 6))}
    check([helper.make_node("Mod", ["x", "d"], ["y"], fmod=1)], inputs, torch.fmod)


def test_remainders_rounded_down_have_pytorchs_gradient() -> None:
    rng = np.random.default_rng(0)
    x, d = rng.uniform(-5, 5, (2, 6)), rng.uniform(0.5, 2, (2, 6))
    node = helper.make_node("Mod", ["x", "d"], ["y"])
    model = make_model([node], {"x": (np.float64, [2, 6]), "d": (np.float64, [2, 6])}, ["y"])
    built = gradient(model, ["x", "d"], "y")  # onnxruntime refuses it for real numbers, the standard does not
    made = ReferenceEvaluator(built.proto).run(None, {"x": x, "d": d, "seed": np.ones((2, 6))})
    leaves = [torch.tensor(v, requires_grad=True) for v in (x, d)]
    torch.remainder(*leaves).sum().backward()
    for value, leaf in zip(made[1:], leaves, strict=True):
        np.testing.assert_allclose(value, leaf.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("kind", FLAT)
def test_what_is_flat_is_named_in_the_error(kind: str) -> None:
    model = make_model([helper.make_node(kind, ["x"], ["y"], name="step")], {"x": (np.float32, [2, 3])}, ["y"])
    with pytest.raises(LayerError, match=rf"zero everywhere at node 'step' \({kind}\), which is flat"):
        gradient(model, ["x"], "y")


def test_a_way_around_what_is_flat_has_its_gradient() -> None:
    nodes = [helper.make_node("Floor", ["x"], ["f"]), helper.make_node("Sub", ["x", "f"], ["y"])]
    check(nodes, {"x": np.array([[0.25, 1.75, -0.5]])}, lambda x: x - torch.floor(x))


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".elementary")}
    assert rules == {*CASES, *FLAT, "Pow", "Mod"}
