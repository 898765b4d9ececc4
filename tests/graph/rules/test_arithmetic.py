"""Sums, products and casts: gradients against autograd and differences, whatever is broadcast."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from onnx import helper

from onnx_inspect.errors import LayerError
from onnx_inspect.graph.gradient import gradient
from onnx_inspect.graph.rules._rule import table
from tests.conftest import make_model, run_plainly
from tests.graph.rules.oracle import check, drawn

torch = pytest.importorskip("torch", reason="PyTorch's autograd is the oracle")

TWO: dict[str, Any] = {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch.div}
MANY: dict[str, Any] = {
    "Sum": lambda *v: sum(v[1:], v[0]),
    "Mean": lambda *v: sum(v[1:], v[0]) / len(v),
}


@pytest.mark.parametrize("kind", TWO)
@drawn(12)
@given(shapes=mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3))
def test_two_operands_get_gradients_of_their_own_shape(kind: str, shapes: Any) -> None:
    rng = np.random.default_rng(0)
    one, other = shapes.input_shapes
    inputs = {"a": rng.normal(size=one), "b": rng.uniform(0.5, 2, other)}
    check([helper.make_node(kind, ["a", "b"], ["y"])], inputs, TWO[kind])


@pytest.mark.parametrize("kind", MANY)
@drawn(8)
@given(shapes=mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3))
def test_many_operands_get_gradients_of_their_own_shape(kind: str, shapes: Any) -> None:
    rng = np.random.default_rng(0)
    inputs = {name: rng.normal(size=shape) for name, shape in zip("abc", shapes.input_shapes, strict=True)}
    check([helper.make_node(kind, list(inputs), ["y"])], inputs, MANY[kind])


@pytest.mark.parametrize("kind", TWO)
def test_a_tensor_on_both_sides_gets_both_gradients(kind: str) -> None:
    x = np.random.default_rng(0).uniform(0.5, 2, (2, 3))
    check([helper.make_node(kind, ["x", "x"], ["y"])], {"x": x}, lambda x: TWO[kind](x, x))


@drawn(10)
@given(exclusive=st.booleans(), reverse=st.booleans(), axis=st.integers(-3, 2))
def test_cumulative_sums_have_pytorchs_gradient(exclusive: bool, reverse: bool, axis: int) -> None:
    def formula(x: Any) -> Any:
        x = x.flip(axis) if reverse else x
        total = x.cumsum(axis) - (x if exclusive else 0)
        return total.flip(axis) if reverse else total

    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    node = helper.make_node("CumSum", ["x", "axis"], ["y"], exclusive=int(exclusive), reverse=int(reverse))
    check([node], {"x": x}, formula, constants={"axis": np.array(axis)})


def test_what_passes_unchanged_passes_the_gradient() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3))
    for kind in ("Identity", "Dropout"):
        check([helper.make_node(kind, ["x"], ["y"])], {"x": x}, lambda x: x * 1)
    check([helper.make_node("Neg", ["x"], ["y"])], {"x": x}, torch.neg)


def test_dropout_in_training_is_refused() -> None:
    node = helper.make_node("Dropout", ["x", "ratio", "training"], ["y"], name="drop")
    constants = {"ratio": np.float32(0.5), "training": np.array(True)}
    model = make_model([node], {"x": (np.float32, [2, 3])}, ["y"], constants)
    with pytest.raises(LayerError, match=r"'drop' \(Dropout\).*training mode"):
        gradient(model, ["x"], "y")


@pytest.mark.parametrize("half", [onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16])
def test_gradients_go_through_half_precision_in_float32(half: int) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=half),
        helper.make_node("Mul", ["h", "h"], ["s"]),
        helper.make_node("Cast", ["s"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    model = make_model(nodes, {"x": (np.float32, [2, 3])}, ["y"])
    built = gradient(model, ["x", "h"], "y")
    x = np.arange(6, dtype=np.float32).reshape(2, 3) / 4  # exact in both
    seed = np.full((2, 3), 1e-8, np.float32)  # float16 would make it 0
    if half == onnx.TensorProto.BFLOAT16:
        nodes_run = [n.op_type for n in built.proto.graph.node]
        assert nodes_run.count("Cast") == 3  # one more: what the product reads, for its own gradient
        return
    made = run_plainly(built, {"x": x, "seed": seed}, ["x__gradient", "h__gradient"])
    for value in made.values():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, 2e-8 * x, rtol=1e-6)


def test_a_cast_to_float64_and_back_has_a_gradient_of_the_inputs_type() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["d"], to=onnx.TensorProto.DOUBLE),
        helper.make_node("Mul", ["d", "d"], ["s"]),
        helper.make_node("CastLike", ["s", "x"], ["y"]),
    ]
    check(nodes, {"x": np.random.default_rng(0).normal(size=(2, 3))}, lambda x: x * x)


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".arithmetic")}
    assert rules == {*TWO, *MANY, "Neg", "CumSum", "Identity", "Dropout", "Cast", "CastLike"}
