"""Padding and repeating: gradients against autograd, in every mode."""

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


def index(length: int, before: int, after: int, mode: str) -> list[int]:
    return np.pad(np.arange(length), (before, after), mode).tolist()


@pytest.mark.parametrize(("mode", "numpys"), [("reflect", "reflect"), ("edge", "edge"), ("wrap", "wrap")])
@pytest.mark.parametrize("pads", [[1, 0, 2, 0, 0, 1], [0, 2, 1, 1, 2, 2], [0, 0, 3, 0, 0, 0]])
def test_copies_are_added_to_their_originals(mode: str, numpys: str, pads: list[int]) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    pads = [min(p, x.shape[i % 3] - 1) for i, p in enumerate(pads)]

    def formula(x: Any) -> Any:
        for axis in range(3):
            where = index(x.shape[axis], pads[axis], pads[axis + 3], numpys)
            x = x.index_select(axis, torch.tensor(where))
        return x

    node = helper.make_node("Pad", ["x", "pads"], ["y"], mode=mode)
    check([node], {"x": x}, formula, opset=19, constants={"pads": np.array(pads)})


@drawn(25)
@given(pads=st.lists(st.integers(-1, 2), min_size=4, max_size=4), given_axes=st.booleans())
def test_constants_are_cut_off_and_what_was_cut_off_gets_zeros(pads: list[int], given_axes: bool) -> None:
    inputs = {"x": np.random.default_rng(0).normal(size=(3, 4)), "value": np.array(0.5)}
    axes = [1, 0] if given_axes else [0, 1]
    constants = {"pads": np.array(pads)} | ({"axes": np.array([-1, 0])} if given_axes else {})
    lows, highs = dict(zip(axes, pads[:2], strict=True)), dict(zip(axes, pads[2:], strict=True))

    def formula(x: Any, value: Any) -> Any:
        inner = x[max(-lows[0], 0) : 3 + min(highs[0], 0), max(-lows[1], 0) : 4 + min(highs[1], 0)]
        sides = [max(p, 0) for p in (lows[1], highs[1], lows[0], highs[0])]
        inside = torch.nn.functional.pad(torch.ones_like(inner), sides)
        return torch.nn.functional.pad(inner, sides) + value * (1 - inside)

    node = helper.make_node("Pad", ["x", "pads", "value", *(["axes"] if given_axes else [])], ["y"])
    check([node], inputs, formula, constants=constants, double=min(pads) >= 0)  # the reference can't cut


def test_pads_may_be_known_only_when_the_model_runs() -> None:
    for mode in ("constant", "reflect"):
        nodes = [helper.make_node("Pad", ["x", "pads"], ["y"], mode=mode)]
        model = make_model(nodes, {"x": (np.float32, [None, None]), "pads": (np.int64, [4])}, ["y"])
        built = gradient(model, ["x"], "y")
        x, pads = np.ones((2, 4), np.float32), np.array([0, 1, 1, 2])
        feeds = {"x": x, "pads": pads, "seed": np.ones((3, 7), np.float32)}
        made = run_plainly(built, feeds, ["x__gradient"])["x__gradient"]
        copies = np.zeros((2, 4)) if mode == "reflect" else np.ones((2, 4))
        if mode == "reflect":
            rows, columns = index(2, 0, 1, mode), index(4, 1, 2, mode)
            np.add.at(copies, np.ix_(rows, columns), 1)
        np.testing.assert_array_equal(made, copies)


@drawn(15)
@given(shape=st.lists(st.integers(1, 3), min_size=1, max_size=3), data=st.data())
def test_repeats_are_added_up(shape: list[int], data: st.DataObject) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    repeats = data.draw(st.lists(st.integers(1, 3), min_size=len(shape), max_size=len(shape)))
    node = helper.make_node("Tile", ["x", "repeats"], ["y"])
    check([node], {"x": x}, lambda x: x.repeat(repeats), constants={"repeats": np.array(repeats)})


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".padding")}
    assert rules == {"Pad", "Tile"}
