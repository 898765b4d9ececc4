"""The estimate of a run's memory counts what the run makes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import helper

from onnx_inspect.graph.memory import tensor_bytes
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.surgery import cut

WEIGHT = {"w": np.zeros((8, 3, 3, 3), np.float32)}


def test_sizes_are_those_of_the_arrays(make: Callable[..., Model]) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Cast", ["c"], ["h"], to=10),
        helper.make_node("GlobalAveragePool", ["h"], ["y"]),
    ]
    model = make(nodes, {"x": ("float32", ["N", 3, "H", "W"])}, ["y"], WEIGHT)
    found = tensor_bytes(model, {"x": (1, 3, 20, 30)})
    assert found == {"x": 4 * 3 * 600, "c": 4 * 8 * 600, "h": 2 * 8 * 600, "y": 2 * 8}


def test_only_what_a_part_makes_is_counted(make: Callable[..., Model]) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Relu", ["p"], ["y"]),
    ]
    tail = cut(make(nodes, {"x": ("float32", ["N", 3, 9, 9])}, ["y"], WEIGHT), "p").tail
    assert tensor_bytes(tail, {"p": (1, 8, 1, 1)}) == {"p": 32, "y": 32}


def test_what_nobody_can_tell_counts_as_the_largest(make: Callable[..., Model]) -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["where"]), helper.make_node("Cast", ["where"], ["y"], to=1)]
    found = tensor_bytes(make(nodes, {"x": ("float32", ["N", 50])}, ["y"]), {"x": (1, 50)})
    assert found["y"] == found["x"] == 200
