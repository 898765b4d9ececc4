"""Reductions: gradients against autograd and differences, over axes given, dropped, kept or left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from onnx_inspect.graph.rules._rule import table
from tests.graph.rules.oracle import check, drawn

torch = pytest.importorskip("torch", reason="PyTorch's autograd is the oracle")

CASES: dict[str, Any] = {
    "ReduceSum": torch.sum,
    "ReduceMean": torch.mean,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
    "ReduceSumSquare": lambda x, axes, keep: (x * x).sum(axes, keep),
    "ReduceLogSum": lambda x, axes, keep: torch.log(x.sum(axes, keep)),
    "ReduceLogSumExp": torch.logsumexp,
    "ReduceProd": lambda x, axes, keep: product(x, axes, keep),
}
axes = st.lists(st.integers(-4, 3), min_size=1, max_size=3, unique_by=lambda a: a % 4)


def product(x: Any, over: Any, keep: bool) -> Any:
    for axis in sorted((a % x.ndim for a in over), reverse=True):
        x = x.prod(axis, keep)
    return x


@pytest.mark.parametrize("kind", CASES)
@drawn(8)
@given(over=axes, keep=st.booleans())
def test_reductions_have_pytorchs_gradient(kind: str, over: list[int], keep: bool) -> None:
    x = np.random.default_rng(0).uniform(0.3, 2, (2, 3, 2, 4))
    x = x if kind in ("ReduceLogSum", "ReduceProd") else x - 1.1
    node = helper.make_node(kind, ["x", "axes"], ["y"], keepdims=int(keep))
    check([node], {"x": x}, lambda x: CASES[kind](x, tuple(over), keep), constants={"axes": np.array(over)})


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("keep", [True, False])
def test_without_axes_all_is_reduced(kind: str, keep: bool) -> None:
    x = np.random.default_rng(0).uniform(0.5, 2, (2, 3, 2))
    node = helper.make_node(kind, ["x"], ["y"], keepdims=int(keep))
    check([node], {"x": x}, lambda x: CASES[kind](x, (0, 1, 2), keep))


@pytest.mark.parametrize("kind", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceProd"])
def test_no_axes_may_mean_no_reduction(kind: str) -> None:
    x = np.random.default_rng(0).uniform(0.5, 2, (2, 3))
    node = helper.make_node(kind, ["x", "axes"], ["y"], noop_with_empty_axes=1)
    check([node], {"x": x}, lambda x: x * 1, constants={"axes": np.array([], np.int64)})


@pytest.mark.parametrize("zeros", [1, 2])
def test_a_product_with_zeros_has_pytorchs_gradient(zeros: int) -> None:
    x = np.random.default_rng(0).uniform(0.5, 2, (2, 5))
    x[0, :zeros] = 0
    node = helper.make_node("ReduceProd", ["x", "axes"], ["y"])
    check([node], {"x": x}, lambda x: x.prod(1, True), constants={"axes": np.array([1])})


def test_a_norm_of_zeros_has_no_gradient_and_no_nan() -> None:
    node = helper.make_node("ReduceL2", ["x", "axes"], ["y"])
    x = np.array([[0.0, 0.0], [3.0, 4.0]])
    made = check(
        [node],
        {"x": x},
        lambda x: torch.linalg.vector_norm(x, 2, 1, True),
        constants={"axes": np.array([1])},
        differences=False,
    )
    np.testing.assert_array_equal(made["x"][0], 0)


def test_equal_maxima_share_the_gradient() -> None:
    node = helper.make_node("ReduceMax", ["x", "axes"], ["y"])
    x = np.array([[1.0, 1.0, 0.0], [2.0, 3.0, 3.0]])
    check([node], {"x": x}, lambda x: x.amax(1, True), constants={"axes": np.array([1])}, differences=False)


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".reduction")}
    assert rules == set(CASES)
