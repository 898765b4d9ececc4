"""Operators of classical models: gradients against autograd of their formulas."""

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
ML = (helper.make_opsetid("ai.onnx.ml", 3),)
# onnx's reference has them in float32.
ALIKE: dict[str, Any] = {"double": False, "opsets": ML}
W = np.array([[0.5, -1.0, 2.0, 0.25], [1.5, 0.5, -0.5, 1.0], [-1.0, 0.75, 0.5, -0.25]])
B = np.array([0.5, -0.25, 1.0])


def made(kind: str, outputs: list[str] | None = None, **attributes: Any) -> Any:
    return helper.make_node(kind, ["x"], outputs or ["y"], domain="ai.onnx.ml", name="node", **attributes)


def x() -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(0).uniform(0.5, 2, (3, 4))


def test_scaled_columns() -> None:
    node = made("Scaler", scale=[0.5, 2.0, 1.0, 4.0], offset=[1.0, 0.0, 0.5, 2.0])
    scale, offset = torch.tensor([0.5, 2.0, 1.0, 4.0]), torch.tensor([1.0, 0.0, 0.5, 2.0])
    check([node], {"x": x()}, lambda x: (x - offset) * scale, **ALIKE)


@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
def test_rows_divided_by_a_norm(norm: str) -> None:
    sizes = {
        "MAX": lambda x: x.amax(1, keepdim=True),
        "L1": lambda x: x.abs().sum(1, keepdim=True),
        "L2": lambda x: torch.linalg.vector_norm(x, 2, 1, True),
    }
    check([made("Normalizer", norm=norm)], {"x": x()}, lambda x: x / sizes[norm](x), **ALIKE)


@pytest.mark.parametrize("missing", [0.0, float("nan")])
def test_what_was_missing_has_no_gradient(missing: float) -> None:
    values = x()
    values[0, 1] = missing
    node = made("Imputer", imputed_value_floats=[1.0, 2.0, 3.0, 4.0], replaced_value_float=missing)
    filled = torch.tensor([1.0, 2.0, 3.0, 4.0])

    def formula(x: Any) -> Any:
        return torch.where(torch.isnan(x) if np.isnan(missing) else x == missing, filled.to(x.dtype), x)

    assert check([node], {"x": values}, formula, **ALIKE)["x"][0, 1] == 0


def test_linear_functions() -> None:
    node = made("LinearRegressor", coefficients=W.ravel().tolist(), intercepts=B.tolist(), targets=3)
    check([node], {"x": x()}, lambda x: x @ torch.tensor(W, dtype=x.dtype).T + torch.tensor(B, dtype=x.dtype), **ALIKE)


@pytest.mark.parametrize("squash", ["NONE", "LOGISTIC", "SOFTMAX"])
def test_scores_of_classes(squash: str) -> None:
    settings = {"coefficients": W.ravel().tolist(), "intercepts": B.tolist(), "classlabels_ints": [0, 1, 2]}
    node = made("LinearClassifier", ["label", "y"], post_transform=squash, multi_class=1, **settings)
    ends = {"NONE": lambda s: s, "LOGISTIC": torch.sigmoid, "SOFTMAX": lambda s: torch.softmax(s, -1)}

    def formula(x: Any) -> Any:
        return ends[squash](x @ torch.tensor(W, dtype=x.dtype).T + torch.tensor(B, dtype=x.dtype))

    check([node], {"x": x()}, formula, **ALIKE)


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (made("LinearRegressor", coefficients=[1.0] * 4, post_transform="PROBIT"), "its result is transformed"),
        (
            made("LinearClassifier", ["l", "y"], coefficients=[1.0] * 4, intercepts=[0.0], classlabels_ints=[0, 1]),
            "two classes share one score",
        ),
        (
            made(
                "LinearClassifier", ["l", "y"], coefficients=[1.0] * 8, classlabels_ints=[0, 1], post_transform="PROBIT"
            ),
            "transformed by PROBIT",
        ),
    ],
)
def test_what_has_no_rule_is_refused(node: Any, reason: str) -> None:
    model = make_model([node], {"x": (np.float32, [3, 4])}, ["y"], opsets=list(ML))
    with pytest.raises(LayerError, match=reason):
        gradient(model, ["x"], "y")


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), r in table().items() if r.__module__.endswith(".classical")}
    assert rules == {"Scaler", "Normalizer", "Imputer", "LinearRegressor", "LinearClassifier"}
