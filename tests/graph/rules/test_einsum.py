"""Sums over indices: gradients against autograd, for what exporters emit and more."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from onnx_inspect.errors import LayerError
from onnx_inspect.graph.gradient import gradient
from onnx_inspect.graph.rules._rule import table
from tests.conftest import make_model
from tests.graph.rules.oracle import check

torch = pytest.importorskip("torch", reason="PyTorch's autograd is the oracle")
SIZES = {letter: size for letter, size in zip("bhijdn", (2, 2, 3, 4, 5, 3), strict=True)}


@pytest.mark.parametrize(
    "equation",
    [
        *("bhid,bhjd->bhij", "bhij,bhjd->bhid", "bid,bjd->bij", "ij,jd->id", "i,j->ij", "ij->ji", "ij->i", "ij->"),
        *("bid,d->bi", "bhid,hd->bhi", "ij,j", "ij,ij->", "bij,bjd,dn->bin", "bi,hj->bj", "hij,hjd->hid"),
    ],
)
def test_every_operand_has_pytorchs_gradient(equation: str) -> None:
    rng = np.random.default_rng(0)
    terms = equation.partition("->")[0].split(",")
    inputs = {f"x{i}": rng.normal(size=[SIZES[c] for c in term]) for i, term in enumerate(terms)}
    node = helper.make_node("Einsum", list(inputs), ["y"], equation=equation)
    check([node], inputs, lambda *v: torch.einsum(equation, *v))


@pytest.mark.parametrize("equation", ["...ij,...jd->...id", "b...d,dn->b...n", "...i,...i", "...ij->...ji"])
def test_an_ellipsis_stands_for_axes(equation: str) -> None:
    rng = np.random.default_rng(0)
    terms = equation.partition("->")[0].split(",")
    inputs = {}
    for i, term in enumerate(terms):
        head, dots, tail = term.partition("...")
        shape = [SIZES[c] for c in head] + ([2, 3] if dots else []) + [SIZES[c] for c in tail]
        inputs[f"x{i}"] = rng.normal(size=shape)
    node = helper.make_node("Einsum", list(inputs), ["y"], equation=equation)
    check([node], inputs, lambda *v: torch.einsum(equation, *v))


@pytest.mark.parametrize(
    ("equation", "shapes", "reason"),
    [("ii->i", [[3, 3]], "diagonal"), ("...i,...i->...", [[1, 3], [2, 3]], "ellipsis")],
)
def test_what_can_not_be_differentiated_is_named(equation: str, shapes: list[list[int]], reason: str) -> None:
    inputs = {f"x{i}": (np.float32, shape) for i, shape in enumerate(shapes)}
    model = make_model([helper.make_node("Einsum", list(inputs), ["y"], equation=equation, name="sum")], inputs, ["y"])
    with pytest.raises(LayerError, match=rf"'sum' \(Einsum\).*{reason}"):
        gradient(model, ["x0"], "y")


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".einsum")}
    assert rules == {"Einsum"}
