"""The backward pass as a whole: targets, branches, batches, what is left alone, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_inspect.engine import Engine
from onnx_inspect.errors import LayerError
from onnx_inspect.graph.gradient import gradient, gradient_name, notes
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import parse, read
from tests.conftest import make_model, random_feeds, run_plainly

RNG = np.random.default_rng(0)
W = RNG.normal(size=(4, 3)).astype(np.float32)


def linear(rows: Any = "N") -> Model:
    """Scores (rows, 3) of x (rows, 4) after a square."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"], name="square"),
        helper.make_node("MatMul", ["square", "w"], ["scores"], name="head"),
    ]
    return make_model(nodes, {"x": (np.float32, [rows, 4])}, {"scores": (np.float32, [rows, 3])}, {"w": W})


def x(rows: int = 2) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(1).normal(size=(rows, 4)).astype(np.float32)


@pytest.mark.parametrize("select", ["index", 2, -1, "argmax", "seed"])
def test_a_class_is_selected_in_every_way(select: Any) -> None:
    built, feeds = gradient(linear(), ["x"], "scores", select=select), {"x": x()}
    scores = (x() ** 2) @ W
    chosen = {"index": np.array([1, 0]), "argmax": scores.argmax(1), "seed": np.array([1, 2])}.get(select)
    chosen = np.array([2, 2]) if chosen is None else chosen
    if select == "index":
        feeds["index"] = chosen
    if select == "seed":
        feeds["seed"] = np.eye(3, dtype=np.float32)[chosen]
    made = run_plainly(built, feeds)
    np.testing.assert_allclose(made["x__gradient"], 2 * x() * W.T[chosen], rtol=1e-6)
    np.testing.assert_allclose(made["scores"], scores, rtol=1e-6)
    if select == "argmax":
        np.testing.assert_array_equal(made["index"], chosen)


def test_all_elements_may_be_the_target_and_so_may_a_layer() -> None:
    made = run_plainly(gradient(linear(), ["x"], "square", select="ones"), {"x": x()})
    np.testing.assert_allclose(made["x__gradient"], 2 * x())


@pytest.mark.parametrize("select", ["index", "argmax", 1])
def test_classes_at_positions_are_summed(select: Any) -> None:
    nodes = [helper.make_node("Mul", ["x", "k"], ["y"])]
    factor = np.arange(1, 4, dtype=np.float32).reshape(3, 1, 1)
    model = make_model(nodes, {"x": (np.float32, ["N", 3, 2, 2])}, ["y"], {"k": factor})
    feeds: dict[str, Any] = {"x": np.ones((2, 3, 2, 2), np.float32)}
    if select == "index":
        feeds["index"] = np.array([2, 0])
    chosen = {"index": [2, 0], "argmax": [2, 2]}.get(select, [1, 1])
    made = run_plainly(gradient(model, ["x"], "y", select=select), feeds)["x__gradient"]
    expected = np.zeros((2, 3, 2, 2))
    for row, label in enumerate(chosen):
        expected[row, label] = label + 1
    np.testing.assert_array_equal(made, expected)


def test_scores_without_classes_or_without_samples_have_gradients() -> None:
    summed = helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)
    model = make_model([summed], {"x": (np.float32, ["N", 4])}, ["y"], {"axes": np.array([1])})
    made = run_plainly(gradient(model, ["x"], "y"), {"x": x(3), "seed": np.array([1, 2, 3], np.float32)})
    np.testing.assert_array_equal(made["x__gradient"], np.repeat([[1], [2], [3]], 4, 1))
    square = helper.make_node("Mul", ["x", "x"], ["y"])
    model = make_model([square], {"x": (np.float32, [4])}, ["y"])
    made = run_plainly(gradient(model, ["x"], "y", select="argmax"), {"x": x(1)[0]})
    assert np.count_nonzero(made["x__gradient"]) == 1


def test_a_tensor_with_several_readers_gets_the_sum() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        *(helper.make_node("Mul", ["a", k], [f"p{k}"]) for k in ("k2", "k3", "k5")),
        helper.make_node("Sum", ["pk2", "pk3", "pk5", "a"], ["y"]),
    ]
    constants = {name: np.float32(int(name[1])) for name in ("k2", "k3", "k5")}
    model = make_model(nodes, {"x": (np.float32, [3])}, ["y"], constants)
    made = run_plainly(gradient(model, ["x", "a"], "y", select="ones"), {"x": np.array([1, -1, 2], np.float32)})
    np.testing.assert_array_equal(made["a__gradient"], [11, 11, 11])
    np.testing.assert_array_equal(made["x__gradient"], [11, 0, 11])


def test_only_the_way_to_what_is_wanted_is_walked() -> None:
    whole, last = gradient(linear(), ["x"], "scores"), gradient(linear(), ["square"], "scores")
    assert len(last.proto.graph.node) < len(whole.proto.graph.node)
    added = [n.op_type for n in last.proto.graph.node][2:]
    assert sorted(added) == ["Identity", "MatMul", "Transpose"]


def test_the_forward_pass_and_the_model_given_stay_as_they_are(fixtures: Path) -> None:
    model = read(fixtures / "digits_convnet.onnx")
    before = model.proto.SerializeToString()
    built = gradient(model, [model.layers[2]], model.outputs[0].name)
    assert model.proto.SerializeToString() == before
    feeds = random_feeds(model, 2)
    name = model.outputs[0].name
    seed = np.ones(run_plainly(model, feeds)[name].shape, np.float32)
    np.testing.assert_array_equal(run_plainly(built, feeds | {"seed": seed})[name], run_plainly(model, feeds)[name])
    onnx.checker.check_model(built.proto)


def test_samples_of_a_batch_do_not_touch_each_other(fixtures: Path) -> None:
    model = read(fixtures / "shapes_resnet.onnx")
    layer = model.layer("Relu:-1")
    built = gradient(
        model, [layer, "x" if "x" in model.tensors else model.inputs[0].name], model.outputs[0].name, select=1
    )
    feeds = random_feeds(model, 3)
    names = [gradient_name(layer.output.name), gradient_name(model.inputs[0].name)]
    together = run_plainly(built, feeds, names)
    for row in range(3):
        alone = run_plainly(built, {n: v[row : row + 1] for n, v in feeds.items()}, names)
        for name in names:
            np.testing.assert_allclose(together[name][row], alone[name][0], rtol=1e-4, atol=1e-6)


def test_weights_have_gradients_too() -> None:
    made = run_plainly(gradient(linear(), ["w"], "scores", select="ones"), {"x": x()})["w__gradient"]
    np.testing.assert_allclose(made, np.repeat((x() ** 2).sum(0)[:, None], 3, 1), rtol=1e-6)


def test_a_gradient_has_a_gradient() -> None:
    once = gradient(linear(), ["x"], "scores", select=0)
    twice = gradient(once, ["x"], "x__gradient", select="ones")
    assert [o.name for o in twice.outputs] == ["scores", "x__gradient", "x__gradient_"]
    made = run_plainly(twice, {"x": x()})
    np.testing.assert_allclose(made["x__gradient_"], np.repeat(2 * W.T[:1], 2, 0), rtol=1e-6)


def test_names_that_are_taken_are_left_alone() -> None:
    nodes = [helper.make_node("Mul", ["seed", "seed"], ["y"])]
    built = gradient(make_model(nodes, {"seed": (np.float32, [2])}, ["y"]), ["seed"], "y")
    assert [i.name for i in built.inputs] == ["seed", "seed_"]
    made = run_plainly(built, {"seed": np.array([1, 2], np.float32), "seed_": np.ones(2, np.float32)})
    np.testing.assert_array_equal(made["seed__gradient"], [2, 4])


def test_shapes_do_not_carry_gradients() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["n"]),
        helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["f"], ["y"], keepdims=0),
    ]
    model = make_model(nodes, {"x": (np.float32, ["N", 2])}, ["y"])
    with pytest.raises(LayerError, match=r"'x' of made\.onnx has no gradient"):
        gradient(model, ["x"], "y")


@pytest.mark.parametrize(
    ("wrt", "of", "message"),
    [
        ("nowhere", "scores", "'nowhere' is not computed by made.onnx"),
        ("x", "nowhere", "'nowhere' is not computed by made.onnx"),
        ("scores", "square", "'square' of made.onnx doesn't depend on 'scores'"),
    ],
)
def test_what_can_not_be_asked_is_said(wrt: str, of: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        gradient(linear(), [wrt], of)


def test_a_selection_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="select is one of seed, index, argmax, ones"):
        gradient(linear(), ["x"], "scores", select="best")


def test_token_numbers_have_no_gradient_but_their_embedding_does() -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"], name="embed"),
        helper.make_node("ReduceSum", ["embedded", "axes"], ["y"]),
    ]
    table = np.ones((5, 3), np.float32)
    constants = {"table": table, "axes": np.array([1])}
    model = make_model(nodes, {"ids": (np.int64, ["N", 4])}, ["y"], constants)
    with pytest.raises(LayerError, match=r"'ids' of made.onnx holds int64.*nearest layer that has them is 'embed'"):
        gradient(model, ["ids"], "y")
    ids = np.array([[0, 1, 1, 4]])
    made = run_plainly(gradient(model, ["embedded", "table"], "y", select="ones"), {"ids": ids})
    np.testing.assert_array_equal(made["embedded__gradient"], np.ones((1, 4, 3)))
    np.testing.assert_array_equal(made["table__gradient"][:, 0], [1, 2, 0, 0, 1])


def test_what_has_no_rule_is_named_with_the_nearest_layer_that_has_a_gradient() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="first"),
        helper.make_node("Det", ["a"], ["d"], name="blocked"),
        helper.make_node("Relu", ["d"], ["r"], name="second"),
        helper.make_node("Mul", ["r", "r"], ["y"], name="third"),
    ]
    model = make_model(nodes, {"x": (np.float32, ["N", 2, 2])}, ["y"])
    with pytest.raises(LayerError) as caught:
        gradient(model, ["x"], "y")
    text = str(caught.value)
    assert "node 'blocked' (Det) can't be differentiated" in text and "nearest layer that has one is 'blocked'" in text
    assert "\n" not in text
    assert gradient(model, ["d"], "y").outputs[-1].name == "d__gradient"


def test_control_flow_is_refused_by_name(fixtures: Path) -> None:
    model = read(fixtures / "if_loop.onnx")
    with pytest.raises(LayerError, match=r"\((If|Loop)\) can't be differentiated"):
        gradient(model, [model.inputs[0].name], model.outputs[0].name)


def test_the_notes_say_what_was_passed_straight_through(fixtures: Path) -> None:
    model = read(fixtures / "int8_qdq.onnx")
    first = next(i.name for i in model.inputs)
    assert notes(model) == ()
    assert "straight through the rounding" in notes(gradient(model, [first], model.outputs[0].name, select=0))[0]


PLAIN = (
    *("bf16", "conv1d", "conv3d", "digits_convnet", "digits_vit", "external", "fixed_batch", "fixed_batch_concat"),
    *("fixed_batch_vit", "fp16", "function", "gap", "int8_qdq", "linear", "multi_input", "nhwc", "shapes_resnet"),
    *("skip", "unnamed"),
)


@pytest.mark.parametrize("name", PLAIN)
def test_every_fixture_has_input_gradients_on_any_batch(name: str, fixtures: Path) -> None:
    model = read(fixtures / f"{name}.onnx")
    inputs = [i.name for i in model.inputs if i.is_float]
    output = model.outputs[0]
    built = gradient(model, inputs, output.name)
    feeds = random_feeds(model, 3)
    value = Engine(model).run(feeds)[output.name]
    made = Engine(built).run(feeds | {"seed": np.ones(value.shape, np.float32)})
    for spec in built.outputs:
        if spec.name.endswith("__gradient"):
            assert np.isfinite(made[spec.name]).all(), spec.name
            assert made[spec.name].shape == feeds[spec.name.removesuffix("__gradient")].shape
    assert any(np.abs(made[gradient_name(n)]).max() > 0 for n in inputs)


def test_a_model_of_ir_version_3_is_brought_forward() -> None:
    model = linear()
    proto = onnx.ModelProto.FromString(model.proto.SerializeToString())
    proto.ir_version = 3
    proto.opset_import[0].version = 7
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3]))
    old = parse(proto.SerializeToString(), source="old.onnx")
    made = run_plainly(gradient(old, ["x"], "scores", select=0), {"x": x()})
    np.testing.assert_allclose(made["x__gradient"], 2 * x() * W.T[[0, 0]], rtol=1e-6)
