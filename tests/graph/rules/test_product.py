"""Matrix products: gradients against autograd and differences, over ranks, transpositions and broadcast stacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from onnx import helper

from onnx_inspect.graph.rules._rule import table
from tests.graph.rules.oracle import check, drawn

torch = pytest.importorskip("torch", reason="PyTorch's autograd is the oracle")


@drawn(30)
@given(shapes=mutually_broadcastable_shapes(signature=np.matmul.signature, max_dims=2, max_side=3))
def test_stacks_of_matrices_and_vectors_have_pytorchs_gradient(shapes: Any) -> None:
    rng = np.random.default_rng(0)
    inputs = {name: rng.normal(size=shape) for name, shape in zip("ab", shapes.input_shapes, strict=True)}
    check([helper.make_node("MatMul", ["a", "b"], ["y"])], inputs, torch.matmul)


@pytest.mark.parametrize(
    ("one", "other"),
    [((4,), (4,)), ((4,), (2, 4, 3)), ((2, 3, 4), (4,)), ((5, 1, 3, 4), (2, 4, 2)), ((3, 4), (2, 1, 4, 2))],
)
def test_vectors_and_stacks_meet_in_all_ways(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    inputs = {"a": rng.normal(size=one), "b": rng.normal(size=other)}
    check([helper.make_node("MatMul", ["a", "b"], ["y"])], inputs, torch.matmul)


def test_a_square_has_both_gradients() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 3))
    check([helper.make_node("MatMul", ["x", "x"], ["y"])], {"x": x}, lambda x: x @ x)


@drawn(24)
@given(
    turned=st.tuples(st.booleans(), st.booleans()),
    scales=st.sampled_from([(1.0, 1.0), (0.5, 2.0), (-1.5, 0.25)]),
    bias=st.sampled_from([None, (), (1,), (3,), (1, 3), (2, 1), (2, 3)]),
)
def test_gemm_has_pytorchs_gradient(
    turned: tuple[bool, bool], scales: tuple[float, float], bias: tuple[int, ...] | None
) -> None:
    rng = np.random.default_rng(0)
    inputs = {
        "a": rng.normal(size=(4, 2) if turned[0] else (2, 4)),
        "b": rng.normal(size=(3, 4) if turned[1] else (4, 3)),
    }
    if bias is not None:
        inputs["c"] = rng.normal(size=bias)

    def formula(a: Any, b: Any, c: Any = 0) -> Any:
        return scales[0] * ((a.T if turned[0] else a) @ (b.T if turned[1] else b)) + scales[1] * c

    settings = {"transA": int(turned[0]), "transB": int(turned[1]), "alpha": scales[0], "beta": scales[1]}
    check([helper.make_node("Gemm", list(inputs), ["y"], **settings)], inputs, formula)


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".product")}
    assert rules == {"MatMul", "Gemm"}
