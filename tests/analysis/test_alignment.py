"""Tensors are matched by what they hold and where they stand, whatever they are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from benchmarks import siblings
from onnx_inspect.analysis.alignment import Alignment, Side, align
from onnx_inspect.comparing.subjects import ModelSubject, side
from onnx_inspect.engine import Engine
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.points import INPUT
from onnx_inspect.graph.read import parse, read
from onnx_inspect.inputs.paired import paired
from onnx_inspect.inputs.read import read as read_batch

node = helper.make_node
NETS = ("shapes_resnet", "digits_convnet", "digits_vit", "skip")


def aligned(a: Model, b: Model, words: Sequence[str]) -> tuple[Alignment, Side, Side]:
    batch = read_batch(a.inputs, words, metadata=a.metadata)
    twin, names = paired(batch, a, b)
    sides = [side(ModelSubject(m, inputs, lambda x: Engine(x, exact=True))) for m, inputs in ((a, batch), (b, twin))]
    return align(*sides, list(names.items())), *sides


def words_for(name: str, fixtures: Path) -> list[str]:
    kind = {"shapes_resnet": "shape", "digits_convnet": "digit", "digits_vit": "digit"}.get(name)
    pictures = sorted(str(path) for path in (fixtures / "inputs").glob(f"{kind}_*.png"))[:2]
    return pictures or ["random", "random"]


def check(found: Alignment, of_a: Side, of_b: Side, truth: Mapping[str, set[str]]) -> int:
    """No match may be wrong; tell how many tensors with a partner were matched rightly."""
    there = {p.name for p in of_b.points if p.name in of_b.prints}
    classes = {n: {m.b, *m.b_tied} for m in found.matches for n in (m.a, *m.a_tied)}
    right = 0
    for name, partners in truth.items():
        if name in of_a.prints and partners & there and name in classes:
            assert classes[name] & partners, f"{name} = {classes[name]}, but it is {partners}"
            right += 1
    return right


def missed(of_a: Side, of_b: Side, truth: Mapping[str, set[str]], right: int) -> int:
    there = {p.name for p in of_b.points if p.name in of_b.prints}
    inputs = {p.name for p in of_a.points if p.op_type == INPUT}
    return sum(bool(partners & there) and n in of_a.prints and n not in inputs for n, partners in truth.items()) - right


@pytest.mark.parametrize("name", NETS)
def test_names_and_order_don_t_matter(fixtures: Path, tmp_path: Path, name: str) -> None:
    path, target = fixtures / f"{name}.onnx", tmp_path / "b.onnx"
    truth = siblings.renamed(path, target, None)
    found, a, b = aligned(read(path), read(target), words_for(name, fixtures))
    assert missed(a, b, truth, check(found, a, b, truth)) == 0


@pytest.mark.parametrize("name", NETS)
def test_half_precision_is_recognised(fixtures: Path, tmp_path: Path, name: str) -> None:
    path, target = fixtures / f"{name}.onnx", tmp_path / "b.onnx"
    truth = siblings.half(path, target, None)
    found, a, b = aligned(read(path), read(target), words_for(name, fixtures))
    assert missed(a, b, truth, check(found, a, b, truth)) == 0


@pytest.mark.parametrize("name", ["shapes_resnet", "digits_convnet", "skip"])
def test_channels_last_are_recognised(fixtures: Path, tmp_path: Path, name: str) -> None:
    path, target = fixtures / f"{name}.onnx", tmp_path / "b.onnx"
    truth = siblings.channels_last(path, target, None)
    found, a, b = aligned(read(path), read(target), words_for(name, fixtures))
    assert missed(a, b, truth, check(found, a, b, truth)) == 0
    orders = {pair[2] for m in found.matches for pair in m.pairs}
    assert (0, 2, 3, 1) in orders


def test_a_transposed_gemm_is_the_same_layer(fixtures: Path, tmp_path: Path) -> None:
    path, target = fixtures / "digits_convnet.onnx", tmp_path / "b.onnx"
    truth = siblings.transposed(path, target, None)
    found, a, b = aligned(read(path), read(target), words_for("digits_convnet", fixtures))
    assert missed(a, b, truth, check(found, a, b, truth)) == 0


def test_dynamic_quantisation_is_recognised(fixtures: Path, tmp_path: Path) -> None:
    path, target = fixtures / "digits_convnet.onnx", tmp_path / "b.onnx"
    truth = siblings.dynamic(path, target, None)
    found, a, b = aligned(read(path), read(target), words_for("digits_convnet", fixtures))
    assert missed(a, b, truth, check(found, a, b, truth)) == 0


def test_another_opset_is_recognised(fixtures: Path, tmp_path: Path) -> None:
    path, target = fixtures / "digits_vit.onnx", tmp_path / "b.onnx"
    truth = siblings.opset(path, target, None)
    found, a, b = aligned(read(path), read(target), words_for("digits_vit", fixtures))
    assert missed(a, b, truth, check(found, a, b, truth)) == 0


@pytest.mark.parametrize("level", ["basic", "extended"])
def test_what_the_runtime_optimised_is_recognised(fixtures: Path, tmp_path: Path, level: str) -> None:
    path, target = fixtures / "shapes_resnet.onnx", tmp_path / "b.onnx"
    truth = getattr(siblings, level)(path, target, None)
    found, a, b = aligned(read(path), read(target), words_for("shapes_resnet", fixtures))
    assert missed(a, b, truth, check(found, a, b, truth)) == 0


def test_what_onnxslim_folded_is_recognised(fixtures: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxslim", reason="an optional peer")
    path, target = fixtures / "digits_vit.onnx", tmp_path / "b.onnx"
    truth = siblings.slim(path, target, None)
    found, a, b = aligned(read(path), read(target), words_for("digits_vit", fixtures))
    assert missed(a, b, truth, check(found, a, b, truth)) == 0


@pytest.mark.parametrize("operators", [False, True])
def test_static_quantisation_is_recognised_in_both_forms(fixtures: Path, tmp_path: Path, operators: bool) -> None:
    path, target = fixtures / "shapes_resnet.onnx", tmp_path / "b.onnx"
    model = read(path)
    pictures = sorted(str(p) for p in (fixtures / "inputs").glob("shape_*.png"))
    batch = read_batch(model.inputs, pictures, metadata=model.metadata)
    feeds = [{n: v[i : i + 1] for n, v in batch.arrays.items()} for i in range(batch.n)]
    truth = (siblings.qoperator if operators else siblings.qdq)(path, target, feeds)
    found, a, b = aligned(model, read(target), pictures[:2])
    assert missed(a, b, truth, check(found, a, b, truth)) == 0


def test_two_checkpoints_are_matched_by_their_graph(fixtures: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.onnx"
    truth = siblings.renamed(fixtures / "digits_convnet.onnx", target, None)
    first = read(fixtures / "digits_convnet_epoch1.onnx")
    found, a, b = aligned(first, read(target), words_for("digits_convnet", fixtures))
    assert missed(a, b, truth, check(found, a, b, truth)) == 0
    assert {m.evidence for m in found.matches} <= {"given", "values", "values and graph", "graph"}
    assert min(m.confidence for m in found.matches) < 0.9  # it says that values don't support all of it


def test_a_quantiser_that_swallowed_a_relu_is_not_tied_to_what_comes_before_it(fixtures: Path) -> None:
    a, b = read(fixtures / "shapes_resnet.onnx"), read(fixtures / "int8_qdq.onnx")
    found, *_ = aligned(a, b, words_for("shapes_resnet", fixtures))
    pairs = {one: other for m in found.matches for one, other, _ in m.pairs}
    assert pairs["conv2d"] == "relu"  # quantising gave the convolution the name of the Relu that it dropped
    assert pairs["relu"] == "relu_DequantizeLinear_Output"


def branches(order: Sequence[str], names: str, rng: np.random.Generator) -> Model:
    """Parallel convolutions of one shape, joined by their sum, in an order of their nodes."""
    weights = {k: rng.normal(size=(4, 3, 3, 3)).astype(np.float32) for k in "abcd"}
    nodes = []
    for k in order:
        nodes += [
            node("Conv", ["x", f"w{k}"], [f"{names}{k}"], pads=[1] * 4),
            node("Relu", [f"{names}{k}"], [f"r{names}{k}"]),
        ]
    nodes.append(node("Sum", [f"r{names}{k}" for k in order], ["y"]))
    inputs = [helper.make_tensor_value_info("x", 1, [1, 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("y", 1, [1, 4, 8, 8])]
    tensors = [onnx.numpy_helper.from_array(v, f"w{k}") for k, v in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return parse(proto.SerializeToString())


def test_reordered_branches_are_matched_by_value() -> None:
    a, b = branches("abcd", "p", np.random.default_rng(0)), branches("dbca", "q", np.random.default_rng(0))
    found, *_ = aligned(a, b, ["random", "random"])
    pairs = {one: other for m in found.matches for one, other, _ in m.pairs}
    for k in "abcd":
        assert pairs[f"p{k}"] == f"q{k}"
        assert pairs[f"rp{k}"] == f"rq{k}"


def test_weights_tell_branches_apart_where_everything_before_them_has_changed() -> None:
    """Behind another first layer no activation is alike, and the graph looks the same from each of the branches."""

    def edited(order: Sequence[str], names: str, seed: int) -> Model:
        model = branches(order, names, np.random.default_rng(0))
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        first = np.random.default_rng(seed).normal(size=(3, 3, 3, 3)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(first, "w0"))
        for one in proto.graph.node:
            one.input[:] = ["stem" if n == "x" else n for n in one.input]
        proto.graph.node.insert(0, node("Conv", ["x", "w0"], ["before"], pads=[1] * 4))
        proto.graph.node.insert(1, node("Relu", ["before"], ["stem"]))
        return parse(proto.SerializeToString())

    found, *_ = aligned(edited("abcd", "p", 1), edited("cdba", "q", 2), ["random", "random"])
    pairs = {one: other for m in found.matches for one, other, _ in m.pairs}
    assert {pairs[f"p{k}"] for k in "abcd"} == {f"q{k}" for k in "abcd"}
    for k in "abcd":
        assert pairs[f"p{k}"] == f"q{k}"
        assert pairs[f"rp{k}"] == f"rq{k}"


def test_names_that_lie_are_not_believed() -> None:
    """The same names on other branches: each is found where its values are."""
    a = branches("abcd", "p", np.random.default_rng(0))
    proto = onnx.ModelProto()
    proto.CopyFrom(a.proto)
    swap = {"pa": "pb", "pb": "pa", "rpa": "rpb", "rpb": "rpa"}
    for one in proto.graph.node:
        one.input[:] = [swap.get(n, n) for n in one.input]
        one.output[:] = [swap.get(n, n) for n in one.output]
    found, *_ = aligned(a, parse(proto.SerializeToString()), ["random", "random"])
    pairs = {one: other for m in found.matches for one, other, _ in m.pairs}
    assert (pairs["pa"], pairs["pb"], pairs["rpa"]) == ("pb", "pa", "rpb")


def test_unrelated_networks_are_left_unmatched(fixtures: Path) -> None:
    a, b = read(fixtures / "digits_convnet.onnx"), read(fixtures / "digits_vit.onnx")
    found, *_ = aligned(a, b, words_for("digits_convnet", fixtures))
    inner = [m for m in found.matches if m.evidence != "given" and m.a != "logits"]
    assert not inner


def test_a_tensor_that_is_gone_is_not_given_to_its_neighbour(fixtures: Path, tmp_path: Path) -> None:
    """Without its third Relu the network still has all the others where they were."""
    model = onnx.load(fixtures / "digits_convnet.onnx")
    gone = [n for n in model.graph.node if n.op_type == "Relu"][2]
    for other in model.graph.node:
        other.input[:] = [gone.input[0] if n == gone.output[0] else n for n in other.input]
    model.graph.node.remove(gone)
    onnx.save(model, tmp_path / "b.onnx")
    a = read(fixtures / "digits_convnet.onnx")
    found, of_a, of_b = aligned(a, read(tmp_path / "b.onnx"), words_for("digits_convnet", fixtures))
    assert gone.output[0] in found.unmatched_a
    truth = {p.name: {p.name} for p in of_a.points if p.name != gone.output[0]}
    check(found, of_a, of_b, truth)


def test_matches_name_each_tensor_once(fixtures: Path) -> None:
    a, b = read(fixtures / "shapes_resnet.onnx"), read(fixtures / "int8_qdq.onnx")
    found, of_a, of_b = aligned(a, b, words_for("shapes_resnet", fixtures))
    for which, of, rest in ((0, of_a, found.unmatched_a), (1, of_b, found.unmatched_b)):
        named = [pair[which] for m in found.matches for pair in m.pairs]
        assert len(named) == len(set(named))
        ties = {n for m in found.matches for n in ((m.a, *m.a_tied) if which == 0 else (m.b, *m.b_tied))}
        assert ties | set(rest) == set(of.prints)
        assert not ties & set(rest)


def test_parts_that_fit_in_little_memory_give_the_same_fingerprints(fixtures: Path, some: Callable[..., Any]) -> None:
    model = read(fixtures / "digits_vit.onnx")
    batch = read_batch(model.inputs, words_for("digits_vit", fixtures), metadata=model.metadata)
    whole, parts = (
        side(ModelSubject(model, batch, lambda x: Engine(x, exact=True), budget=budget)) for budget in (2**28, 20000)
    )
    assert whole.prints.keys() == parts.prints.keys()
    for name, one in whole.prints.items():
        np.testing.assert_array_equal(one.rows, parts.prints[name].rows)
