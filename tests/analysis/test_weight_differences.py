"""Weights of two models are matched whatever they are called and however they are stored, and measured dequantised."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from benchmarks import siblings
from onnx_inspect.analysis.comparison import Limits
from onnx_inspect.analysis.differences import Tolerance
from onnx_inspect.analysis.weight_differences import WeightComparison, compare_weights
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read
from onnx_inspect.graph.weights import distinct, layer_weights

node = helper.make_node
NONE = Limits()


def compared(a: Model, b: Model, limits: Limits = NONE) -> WeightComparison:
    own, other = (distinct(layer_weights(m)) for m in (a, b))
    return compare_weights(own, other, sources=("a", "b"), identical=a.digest == b.digest, limits=limits)


def test_uint8_weights_are_dequantised_without_wrapping_around(make: Callable[..., Any]) -> None:
    """Subtracting the zero point in uint8 made a peer report -13 dB where the truth is above 40."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(8, 3, 3, 3)).astype(np.float32)
    scale = np.float32(np.ptp(weight) / 255)
    zero = np.uint8(np.rint(-weight.min() / scale))
    steps = np.clip(np.rint(weight / scale) + zero, 0, 255).astype(np.uint8)
    inputs = {"x": (np.float32, [1, 3, 8, 8])}
    a = make([node("Conv", ["x", "w"], ["y"])], inputs, ["y"], {"w": weight})
    dequantise = node("DequantizeLinear", ["q", "s", "z"], ["w"])
    quantised = {"q": steps, "s": scale, "z": zero}
    b = make([dequantise, node("Conv", ["x", "w"], ["y"])], inputs, ["y"], quantised)
    found = compared(a, b)
    real = (steps.astype(np.float64) - float(zero)) * float(scale)
    expected = 10 * np.log10((weight.astype(np.float64) ** 2).sum() / ((weight - real) ** 2).sum())
    (pair,) = found.matched
    assert pair.apart.sqnr_db == pytest.approx(expected, abs=1e-3)  # dequantised in float32
    assert pair.apart.sqnr_db is not None and pair.apart.sqnr_db > 40
    wrapped = (steps - zero).astype(np.float64) * float(scale)
    assert 10 * np.log10((weight**2).sum() / ((weight - wrapped) ** 2).sum()) < 0  # what wrapping would say


def test_a_transposed_gemm_has_the_same_weights(fixtures: Path, tmp_path: Path) -> None:
    siblings.transposed(fixtures / "digits_convnet.onnx", tmp_path / "b.onnx", None)
    found = compared(read(fixtures / "digits_convnet.onnx"), read(tmp_path / "b.onnx"))
    assert not found.moved and not found.unmatched_a and not found.unmatched_b
    assert not found.identical and found.agree


def test_names_don_t_matter(fixtures: Path, tmp_path: Path) -> None:
    path = fixtures / "shapes_resnet.onnx"
    truth = siblings.renamed(path, tmp_path / "b.onnx", None)
    a, b = read(path), read(tmp_path / "b.onnx")
    found = compared(a, b)
    assert not found.moved and not found.unmatched_a
    for pair in found.matched:
        assert {pair.b.layer.output.name} == truth[pair.a.layer.output.name]


def test_moved_weights_are_measured_by_hand_and_ranked(fixtures: Path, tmp_path: Path) -> None:
    model = onnx.load(fixtures / "digits_convnet.onnx")
    convs = [n for n in model.graph.node if n.op_type == "Conv"]
    factors = {convs[0].input[1]: 1.01, convs[1].input[1]: 1.5}
    for tensor in model.graph.initializer:
        if tensor.name in factors:
            values = numpy_helper.to_array(tensor).copy()
            values[2] *= np.float32(factors[tensor.name])  # one filter of several
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "b.onnx")
    found = compared(read(fixtures / "digits_convnet.onnx"), read(tmp_path / "b.onnx"))
    assert [p.a.layer.output.name for p in found.moved] == ["conv2d_1", "conv2d"]
    first = found.moved[0]
    own = first.a.array().astype(np.float64)
    assert first.moved == pytest.approx(0.5 * np.linalg.norm(own[2]) / np.linalg.norm(own), rel=1e-5)
    assert first.units == (2,)
    assert first.norms[0] == pytest.approx(np.linalg.norm(own))
    assert first.counts[0].sum() == first.counts[1].sum() == own.size


def test_two_checkpoints_are_matched_throughout(fixtures: Path) -> None:
    found = compared(read(fixtures / "digits_convnet_epoch1.onnx"), read(fixtures / "digits_convnet.onnx"))
    assert not found.unmatched_a and not found.unmatched_b and not found.agree
    assert all(p.a.layer.name == p.b.layer.name and p.a.role == p.b.role for p in found.matched)
    assert "cosine" in found.offence


def test_a_folded_normalisation_leaves_its_filters_recognisable(make: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    weights = {k: rng.normal(size=(6, 3, 3, 3)).astype(np.float32) for k in ("one", "two")}
    scale = rng.uniform(0.1, 10, (6, 1, 1, 1)).astype(np.float32)

    def net(values: dict[str, Any]) -> Any:
        nodes = [node("Conv", ["x", "one"], ["p"]), node("Conv", ["x", "two"], ["q"]), node("Add", ["p", "q"], ["y"])]
        return make(nodes, {"x": (np.float32, [1, 3, 8, 8])}, ["y"], values)

    swapped = {"one": weights["two"] * scale, "two": weights["one"] * scale[::-1]}
    found = compared(net(weights), net(swapped))
    assert {(p.a.name, p.b.name) for p in found.matched} == {("one", "two"), ("two", "one")}
    assert {p.evidence for p in found.matched} == {"values, rescaled"}


def test_limits_name_the_first_weight_that_breaks_them(fixtures: Path) -> None:
    a, b = read(fixtures / "shapes_resnet.onnx"), read(fixtures / "int8_qdq.onnx")
    assert compared(a, b).agree
    assert compared(a, b, Limits(Tolerance(0.1))).agree
    assert compared(a, b, Limits(Tolerance(1e-6))).offence.startswith("node_conv2d")
    assert compared(a, b, Limits(min_cosine=0.9999999)).offence.startswith("node_conv2d")


def test_what_only_one_model_has_is_left_over(fixtures: Path, make: Callable[..., Any]) -> None:
    rng = random.Random(0)
    own = {"w": np.array([[rng.random() for _ in range(7)] for _ in range(5)], np.float32)}
    other = make([node("MatMul", ["x", "w"], ["y"])], {"x": (np.float32, [1, 5])}, ["y"], own)
    found = compared(read(fixtures / "digits_convnet.onnx"), other)
    assert not found.matched
    assert [w.name for w in found.unmatched_b] == ["w"]
