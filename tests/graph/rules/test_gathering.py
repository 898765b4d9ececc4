"""Picking by index: gradients against autograd, over axes, shapes and signs of the indices."""

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


@drawn(40)
@given(axis=st.integers(-3, 2), shape=st.sampled_from([(), (1,), (3,), (1, 1), (2, 2), (1, 3)]), data=st.data())
def test_what_was_picked_is_added_up_where_it_came_from(axis: int, shape: tuple[int, ...], data: st.DataObject) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    length, count = x.shape[axis], int(np.prod(shape))
    picked = np.array(data.draw(st.lists(st.integers(-length, length - 1), min_size=count, max_size=count)), np.int64)
    indices = picked.reshape(shape)

    def formula(x: Any) -> Any:
        rows = x.index_select(axis, torch.tensor(picked % length))
        first = axis % 3
        return rows.reshape(*x.shape[:first], *shape, *x.shape[first + 1 :])

    node = helper.make_node("Gather", ["x", "i"], ["y"], axis=axis)
    check([node], {"x": x}, formula, constants={"i": indices})
    check([node], {"x": x}, formula, constants={"i": indices.astype(np.int32)})


def test_rules_of_the_file_are_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".gathering")}
    assert "Gather" in rules
