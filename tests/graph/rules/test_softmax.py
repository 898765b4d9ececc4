"""Softmax and LogSoftmax, in the sense of every operator set, against autograd and differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnx_inspect.graph.rules._rule import table
from tests.graph.rules.oracle import check

torch = pytest.importorskip("torch", reason="PyTorch's autograd is the oracle")
CASES: dict[str, Any] = {"Softmax": torch.softmax, "LogSoftmax": torch.log_softmax}


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("axis", [None, -1, 0, 1, 2, -2])
def test_softmax_has_pytorchs_gradient_along_any_axis(kind: str, axis: int | None) -> None:
    x = np.random.default_rng(0).normal(0, 3, (2, 3, 4))
    node = helper.make_node(kind, ["x"], ["y"], **({} if axis is None else {"axis": axis}))
    check([node], {"x": x}, lambda x: CASES[kind](x, -1 if axis is None else axis))


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("axis", [None, 0, 1, 2, 3])
def test_before_opset_13_all_later_axes_are_one(kind: str, axis: int | None) -> None:
    x = np.random.default_rng(0).normal(0, 3, (2, 3, 2, 2))
    first = 1 if axis is None else axis

    def formula(x: Any) -> Any:
        return CASES[kind](x.reshape(int(np.prod(x.shape[:first])), -1), 1).reshape(x.shape)

    node = helper.make_node(kind, ["x"], ["y"], **({} if axis is None else {"axis": axis}))
    check([node], {"x": x}, formula, opset=11, differences=False)  # the reference knows the new sense only


def test_large_logits_neither_overflow_nor_vanish() -> None:
    x = np.array([[200.0, 0.0, -200.0], [5.0, 5.0, 5.0]])
    for kind, formula in CASES.items():
        check([helper.make_node(kind, ["x"], ["y"])], {"x": x}, lambda x, f=formula: f(x, -1))


def test_hidden_rows_that_the_model_looks_after_have_no_nan() -> None:
    nodes = [
        helper.make_node("Add", ["x", "mask"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["shares"]),
        helper.make_node("IsNaN", ["shares"], ["empty"]),
        helper.make_node("Where", ["empty", "zero", "shares"], ["y"]),
    ]
    mask = np.array([[0.0, -np.inf, 0.0], [-np.inf, -np.inf, -np.inf]])
    x = np.random.default_rng(0).normal(size=(2, 3))

    def formula(x: Any) -> Any:
        return torch.cat([torch.softmax(x[:1] + torch.tensor(mask[:1]).to(x.dtype), -1), 0 * x[1:]])

    made = check(nodes, {"x": x}, formula, constants={"mask": mask, "zero": np.array(0.0)}, differences=False)
    np.testing.assert_array_equal(made["x"][1], 0)


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".softmax")}
    assert rules == set(CASES)
