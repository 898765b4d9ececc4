"""Points are what the inputs decide; a quantiser's own scales are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import helper

from onnx_inspect.graph.points import points

node = helper.make_node


def test_shapes_and_constants_are_no_points(make: Callable[..., Any]) -> None:
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Add", ["w", "w"], ["doubled"]),
        node("Mul", ["x", "doubled"], ["y"]),
        node("Reshape", ["y", "shape"], ["z"]),
    ]
    model = make(nodes, {"x": (np.float32, [2, 3])}, ["z"], {"w": np.ones(3, np.float32)})
    found = {p.name: p.sources for p in points(model)}
    assert found == {"x": (), "y": ("x",), "z": ("y",)}


def test_every_output_of_a_node_is_a_point(make: Callable[..., Any]) -> None:
    model = make([node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2)], {"x": (np.float32, [1, 4])}, ["a", "b"])
    assert [(p.name, p.slot) for p in points(model)] == [("x", 0), ("a", 0), ("b", 1)]


def test_ranges_that_a_quantiser_measures_are_no_points(make: Callable[..., Any]) -> None:
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        node("Mul", ["scale", "other"], ["scales"]),
        node("MatMulInteger", ["q", "w", "zero"], ["sums"]),
        node("Cast", ["sums"], ["real"], to=1),
        node("Mul", ["real", "scales"], ["y"]),
    ]
    constants = {"w": np.ones((3, 2), np.uint8), "other": np.float32(0.5)}
    model = make(nodes, {"x": (np.float32, [1, 3])}, ["y"], constants)
    assert [p.name for p in points(model)] == ["x", "q", "sums", "real", "y"]
    assert {p.name: p.sources for p in points(model)}["y"] == ("real",)
