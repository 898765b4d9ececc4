"""What quantised tensors stand for is read off whichever node around them knows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnx_inspect.graph.read import read
from onnx_inspect.graph.steps import Quantisers, Steps

node = helper.make_node
SCALE = {"s": np.float32(0.5), "z": np.uint8(10), "s2": np.float32(0.25), "z2": np.uint8(0)}


def test_real_values_are_taken_without_wrapping_around() -> None:
    np.testing.assert_array_equal(Steps(0.5, 10).real(np.array([0, 10, 255], np.uint8)), [-5, 0, 122.5])


def test_steps_round_to_even_and_saturate_as_the_operator_does(
    make: Callable[..., Any], plainly: Callable[..., Any]
) -> None:
    model = make([node("QuantizeLinear", ["x", "s", "z"], ["q"])], {"x": (np.float32, [6])}, ["q"], SCALE)
    x = np.array([-9, 0, 0.25, 0.75, 3.3, 1e6], np.float32)
    np.testing.assert_array_equal(Steps(0.5, 10).steps(x, np.dtype(np.uint8)), plainly(model, {"x": x})["q"])


def test_scales_are_found_at_makers_readers_and_through_what_only_moves(make: Callable[..., Any]) -> None:
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("Transpose", ["q"], ["t"], perm=[1, 0]),
        node("DequantizeLinear", ["u", "s2", "z2"], ["v"]),
        node("DequantizeLinear", ["t", "s", "z"], ["y"]),
    ]
    inputs = {"x": (np.float32, [2, 3]), "u": (np.uint8, [2])}
    found = Quantisers(make(nodes, inputs, ["y", "v"], SCALE))
    assert found.of("q") == found.of("t") == Steps(0.5, 10)
    assert found.of("u") == Steps(0.25, 0)
    assert found.of("x") is None


def test_a_quantised_convolution_says_what_it_reads_and_makes(make: Callable[..., Any]) -> None:
    inputs = ["x", "s", "z", "w", "ws", "wz", "s2", "z2"]
    more = {"w": np.ones((1, 1, 1, 1), np.uint8), "ws": np.float32(0.1), "wz": np.uint8(0)}
    model = make([node("QLinearConv", inputs, ["y"])], {"x": (np.uint8, [1, 1, 2, 2])}, ["y"], SCALE | more)
    assert Quantisers(model).of("x") == Steps(0.5, 10)
    assert Quantisers(model).of("y") == Steps(0.25, 0)


def test_scales_per_channel_are_none(make: Callable[..., Any]) -> None:
    many = {"s": np.ones(3, np.float32), "z": np.zeros(3, np.uint8)}
    model = make([node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1)], {"x": (np.float32, [2, 3])}, ["q"], many)
    assert Quantisers(model).of("q") is None


def test_the_uint8_input_of_a_real_model_has_its_scale(real: Path) -> None:
    found = Quantisers(read(real / "models/mobilenet_v1_025_128_uint8.onnx")).of("input")
    assert found is not None
    assert found.real(np.array([0, 255], np.uint8)) == pytest.approx([-1, 1], abs=0.02)
