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


@drawn(20)
@given(axis=st.integers(-2, 1), rows=st.integers(1, 3), columns=st.integers(1, 4), seed=st.integers(0, 99))
def test_numbers_are_added_up_where_they_came_from(axis: int, rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, 4))
    indices = rng.integers(-x.shape[axis], x.shape[axis], (rows, columns))
    places = torch.tensor(indices % x.shape[axis])
    node = helper.make_node("GatherElements", ["x", "i"], ["y"], axis=axis)
    check(
        [node],
        {"x": x},
        lambda x: x.gather(axis, places),
        constants={"i": indices},
        double=False,  # the reference has no negative indices where it adds
    )


@pytest.mark.parametrize("shape", [(2,), (3, 1), (2, 3, 2), (4, 3)])
def test_picked_slices_are_added_up(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4))
    indices = rng.integers(0, x.shape[: shape[-1]], shape)
    columns = [torch.tensor(indices[..., k]) for k in range(shape[-1])]
    node = helper.make_node("GatherND", ["x", "i"], ["y"])
    check([node], {"x": x}, lambda x: x[tuple(columns)], constants={"i": indices})


@pytest.mark.parametrize(
    ("batched", "shape"), [(1, (2, 1)), (1, (2, 3, 1)), (1, (2, 5, 2)), (2, (2, 3, 1)), (2, (2, 3, 4, 1))]
)
def test_slices_may_be_picked_for_each_sample(batched: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4, 2))
    indices = rng.integers(0, x.shape[batched : batched + shape[-1]], shape)

    def formula(x: Any) -> Any:
        rows, picks = x.reshape(-1, *x.shape[batched:]), indices.reshape(-1, *indices.shape[batched:])
        parts = [
            row[tuple(torch.tensor(pick[..., k]) for k in range(shape[-1]))]
            for row, pick in zip(rows, picks, strict=True)
        ]
        return torch.stack(parts).reshape(*x.shape[:batched], *parts[0].shape)

    node = helper.make_node("GatherND", ["x", "i"], ["y"], batch_dims=batched)
    check([node], {"x": x}, formula, constants={"i": indices}, double=False)


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("axis", [-1, 0])
def test_the_largest_get_their_gradients(largest: int, axis: int) -> None:
    x = np.random.default_rng(0).normal(size=(3, 5))
    node = helper.make_node("TopK", ["x", "k"], ["y", "i"], axis=axis, largest=largest)
    check(
        [node],
        {"x": x},
        lambda x: torch.topk(x, 2, axis, bool(largest)).values,
        constants={"k": np.array([2])},
        double=False,  # the reference's ScatterElements adds along axis 0 only
    )


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_what_was_chosen_goes_back(axis: int | None) -> None:
    x = np.random.default_rng(0).normal(size=(3, 4))
    chosen = np.array([True, False, True, *([False, True] if axis is None else [])])

    def formula(x: Any) -> Any:
        where = torch.tensor(np.flatnonzero(chosen))
        return x.flatten()[where] if axis is None else x.index_select(axis, where)

    node = helper.make_node("Compress", ["x", "c"], ["y"], **({} if axis is None else {"axis": axis}))
    check([node], {"x": x}, formula, constants={"c": chosen})


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".gathering")}
    assert rules == {"Gather", "GatherElements", "GatherND", "TopK", "Compress"}
