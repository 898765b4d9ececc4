"""Convolutions in one, two and three dimensions: gradients of input, weight and bias against autograd."""

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
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    """Kernels, strides, dilations, pads and sizes that leave at least one window."""
    rank = draw(st.integers(1, 3))

    def several(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))

    kernel, strides, dilations = several(1, 3), several(1, 3), several(1, 2)
    reach = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
    pads = [draw(st.integers(0, r + 1)) for r in (*reach, *reach)]
    least = [max(r + 1 - b - e, 1) for r, b, e in zip(reach, pads[:rank], pads[rank:], strict=True)]
    size = [n + m for n, m in zip(least, several(0, 4 if rank < 3 else 2), strict=True)]
    return {"rank": rank, "kernel": kernel, "strides": strides, "dilations": dilations, "pads": pads, "size": size}


groupings = st.sampled_from([(1, 2, 3), (2, 4, 2), (3, 3, 3), (2, 2, 4)])  # groups, channels read, channels made


def padded(x: Any, pads: list[int]) -> Any:
    rank = len(pads) // 2
    return F.pad(x, [p for i in reversed(range(rank)) for p in (pads[i], pads[rank + i])])


@drawn(60)
@given(view=windows(), channels=groupings, bias=st.booleans(), count=st.integers(1, 2))
def test_convolutions_have_pytorchs_gradients(
    view: dict[str, Any], channels: tuple[int, int, int], bias: bool, count: int
) -> None:
    groups, read, made = channels
    rng = np.random.default_rng(0)
    inputs = {
        "x": rng.normal(size=(count, read, *view["size"])),
        "w": rng.normal(size=(made, read // groups, *view["kernel"])),
    }
    if bias:
        inputs["b"] = rng.normal(size=made)
    more = {"strides": view["strides"], "dilations": view["dilations"], "group": groups}
    node = helper.make_node("Conv", list(inputs), ["y"], pads=view["pads"], kernel_shape=view["kernel"], **more)

    def formula(x: Any, w: Any, b: Any = None) -> Any:
        convolve = CONV[view["rank"]]
        return convolve(padded(x, view["pads"]), w, b, view["strides"], 0, view["dilations"], groups)

    check([node], inputs, formula)


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("kernel", [(3, 2), (4, 1), (2, 5)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("size", [(7, 9), (6, 8)])
def test_automatic_padding_is_followed(
    auto: str, kernel: tuple[int, int], strides: tuple[int, int], size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    inputs = {"x": rng.normal(size=(2, 2, *size))}
    weight = rng.normal(size=(3, 2, *kernel))
    total = [max((-(-n // s) - 1) * s + k - n, 0) for n, s, k in zip(size, strides, kernel, strict=True)]
    less, more = [t // 2 for t in total], [t - t // 2 for t in total]
    pads = {"SAME_UPPER": less + more, "SAME_LOWER": more + less, "VALID": [0] * 4}[auto]
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad=auto, strides=strides)
    check(
        [node],
        inputs,
        lambda x: F.conv2d(padded(x, pads), torch.tensor(weight, dtype=x.dtype), None, strides),
        constants={"w": weight},
    )


def test_a_kernel_that_nobody_names_is_the_weights() -> None:
    inputs = {"x": np.random.default_rng(0).normal(size=(1, 2, 5))}
    weight = np.random.default_rng(1).normal(size=(2, 2, 3))
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    check([node], inputs, lambda x: F.conv1d(x, torch.tensor(weight, dtype=x.dtype)), constants={"w": weight})


@drawn(50)
@given(view=windows(), channels=groupings, bias=st.booleans(), extra=st.data())
def test_transposed_convolutions_have_pytorchs_gradients(
    view: dict[str, Any], channels: tuple[int, int, int], bias: bool, extra: st.DataObject
) -> None:
    groups, read, made = channels
    rank, rng = view["rank"], np.random.default_rng(0)
    longer = [extra.draw(st.integers(0, s - 1)) for s in view["strides"]]
    size = [extra.draw(st.integers(1, 4 if rank < 3 else 3)) for _ in range(rank)]
    full = [
        (n - 1) * s + d * (k - 1) + 1 + e
        for n, s, d, k, e in zip(size, view["strides"], view["dilations"], view["kernel"], longer, strict=True)
    ]
    pads = [extra.draw(st.integers(0, max((f - 1) // 2, 0))) for f in full]
    inputs = {"x": rng.normal(size=(2, read, *size)), "w": rng.normal(size=(read, made // groups, *view["kernel"]))}
    if bias:
        inputs["b"] = rng.normal(size=made)
    more = {"strides": view["strides"], "dilations": view["dilations"], "group": groups, "output_padding": longer}
    more["kernel_shape"] = view["kernel"]
    node = helper.make_node("ConvTranspose", list(inputs), ["y"], pads=pads * 2, **more)

    def formula(x: Any, w: Any, b: Any = None) -> Any:
        transpose = TRANSPOSED[rank]
        whole = transpose(x, w, b, view["strides"], 0, longer, groups, view["dilations"])
        for axis, (pad, length) in enumerate(zip(pads, full, strict=True), 2):
            whole = whole.narrow(axis, pad, length - 2 * pad)
        return whole

    check([node], inputs, formula)


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "NOTSET"])
def test_a_transposed_convolution_may_name_its_size(auto: str) -> None:
    rng = np.random.default_rng(0)
    inputs, weight = {"x": rng.normal(size=(1, 2, 4, 5))}, rng.normal(size=(2, 3, 3, 4))
    named = {"output_shape": [8, 11]} if auto == "NOTSET" else {"auto_pad": auto}
    wide = [8, 11] if auto == "NOTSET" else [8, 10]
    total = [(n - 1) * 2 + k - w for n, k, w in zip((4, 5), (3, 4), wide, strict=True)]
    begins = [t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in total]
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], **named)

    def formula(x: Any) -> Any:
        whole = F.conv_transpose2d(x, torch.tensor(weight, dtype=x.dtype), None, 2)
        return whole.narrow(2, begins[0], wide[0]).narrow(3, begins[1], wide[1])

    check([node], inputs, formula, constants={"w": weight}, differences=False, open_axes=False)


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".convolution")}
    assert rules == {"Conv", "ConvTranspose"}
