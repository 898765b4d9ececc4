"""Exposing changes no output; head and tail together are the whole, at every layer of every fixture."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_inspect.engine import Engine
from onnx_inspect.errors import LayerError
from onnx_inspect.graph.free import free
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read
from onnx_inspect.graph.surgery import cut, expose, extract

FIXTURES = Path(__file__).parents[2] / "fixtures"
NAMES = sorted(p.stem for p in FIXTURES.glob("*.onnx") if "epoch" not in p.stem)
# fp16 on a CPU is computed in float32 between casts that the runtime puts where it likes: 3 digits are what it keeps.
TOLERANCE = {"fp16": 2e-3}


def digest(model: Model) -> str:
    return hashlib.sha256(model.proto.SerializeToString(deterministic=True)).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_expose_keeps_logits_exactly(name: str, some: Any) -> None:
    model = read(FIXTURES / f"{name}.onnx")
    feeds = some(model, 1)
    plain = Engine(model, exact=True).run(feeds)
    opened = expose(model, model.layers)
    found = Engine(opened, exact=True).run(feeds)
    for output, values in plain.items():
        np.testing.assert_allclose(found[output], values, rtol=0, atol=TOLERANCE.get(name, 0))
    assert set(found) == {layer.output.name for layer in model.layers} | set(plain)


@pytest.mark.parametrize("name", NAMES)
def test_head_and_tail_are_the_whole_at_every_layer(name: str, some: Any) -> None:
    model = read(FIXTURES / f"{name}.onnx")
    feeds = some(model, 3)
    whole = Engine(model, exact=True).run(feeds)
    refused = []
    for layer in model.layers:
        try:
            parts = cut(model, layer)
        except LayerError:
            refused.append(layer.output.name)
            continue
        middle = Engine(parts.head, exact=True).run({n: a for n, a in feeds.items() if n in names(parts.head)})
        given = {i: middle[i] if i in middle else feeds[i] for i in names(parts.tail)}
        found = Engine(parts.tail, exact=True).run(given)
        for output, values in found.items():
            np.testing.assert_allclose(values, whole[output], rtol=0, atol=TOLERANCE.get(name, 0), err_msg=layer.name)
        assert set(found) | set(middle) >= set(whole)
    dead_ends = {o.name for o in model.outputs} | {"states"}  # an LSTM's states that nothing reads
    assert set(refused) <= dead_ends


def names(model: Model) -> set[str]:
    return {spec.name for spec in model.inputs}


@pytest.mark.parametrize("name", ["skip", "if_loop", "fixed_batch_vit", "external", "bf16"])
def test_no_model_is_changed_by_surgery(name: str) -> None:
    model = read(FIXTURES / f"{name}.onnx")
    before = digest(model)
    opened = expose(model, [*model.layers, *model.inner])
    between = digest(opened)
    expose(opened, model.layers)
    for layer in model.layers[:-1]:
        cut(model, layer)
        cut(opened, layer)
    free(model)
    Engine(model).run(
        {i.name: np.zeros([1 if isinstance(d, str) else d for d in i.shape or ()], np.float32) for i in model.inputs}
    )
    assert digest(model) == before
    assert digest(opened) == between


def test_expose_dedupes_and_keeps_the_order(fixtures: Path) -> None:
    model = read(fixtures / "skip.onnx")
    relu = model.layer("stem_relu")
    opened = expose(model, [relu, "a_out", relu, "stem_relu", model.outputs[0].name])
    assert [o.name for o in opened.outputs] == ["logits", "stem_relu", "a_out"]
    assert [o.name for o in opened.proto.graph.output] == ["logits", "stem_relu", "a_out"]
    assert expose(opened, [relu]).proto == opened.proto


def test_expose_declares_types_and_shapes_that_are_known(fixtures: Path) -> None:
    model = read(fixtures / "skip.onnx")
    opened = expose(model, model.layers)
    onnx.checker.check_model(opened.proto, full_check=True)
    declared = {o.name: o for o in opened.proto.graph.output}
    assert declared["top"].type.tensor_type.elem_type == TensorProto.FLOAT
    assert [d.dim_param or d.dim_value for d in declared["top"].type.tensor_type.shape.dim] == ["N", 8, 8, 9]


def test_expose_leaves_unknown_types_to_the_runtime(make: Callable[..., Model]) -> None:
    nodes = [
        helper.make_node("Gelu", ["x"], ["a"], domain="com.microsoft"),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    model = make(nodes, {"x": ("float32", ["N", 2])}, ["y"], opsets=[helper.make_opsetid("com.microsoft", 1)])
    opened = expose(model, ["a"])
    assert not opened.proto.graph.output[-1].HasField("type")
    assert Engine(opened).run({"x": np.ones((2, 2), np.float32)})["a"].shape == (2, 2)


@pytest.mark.parametrize("name", ["nothing", "conv.weight", "input"])
def test_expose_refuses_what_is_not_computed(fixtures: Path, name: str) -> None:
    with pytest.raises(LayerError, match=f"tensor '{name}' is not computed by"):
        expose(read(fixtures / "gap.onnx"), [name])


def test_a_cut_carries_what_crosses_it(fixtures: Path) -> None:
    parts = cut(read(fixtures / "skip.onnx"), "b_relu")
    assert parts.tensor == "b_relu"
    assert set(parts.crossing) == {"a_out", "stem_relu"}
    assert [i.name for i in parts.tail.inputs] == ["b_relu", *parts.crossing]
    assert [o.name for o in parts.head.outputs] == ["b_relu", *parts.crossing]


def test_a_cut_at_the_input_leaves_the_whole_as_tail(fixtures: Path, some: Any) -> None:
    model = read(fixtures / "multi_input.onnx")
    parts = cut(model, "image")
    feeds = some(model, 2)
    found = Engine(parts.tail, exact=True).run(
        {
            n: feeds.get(n, None) if n in feeds else Engine(parts.head, exact=True).run(feeds)[n]
            for n in names(parts.tail)
        }
    )
    np.testing.assert_array_equal(found["logits"], Engine(model, exact=True).run(feeds)["logits"])


def test_a_cut_for_chosen_outputs_drops_the_rest(make: Callable[..., Model]) -> None:
    nodes = [helper.make_node(op, [a], [b]) for op, a, b in (("Relu", "x", "h"), ("Neg", "h", "y"), ("Exp", "h", "z"))]
    model = make(nodes, {"x": ("float32", ["N", 2])}, ["y", "z"])
    parts = cut(model, "h", outputs=["z"])
    assert [o.name for o in parts.tail.outputs] == ["z"]
    assert [layer.op_type for layer in parts.tail.layers] == ["Exp"]


def test_a_cut_repeats_shape_computations_in_the_tail(make: Callable[..., Model]) -> None:
    """The tail takes other numbers of samples than the head: the target of its Reshape must not come from the head."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"], axis=0),
        helper.make_node("Concat", ["n", "rest"], ["target"], axis=0),
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("Shape", ["h"], ["of_h"]),
        helper.make_node("Slice", ["of_h", "zero", "one"], ["n_h"]),
        helper.make_node("Concat", ["n_h", "rest"], ["target_h"], axis=0),
        helper.make_node("Reshape", ["h", "target_h"], ["y"]),
    ]
    model = make(nodes, {"x": ("float32", ["N", 2, 3])}, ["y"], {"zero": [0], "one": [1], "rest": [6]})
    parts = cut(model, "h")
    assert parts.crossing == ()
    found = Engine(parts.tail).run({"h": np.ones((5, 2, 3), np.float32)})
    assert found["y"].shape == (5, 6)


def test_what_no_sample_decides_is_shared_by_the_tail(make: Callable[..., Model]) -> None:
    """A crossing table made of a constant and of an input that all samples share isn't repeated for each sample."""
    nodes = [
        helper.make_node("Mul", ["table", "gain"], ["scaled"]),
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("MatMul", ["h", "scaled"], ["y"]),
    ]
    inputs = {"x": ("float32", ["N", 3]), "gain": ("float32", [])}
    model = make(nodes, inputs, ["y"], {"table": np.arange(6, dtype=np.float32).reshape(3, 2)})
    parts = cut(model, "h")
    assert parts.crossing == ("scaled",)
    assert parts.tail.shared == {"scaled"}
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    middle = Engine(parts.head).run({"x": x, "gain": np.float32(2)})
    assert middle["scaled"].shape == (3, 2)
    found = Engine(parts.tail).run({"h": middle["h"], "scaled": middle["scaled"]})
    np.testing.assert_allclose(found["y"], np.maximum(x, 0) @ (2 * np.arange(6).reshape(3, 2)), rtol=1e-6)


def test_a_cut_is_refused_where_nothing_follows(fixtures: Path) -> None:
    model = read(fixtures / "lstm.onnx")
    with pytest.raises(LayerError, match=r"no output of .* depends on 'states'"):
        cut(model, "states")
    with pytest.raises(LayerError, match="tensor 'nothing' is not computed by"):
        cut(model, "nothing")


def test_a_cut_inside_control_flow_is_refused_with_the_reason(fixtures: Path) -> None:
    model = read(fixtures / "if_loop.onnx")
    with pytest.raises(LayerError, match="inside control flow: it can be exposed, but the model can't be cut there"):
        cut(model, model.layer("loop_conv_node"))


def test_extract_keeps_weights_that_only_bodies_read(fixtures: Path, some: Any) -> None:
    model = read(fixtures / "if_loop.onnx")
    part = extract(model, ["relu"], ["loop_state"])
    assert "loop_node" in {layer.name for layer in part.layers}
    assert {layer.name.split("/")[0] for layer in part.inner} == {"first_if_node", "loop_node"}
    feeds = some(model, 2)
    values = Engine(expose(model, ["relu", "loop_state"]), exact=True).run(feeds)
    found = Engine(part, exact=True).run({i.name: values.get(i.name, feeds.get(i.name)) for i in part.inputs})
    np.testing.assert_array_equal(found["loop_state"], values["loop_state"])


@pytest.mark.parametrize(
    "name", ["resnet8_keras_int8", "vit_cifar10_pgd_2_3_16", "captum_cifar_dynamo_op21", "mnist_cntk_op7"]
)
def test_head_and_tail_are_the_whole_on_real_models(real: Path, some: Any, name: str) -> None:
    model = read(real / "models" / f"{name}.onnx")
    feeds = some(model, 3)
    whole = Engine(model, exact=True).run(feeds)
    for layer in model.layers[:-1:7]:
        parts = cut(model, layer)
        middle = Engine(parts.head, exact=True).run(feeds)
        found = Engine(parts.tail, exact=True).run({i: middle[i] for i in names(parts.tail)})
        for output, values in found.items():
            np.testing.assert_allclose(values, whole[output], rtol=0, atol=1e-5, err_msg=layer.name)
