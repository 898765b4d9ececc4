"""Writing by index: gradients of the data and of the updates against autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnx_inspect.errors import LayerError
from onnx_inspect.graph.gradient import gradient
from onnx_inspect.graph.rules._rule import table
from tests.conftest import make_model
from tests.graph.rules.oracle import check

torch = pytest.importorskip("torch", reason="PyTorch's autograd is the oracle")


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_written_numbers_take_over_the_gradient(axis: int) -> None:
    rng = np.random.default_rng(0)
    indices = np.array([[0, 2, 1]]) if axis == 0 else np.array([[3, 0], [1, 2]])
    inputs = {"x": rng.normal(size=(3, 4)), "u": rng.normal(size=indices.shape)}
    node = helper.make_node("ScatterElements", ["x", "i", "u"], ["y"], axis=axis)
    places = torch.tensor(indices)
    # the reference gathers from equal lengths only
    check([node], inputs, lambda x, u: x.scatter(axis, places, u), constants={"i": indices}, double=False)


def test_added_numbers_share_the_gradient_with_the_data() -> None:
    rng = np.random.default_rng(0)
    indices = np.array([[1, 1, 0]])
    inputs = {"x": rng.normal(size=(3, 4)), "u": rng.normal(size=indices.shape)}
    node = helper.make_node("ScatterElements", ["x", "i", "u"], ["y"], axis=0, reduction="add")
    places = torch.tensor(indices)
    check([node], inputs, lambda x, u: x.scatter_add(0, places, u), constants={"i": indices}, double=False)


@pytest.mark.parametrize("reduction", ["none", "add"])
@pytest.mark.parametrize("depth", [1, 2])
def test_written_slices_take_over_the_gradient(reduction: str, depth: int) -> None:
    rng = np.random.default_rng(0)
    indices = np.array([[2], [0]]) if depth == 1 else np.array([[2, 1], [0, 3]])
    inputs = {"x": rng.normal(size=(3, 4, 2)), "u": rng.normal(size=(2, 4, 2) if depth == 1 else (2, 2))}
    columns = tuple(torch.tensor(indices[:, k]) for k in range(depth))

    def formula(x: Any, u: Any) -> Any:
        return torch.index_put(x, columns, u, accumulate=reduction == "add")

    node = helper.make_node("ScatterND", ["x", "i", "u"], ["y"], reduction=reduction)
    check([node], inputs, formula, constants={"i": indices})


def test_other_reductions_are_refused_by_name() -> None:
    node = helper.make_node("ScatterND", ["x", "i", "u"], ["y"], reduction="mul", name="written")
    inputs = {"x": (np.float32, [3]), "u": (np.float32, [1])}
    model = make_model([node], inputs, ["y"], {"i": np.array([[1]])})
    with pytest.raises(LayerError, match=r"'written' \(ScatterND\).*reduction=mul"):
        gradient(model, ["x"], "y")


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("k", [-1, 0, 2])
def test_a_triangle_keeps_its_gradient(upper: int, k: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    node = helper.make_node("Trilu", ["x", "k"], ["y"], upper=upper)
    cut = torch.triu if upper else torch.tril
    check([node], {"x": x}, lambda x: cut(x, k), constants={"k": np.array(k)})


@pytest.mark.parametrize("batch", [0, 1])
def test_turned_sequences_are_turned_back(batch: int) -> None:
    x = np.random.default_rng(0).normal(size=(3, 3, 2))
    lengths = np.array([1, 3, 2])

    def formula(x: Any) -> Any:
        x = x if batch == 0 else x.transpose(0, 1)
        rows = [torch.cat([row[:n].flip(0), row[n:]]) for row, n in zip(x, lengths, strict=True)]
        return torch.stack(rows) if batch == 0 else torch.stack(rows).transpose(0, 1)

    node = helper.make_node("ReverseSequence", ["x", "n"], ["y"], batch_axis=batch, time_axis=1 - batch)
    check([node], {"x": x}, formula, constants={"n": lengths})


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".scattering")}
    assert rules == {"ScatterElements", "ScatterND", "Trilu", "ReverseSequence"}
