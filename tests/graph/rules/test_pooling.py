"""Pools in one, two and three dimensions: gradients against autograd, or against their definition in PyTorch."""

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
F = torch.nn.functional


@st.composite
def pools(draw: st.DrawFn, *, dilated: bool = False, rounded: bool = True) -> dict[str, Any]:
    """Kernels, strides, pads of less than a kernel, and sizes; `ceil` rounds the number of windows up."""
    rank = draw(st.integers(1, 3))

    def several(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))

    kernel, strides = several(1, 3), several(1, 3)
    dilations = several(1, 2) if dilated else [1] * rank
    reach = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
    pads = [draw(st.integers(0, k // 2)) for k in kernel]
    size = [r + 1 + m for r, m in zip(reach, several(0, 5 if rank < 3 else 2), strict=True)]
    ceil = rounded and draw(st.booleans())
    return {"kernel": kernel, "strides": strides, "dilations": dilations, "pads": pads, "size": size, "ceil": ceil}


def attributes(view: dict[str, Any], **more: Any) -> dict[str, Any]:
    dilations = {"dilations": view["dilations"]} if max(view["dilations"]) > 1 else {}
    shape = {"kernel_shape": view["kernel"], "strides": view["strides"], "pads": view["pads"] * 2}
    return {**shape, "ceil_mode": int(view["ceil"]), **dilations, **more}


def picture(view: dict[str, Any], channels: int = 2) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(0).normal(size=(2, channels, *view["size"]))


@drawn(40)
@given(view=pools(dilated=True))
def test_maxima_get_the_gradient_of_every_window_that_they_win(view: dict[str, Any]) -> None:
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(view["kernel"]) - 1]
    more = (view["kernel"], view["strides"], view["pads"], view["dilations"], view["ceil"])
    check(
        [helper.make_node("MaxPool", ["x"], ["y"], **attributes(view))],
        {"x": picture(view)},
        lambda x: pool(x, *more),
        double=False,  # the reference's indices don't count through the samples
    )


def test_of_equal_values_the_first_gets_the_gradient() -> None:
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
    check([node], {"x": np.zeros((2, 3, 4, 4))}, lambda x: F.max_pool2d(x, 2), double=False)


@drawn(40)
@given(view=pools(), padded=st.booleans())
def test_averages_share_the_gradient(view: dict[str, Any], padded: bool) -> None:
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(view["kernel"]) - 1]
    node = helper.make_node("AveragePool", ["x"], ["y"], **attributes(view, count_include_pad=int(padded)))
    more = (view["kernel"], view["strides"], view["pads"], view["ceil"], padded)
    check([node], {"x": picture(view)}, lambda x: pool(x, *more), double=False)


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("size", [(7, 9), (6, 8)])
def test_automatic_padding_is_followed(auto: str, kind: str, size: tuple[int, int]) -> None:
    kernel, strides = (3, 2), (2, 1)
    total = [max((-(-n // s) - 1) * s + k - n, 0) for n, s, k in zip(size, strides, kernel, strict=True)]
    less, more = [t // 2 for t in total], [t - t // 2 for t in total]
    low, high = {"SAME_UPPER": (less, more), "SAME_LOWER": (more, less), "VALID": ([0, 0], [0, 0])}[auto]
    pads = [low[1], high[1], low[0], high[0]]

    def formula(x: Any) -> Any:
        if kind == "MaxPool":
            return F.max_pool2d(F.pad(x, pads, value=-1e9), kernel, strides)
        ones = F.avg_pool2d(F.pad(torch.ones_like(x), pads), kernel, strides)
        return F.avg_pool2d(F.pad(x, pads), kernel, strides) / ones

    node = helper.make_node(kind, ["x"], ["y"], auto_pad=auto, kernel_shape=kernel, strides=strides)
    check([node], {"x": np.random.default_rng(0).normal(size=(2, 3, *size))}, formula, double=False)


@drawn(20)
@given(view=pools(rounded=False), power=st.integers(1, 3))
def test_norms_over_windows_have_their_definitions_gradient(view: dict[str, Any], power: int) -> None:
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(view["kernel"]) - 1]
    count = int(np.prod(view["kernel"]))

    def formula(x: Any) -> Any:
        total = pool(x.abs() ** power, view["kernel"], view["strides"], view["pads"]) * count
        return total ** (1 / power)

    node = helper.make_node("LpPool", ["x"], ["y"], p=power, **attributes(view))
    check([node], {"x": picture(view)}, formula, double=False)


@pytest.mark.parametrize("size", [(5,), (4, 3), (2, 3, 2)])
def test_global_pools_have_pytorchs_gradient(size: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, *size))
    axes = tuple(range(2, x.ndim))
    formulas: dict[str, Any] = {
        "GlobalAveragePool": lambda x: x.mean(axes, keepdim=True),
        "GlobalMaxPool": lambda x: x.amax(axes, keepdim=True),
        "GlobalLpPool": lambda x: torch.linalg.vector_norm(x, 2, axes, keepdim=True),
    }
    for kind, formula in formulas.items():
        plain = kind == "GlobalAveragePool" or (
            kind == "GlobalMaxPool" and len(size) == 2
        )  # the reference's others fail
        check([helper.make_node(kind, ["x"], ["y"])], {"x": x}, formula, double=plain)


def test_global_norms_of_other_powers_and_of_zeros_are_finite() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 3))
    for power in (1, 3):
        node = helper.make_node("GlobalLpPool", ["x"], ["y"], p=power)
        formula = lambda x, p=power: (x.abs() ** p).sum((2, 3), keepdim=True) ** (1 / p)  # noqa: E731
        check([node], {"x": x}, formula, double=False)
    x[0] = 0
    node = helper.make_node("GlobalLpPool", ["x"], ["y"])
    made = check([node], {"x": x}, lambda x: torch.linalg.vector_norm(x, 2, (2, 3), keepdim=True), double=False)
    np.testing.assert_array_equal(made["x"][0], 0)


def test_the_first_of_equal_global_maxima_gets_the_gradient() -> None:
    node = helper.make_node("GlobalMaxPool", ["x"], ["y"])
    made = check([node], {"x": np.ones((1, 2, 3, 3))}, lambda x: F.adaptive_max_pool2d(x, 1), differences=False)
    assert np.count_nonzero(made["x"]) == 2


def test_what_was_unpooled_gets_the_gradient_of_its_place() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 6))
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p", "i"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("MaxUnpool", ["p", "i"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]

    def formula(x: Any) -> Any:
        pooled, places = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(pooled, places, 2)

    check(nodes, {"x": x}, formula, double=False)


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".pooling")}
    single = {"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"}
    assert rules == {"MaxPool", "AveragePool", "LpPool", "MaxUnpool"} | single
