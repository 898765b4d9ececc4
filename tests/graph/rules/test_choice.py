"""Operators that choose: what is chosen gets the gradient, as PyTorch has it, ties included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from onnx import helper

from onnx_inspect.graph.rules._rule import table
from tests.graph.rules.oracle import check, drawn

torch = pytest.importorskip("torch", reason="PyTorch's autograd is the oracle")


@pytest.mark.parametrize("kind", ["Max", "Min"])
@drawn(10)
@given(shapes=mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3))
def test_the_more_extreme_operand_gets_the_gradient(kind: str, shapes: Any) -> None:
    rng = np.random.default_rng(0)
    inputs = {name: rng.normal(size=shape) for name, shape in zip("ab", shapes.input_shapes, strict=True)}
    formula = torch.maximum if kind == "Max" else torch.minimum
    check([helper.make_node(kind, ["a", "b"], ["y"])], inputs, formula)


def test_equal_operands_share_the_gradient() -> None:
    tied = {"a": np.array([[1.0, 2.0, 0.0]]), "b": np.array([[1.0, -2.0, 0.0]])}
    check([helper.make_node("Max", ["a", "b"], ["y"])], tied, torch.maximum, differences=False)


def test_a_maximum_of_one_or_three_has_pytorchs_gradient() -> None:
    rng = np.random.default_rng(0)
    inputs = {name: rng.normal(size=(2, 3)) for name in "abc"}
    check([helper.make_node("Max", ["a"], ["y"])], {"a": inputs["a"]}, lambda a: a * 1)
    node = helper.make_node("Max", list(inputs), ["y"])
    check([node], inputs, lambda *v: torch.amax(torch.stack(v), 0))


@drawn(10)
@given(shapes=mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3))
def test_where_gives_each_side_its_own(shapes: Any) -> None:
    rng = np.random.default_rng(0)
    chosen, one, other = shapes.input_shapes
    condition = rng.random(chosen) < 0.5
    inputs = {"a": rng.normal(size=one), "b": rng.normal(size=other)}
    check(
        [helper.make_node("Where", ["c", "a", "b"], ["y"])],
        inputs,
        lambda a, b: torch.where(torch.tensor(condition), a, b),
        constants={"c": condition},
    )


@pytest.mark.parametrize("bounds", [(-0.5, 0.5), (None, 0.5), (-0.5, None), (None, None)])
def test_clip_cuts_the_gradient_off(bounds: tuple[float | None, float | None]) -> None:
    x = np.random.default_rng(0).normal(size=(3, 5))
    names = [name if bound is not None else "" for name, bound in zip(("low", "high"), bounds, strict=True)]
    constants = {name: np.array(b) for name, b in zip(("low", "high"), bounds, strict=True) if b is not None}

    def formula(x: Any) -> Any:
        return torch.clamp(x, *bounds) if any(b is not None for b in bounds) else x * 1

    check([helper.make_node("Clip", ["x", *names], ["y"])], {"x": x}, formula, constants=constants)


def test_at_its_bounds_clip_is_pytorchs_clamp_and_from_0_to_6_its_relu6() -> None:
    node = helper.make_node("Clip", ["x", "low", "high"], ["y"])
    for low, high, formula in ((0.0, 1.0, lambda x: torch.clamp(x, 0, 1)), (0.0, 6.0, torch.nn.functional.relu6)):
        x, constants = np.array([[low, high, 0.5, -1.0, 7.0]]), {"low": np.array(low), "high": np.array(high)}
        check([node], {"x": x}, formula, constants=constants, differences=False)


def test_bounds_get_what_they_cut_off() -> None:
    inputs = {"x": np.random.default_rng(0).normal(size=(3, 5)), "low": np.array(-0.5), "high": np.array(0.5)}
    check([helper.make_node("Clip", ["x", "low", "high"], ["y"])], inputs, torch.clamp)


def test_bounds_that_cross_leave_the_upper_one() -> None:
    inputs = {"x": np.random.default_rng(0).normal(size=(3, 5)), "low": np.array(0.5), "high": np.array(-0.5)}
    made = check([helper.make_node("Clip", ["x", "low", "high"], ["y"])], inputs, lambda x, a, b: x * 0 + a * 0 + b)
    np.testing.assert_array_equal(made["x"], 0)


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".choice")}
    assert rules == {"Max", "Min", "Where", "Clip"}
