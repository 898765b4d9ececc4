"""The weights read between a layer and the scores are those of the run: scores = weight @ pooled + bias."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_inspect.engine import Engine
from onnx_inspect.errors import MethodError
from onnx_inspect.graph.classifier import find
from onnx_inspect.graph.linear import linear_head
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read
from onnx_inspect.graph.surgery import cut, expose

RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(3, 4, 5, 6)).astype(np.float32)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=op, **attributes)


def weights(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


GAP, FLAT = node("GlobalAveragePool", "a", "p"), node("Flatten", "p", "f")
TAILS: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "Gemm": ([GAP, FLAT, node("Gemm", "f w b", "y", transB=1)], {"w": weights(7, 4), "b": weights(7)}),
    "Gemm with factors": (
        [GAP, FLAT, node("Gemm", "f w b", "y", alpha=0.5, beta=2.0)],
        {"w": weights(4, 7), "b": weights(7)},
    ),
    "MatMul and Add": (
        [GAP, FLAT, node("MatMul", "f w", "m"), node("Add", "b m", "y")],
        {"w": weights(4, 7), "b": weights(1, 7)},
    ),
    "a number added": (
        [GAP, FLAT, node("Add", "f c", "g"), node("MatMul", "g w", "y")],
        {"w": weights(4, 7), "c": np.float32(3)},
    ),
    "two linear layers": (
        [GAP, FLAT, node("Gemm", "f w b", "h", transB=1), node("Gemm", "h v c", "y", transB=1)],
        {"w": weights(6, 4), "b": weights(6), "v": weights(7, 6), "c": weights(7)},
    ),
    "Conv before the pooling": (
        [node("Conv", "a w b", "c"), node("GlobalAveragePool", "c", "p"), FLAT, node("Identity", "f", "y")],
        {"w": weights(7, 4, 1, 1), "b": weights(7)},
    ),
    "Conv after the pooling": (
        [GAP, node("Conv", "p w b", "c"), node("Squeeze", "c axes", "y")],
        {"w": weights(7, 4, 1, 1), "b": weights(7), "axes": [2, 3]},
    ),
    "ReduceMean": (
        [node("ReduceMean", "a axes", "f", keepdims=0), node("MatMul", "f w", "y")],
        {"axes": [2, 3], "w": weights(4, 7)},
    ),
    "AveragePool over all": (
        [node("AveragePool", "a", "p", kernel_shape=[5, 6]), FLAT, node("MatMul", "f w", "y")],
        {"w": weights(4, 7)},
    ),
    "rows, then their mean": (
        [node("Reshape", "a t", "r"), node("ReduceMean", "r axes", "f", keepdims=0), node("MatMul", "f w", "y")],
        {"t": [0, 4, 30], "axes": [-1], "w": weights(4, 7)},
    ),
    "pooling alone": ([GAP, FLAT, node("Dropout", "f", "y")], {}),
}


@pytest.mark.parametrize("name", TAILS)
def test_the_weights_are_those_of_the_run(make: Callable[..., Model], name: str) -> None:
    nodes, constants = TAILS[name]
    model = make([node("Relu", "x", "a"), *nodes], {"x": ("float32", ["N", 4, 5, 6])}, ["y"], constants)
    head = linear_head(model, "a", "y", 30)
    scores = Engine(model, exact=True).run({"x": MAPS})["y"]
    pooled = np.maximum(MAPS, 0).mean(axis=(2, 3), dtype=np.float64)
    expected = (pooled if head.weight is None else pooled @ head.weight.T) + head.bias
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    rows = np.stack([head.row(c, 4) for c in range(scores.shape[1])])
    np.testing.assert_allclose(scores, pooled @ rows.T + head.bias, rtol=1e-4, atol=1e-5)


def test_a_side_branch_that_decides_nothing_does_not_stand_between(make: Callable[..., Model]) -> None:
    nodes, constants = TAILS["Gemm"]
    model = make([node("Relu", "x", "a"), *nodes], {"x": ("float32", ["N", 4, 5, 6])}, ["y"], constants)
    side = make(
        [node("Relu", "x", "a"), *nodes, node("Exp", "a", "z")],
        {"x": ("float32", ["N", 4, 5, 6])},
        ["y", "z"],
        constants,
    )
    np.testing.assert_array_equal(linear_head(side, "a", "y", 30).row(1, 4), linear_head(model, "a", "y", 30).row(1, 4))
    assert linear_head(expose(model, ["a"]), "a", "y", 30).weight is not None


REFUSED: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], str]] = {
    "a nonlinearity": (
        [GAP, FLAT, node("Gemm", "f w", "h", transB=1), node("Relu", "h", "y")],
        {"w": weights(7, 4)},
        "Relu 'Relu__4' stands between",
    ),
    "no pooling": (
        [node("Flatten", "a", "f"), node("MatMul", "f w", "y")],
        {"w": weights(120, 7)},
        "Flatten 'Flatten' stands between",
    ),
    "maximum": (
        [node("GlobalMaxPool", "a", "p"), FLAT, node("MatMul", "f w", "y")],
        {"w": weights(4, 7)},
        "GlobalMaxPool",
    ),
    "pooling of a part": (
        [node("AveragePool", "a", "p", kernel_shape=[2, 2]), FLAT, node("MatMul", "f w", "y")],
        {"w": weights(80, 7)},
        "AveragePool",
    ),
    "two ways": (
        [GAP, node("GlobalMaxPool", "a", "q"), node("Add", "p q", "s"), node("Flatten", "s", "y")],
        {},
        "'a' feeds 2 nodes",
    ),
    "weights from the input": ([GAP, FLAT, node("MatMul", "f v", "y")], {}, "'v' depends on the input"),
    "nothing pooled": ([node("Identity", "a", "y")], {}, "none lies between"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_linear_is_refused_by_name(make: Callable[..., Model], name: str) -> None:
    nodes, constants, message = REFUSED[name]
    inputs = {"x": ("float32", ["N", 4, 5, 6]), "v": ("float32", [4, 7])}
    model = make([node("Relu", "x", "a"), *nodes], inputs, ["y"], constants)
    with pytest.raises(MethodError, match=message):
        linear_head(model, "a", "y", 30)


@pytest.mark.parametrize(
    "name",
    [
        "squeezenet1_fp32",
        "resnet20_cifar10",
        "mobilenet_v1_025_128_fp32",
        "resnet8_keras_fp32",
        "fer_mini_xception",
        "visual_wake_words_fp32",
    ],
)
def test_the_tails_of_real_models_are_read(real: Path, some: Any, name: str) -> None:
    from onnx_inspect.graph.bind import bind
    from onnx_inspect.graph.spatial import candidates

    model = read(real / "models" / f"{name}.onnx")
    shapes = bind(model)
    best, scores = candidates(model, shapes)[0], find(model, shapes)
    head = linear_head(model, best.layer.output.name, scores.scores, best.spatial.cells)
    parts = cut(model, best.layer, outputs=[scores.scores])
    maps = np.abs(RNG.normal(size=shapes[best.layer.output.name])).astype(np.float32)
    found = Engine(parts.tail, exact=True).run({best.layer.output.name: maps})[scores.scores]
    pooled = maps.mean(axis=(2, 3) if best.spatial.form == "channels-first" else (1, 2), dtype=np.float64)
    expected = (pooled if head.weight is None else pooled @ head.weight.T) + head.bias
    np.testing.assert_allclose(found.reshape(1, -1), expected, rtol=1e-3, atol=1e-4)


def test_a_transposed_gemm_is_refused(make: Callable[..., Model]) -> None:
    nodes = [node("Relu", "x", "a"), GAP, FLAT, node("Gemm", "f w", "y", transA=1)]
    model = make(nodes, {"x": ("float32", [4, 4, 5, 6])}, {"y": (TensorProto.FLOAT, [4, 7])}, {"w": weights(4, 7)})
    with pytest.raises(MethodError, match="Gemm"):
        linear_head(model, "a", "y", 30)
