"""Operators that change shape or order only: gradients against autograd."""

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
CASES: dict[str, tuple[str, list[int] | None, dict[str, Any], Any]] = {
    "reshape": ("Reshape", [2, -1], {}, lambda x: x.reshape(2, -1)),
    "reshape-copying": ("Reshape", [0, -1, 1], {}, lambda x: x.reshape(2, -1, 1)),
    "flatten": ("Flatten", None, {"axis": 2}, lambda x: x.reshape(6, -1)),
    "flatten-all": ("Flatten", None, {"axis": 0}, lambda x: x.reshape(1, -1)),
    "squeeze": ("Squeeze", [2], {}, lambda x: x.squeeze(2)),
    "squeeze-all": ("Squeeze", None, {}, lambda x: x.squeeze()),
    "unsqueeze": ("Unsqueeze", [0, -1], {}, lambda x: x[None, ..., None]),
    "transpose": ("Transpose", None, {"perm": [2, 0, 3, 1]}, lambda x: x.permute(2, 0, 3, 1)),
    "transpose-all": ("Transpose", None, {}, lambda x: x.permute(3, 2, 1, 0)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_takes_the_old_shape(case: str) -> None:
    kind, argument, attributes, formula = CASES[case]
    x = np.random.default_rng(0).normal(size=(2, 3, 1, 4))
    constants = {} if argument is None else {"argument": np.array(argument)}
    node = helper.make_node(kind, ["x", *constants], ["y"], **attributes)
    # onnx infers a wrong rank where any axis might be one to squeeze
    check([node], {"x": x}, formula, constants=constants, open_axes=case != "squeeze-all")


@drawn(20)
@given(
    shape=st.lists(st.sampled_from([1, 1, 2, 3]), min_size=0, max_size=3), more=st.lists(st.integers(1, 3), max_size=2)
)
def test_what_was_repeated_is_summed(shape: list[int], more: list[int]) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    target = [*more, *(d if d > 1 else 4 for d in shape)]
    node = helper.make_node("Expand", ["x", "shape"], ["y"])
    check([node], {"x": x}, lambda x: x.expand(target), constants={"shape": np.array(target, np.int64)})


@pytest.mark.parametrize("opset", [7, 11, 12])
def test_older_forms_are_upgraded_first(opset: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 1, 4))
    nodes = [
        helper.make_node("Squeeze", ["x"], ["s"], axes=[2]),
        helper.make_node("Unsqueeze", ["s"], ["u"], axes=[0]),
        helper.make_node("ReduceSum", ["u"], ["y"], axes=[1], keepdims=0),
    ]
    check(nodes, {"x": x}, lambda x: x.squeeze(2)[None].sum(1), opset=opset, differences=False)


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".reshaping")}
    assert rules == {kind for kind, *_ in CASES.values()} | {"Expand"}
