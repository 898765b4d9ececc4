"""Joining and cutting: gradients against autograd, over axes, steps, signs and lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from onnx_inspect.graph.gradient import gradient
from onnx_inspect.graph.rules._rule import table
from tests.conftest import make_model, run_plainly
from tests.graph.rules.oracle import check, drawn

torch = pytest.importorskip("torch", reason="PyTorch's autograd is the oracle")


@drawn(15)
@given(axis=st.integers(-3, 2), lengths=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_what_was_joined_gets_its_part_back(axis: int, lengths: list[int]) -> None:
    rng = np.random.default_rng(0)
    shape = [2, 3, 2]
    inputs = {}
    for i, length in enumerate(lengths):
        shape[axis] = length
        inputs[f"x{i}"] = rng.normal(size=shape)
    check([helper.make_node("Concat", list(inputs), ["y"], axis=axis)], inputs, lambda *v: torch.cat(v, axis))


def test_a_tensor_joined_to_itself_gets_both_parts() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3))
    check([helper.make_node("Concat", ["x", "x"], ["y"], axis=0)], {"x": x}, lambda x: torch.cat([x, x]))


@pytest.mark.parametrize("used", [(0,), (1,), (0, 2), (0, 1, 2)])
def test_parts_that_nothing_reads_get_zeros(used: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=(2, 7, 2))
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["a", "b", "c"], axis=1),
        helper.make_node("Concat", [f"{'abc'[i]}" for i in reversed(used)], ["y"], axis=1),
    ]

    def formula(x: Any) -> Any:
        parts = torch.split(x, [2, 1, 4], 1)
        return torch.cat([parts[i] for i in reversed(used)], 1)

    check(nodes, {"x": x}, formula, constants={"sizes": np.array([2, 1, 4])})


def test_even_parts_need_no_sizes() -> None:
    x = np.random.default_rng(0).normal(size=(2, 6))
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b", "c"], axis=1, num_outputs=3),
        helper.make_node("Mul", ["a", "c"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["y"]),
    ]
    check(nodes, {"x": x}, lambda x: x[:, :2] * x[:, 4:] + x[:, 2:4])


@st.composite
def cuts(draw: st.DrawFn) -> tuple[list[int], list[slice]]:
    """A shape, and for some of its axes a slice that isn't empty."""
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    slices = []
    for length in shape:
        where = slice(
            draw(st.integers(-length - 2, length + 1)),
            draw(st.one_of(st.integers(-length - 2, length + 2), st.just(2**31))),
            draw(st.sampled_from([1, 1, 2, 3, -1, -2])),
        )
        slices.append(where if len(range(length)[where]) else slice(0, length, 1))
    return shape, slices


@drawn(60)
@given(cut=cuts())
def test_what_was_cut_out_is_put_back(cut: tuple[list[int], list[slice]]) -> None:
    shape, slices = cut
    x = np.random.default_rng(0).normal(size=shape)
    places = [list(range(n))[s] for n, s in zip(shape, slices, strict=True)]

    def formula(x: Any) -> Any:
        for axis, where in enumerate(places):
            x = x.index_select(axis, torch.tensor(where))
        return x

    constants = {
        "starts": np.array([s.start for s in slices]),
        "ends": np.array([s.stop for s in slices]),
        "axes": np.arange(len(shape)) - len(shape),
        "steps": np.array([s.step for s in slices]),
    }
    check([helper.make_node("Slice", ["x", *constants], ["y"])], {"x": x}, formula, constants=constants)
    if all(s.step == 1 for s in slices):
        del constants["steps"], constants["axes"]
        check([helper.make_node("Slice", ["x", *constants], ["y"])], {"x": x}, formula, constants=constants)


def test_where_a_cut_starts_may_be_known_only_when_the_model_runs() -> None:
    nodes = [helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["y"])]
    inputs = {"x": (np.float32, [None, None]), "starts": (np.int64, [1]), "ends": (np.int64, [1])}
    built = gradient(make_model(nodes, inputs, ["y"], {"axes": np.array([1])}), ["x"], "y")
    for start, end in ((1, 3), (-2, 9), (0, -1)):
        feeds = {"x": np.ones((2, 5), np.float32), "starts": np.array([start]), "ends": np.array([end])}
        expected = np.zeros((2, 5))
        expected[:, start:end] = 1
        seed = np.ones_like(expected[:, start:end], np.float32)
        made = run_plainly(built, feeds | {"seed": seed}, ["x__gradient"])["x__gradient"]
        np.testing.assert_array_equal(made, expected)


def test_which_axes_are_cut_may_be_known_only_when_the_model_runs() -> None:
    nodes = [helper.make_node("Slice", ["x", "starts", "ends", "axes", "steps"], ["y"])]
    shapes = {n: (np.int64, [1]) for n in ("starts", "ends", "axes", "steps")}
    built = gradient(make_model(nodes, {"x": (np.float32, [3, 5])} | shapes, ["y"]), ["x"], "y")
    for where, axis in ((slice(1, 3, 1), 1), (slice(4, 0, -2), 1), (slice(0, 3, 2), 0)):
        x = np.ones((3, 5), np.float32)
        values = {"starts": where.start, "ends": where.stop, "axes": axis, "steps": where.step}
        cut = (slice(None), where) if axis else (where,)
        expected = np.zeros((3, 5))
        expected[cut] = 1
        feeds = {"x": x, "seed": np.ones_like(x[cut])} | {n: np.array([v]) for n, v in values.items()}
        np.testing.assert_array_equal(run_plainly(built, feeds, ["x__gradient"])["x__gradient"], expected)


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".slicing")}
    assert rules == {"Concat", "Split", "Slice"}
