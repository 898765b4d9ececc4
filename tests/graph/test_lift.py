"""What lies inside If, Loop and Scan comes out with the values that it had there, and says which branch ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_inspect.engine import Engine
from onnx_inspect.errors import LayerError
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read
from onnx_inspect.graph.surgery import expose
from onnx_inspect.trace import capture

X = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
FLOAT = {"x": (np.float32, ["N", 3])}


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=f"{op}_{outputs.split()[0]}", **attributes)


def graph(
    name: str, nodes: Sequence[onnx.NodeProto], inputs: Sequence[Any], outputs: Sequence[Any], **weights: Any
) -> onnx.GraphProto:
    """A body; inputs and outputs are names of float32 tensors, or (name, type, shape)."""

    def info(given: Any) -> onnx.ValueInfoProto:
        name, kind, shape = given if isinstance(given, tuple) else (given, TensorProto.FLOAT, None)
        return helper.make_tensor_value_info(name, kind, shape)

    stored = [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()]
    return helper.make_graph(list(nodes), name, [info(i) for i in inputs], [info(o) for o in outputs], stored)


def choose(make: Callable[..., Model]) -> Model:
    """y = relu(2x) + 1 where the flag is set, else -x."""
    then = graph(
        "t",
        [node("Mul", "x two", "twice"), node("Relu", "twice", "r"), node("Add", "r one", "then_y")],
        [],
        ["then_y"],
        two=np.float32(2),
        one=np.float32(1),
    )
    other = graph("e", [node("Neg", "x", "else_y")], [], ["else_y"])
    nodes = [node("If", "flag", "y", then_branch=then, else_branch=other)]
    return make(nodes, FLOAT | {"flag": (np.bool_, [])}, {"y": (np.float32, ["N", 3])})


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("flag", [True, False])
def test_the_branch_that_ran_is_the_one_that_is_not_empty(make: Callable[..., Model], flag: bool, exact: bool) -> None:
    model = choose(make)
    opened = expose(model, model.inner)
    onnx.checker.check_model(opened.proto, full_check=True)
    found = Engine(opened, exact=exact).run({"x": X[:1], "flag": np.array(flag)})
    expected = {
        "If_y/then_branch/twice": 2 * X[:1],
        "If_y/then_branch/r": np.maximum(2 * X[:1], 0),
        "If_y/then_branch/then_y": np.maximum(2 * X[:1], 0) + 1,
        "If_y/else_branch/else_y": -X[:1],
    }
    np.testing.assert_allclose(
        found["y"], expected[f"If_y/{'then' if flag else 'else'}_branch/{'then' if flag else 'else'}_y"]
    )
    for name, values in expected.items():
        if ("then" in name.split("/")[1]) == flag:
            np.testing.assert_allclose(found[name], values)
        else:
            assert found[name].size == 0


def test_a_number_in_a_branch_comes_out(make: Callable[..., Model]) -> None:
    then = graph("t", [node("ReduceSum", "x", "sum", keepdims=0), node("Mul", "x sum", "then_y")], [], ["then_y"])
    other = graph("e", [node("Neg", "x", "else_y")], [], ["else_y"])
    model = make(
        [node("If", "flag", "y", then_branch=then, else_branch=other)], FLOAT | {"flag": (np.bool_, [])}, ["y"]
    )
    opened = Engine(expose(model, ["If_y/then_branch/sum"]))
    assert opened.run({"x": X[:1], "flag": np.array(True)})["If_y/then_branch/sum"] == pytest.approx(
        X[0].sum(), rel=1e-6
    )
    assert opened.run({"x": X[:1], "flag": np.array(False)})["If_y/then_branch/sum"].shape == (0,)


def loop(make: Callable[..., Model], outputs: str = "last halves") -> Model:
    """state <- relu(state) + x, three times; half of each state is stacked."""
    body = graph(
        "b",
        [
            node("Relu", "state", "up"),
            node("Add", "up x", "next"),
            node("Mul", "next half", "halved"),
            node("Identity", "go", "going"),
        ],
        [("turn", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), ("state", TensorProto.FLOAT, ["N", 3])],
        [
            ("going", TensorProto.BOOL, []),
            ("next", TensorProto.FLOAT, ["N", 3]),
            ("halved", TensorProto.FLOAT, ["N", 3]),
        ],
        half=np.float32(0.5),
    )
    nodes = [helper.make_node("Loop", ["turns", "on", "x"], outputs.split(), name="Loop_last", body=body)]
    ends = {"last": (np.float32, ["N", 3])}
    return make(nodes, FLOAT, ends, {"turns": np.int64(3), "on": np.bool_(True)})


def states(x: np.ndarray[Any, Any], turns: int = 3) -> tuple[list[Any], list[Any]]:
    ups, nexts = [], []
    state = x
    for _ in range(turns):
        ups.append(np.maximum(state, 0))
        state = ups[-1] + x
        nexts.append(state)
    return ups, nexts


@pytest.mark.parametrize("outputs", ["last halves", "last"])  # a node may leave out outputs at the end
def test_a_loop_stacks_its_turns(make: Callable[..., Model], outputs: str) -> None:
    model = loop(make, outputs)
    opened = expose(model, ["Loop_last/body/up", "Loop_last/body/next"])
    onnx.checker.check_model(opened.proto, full_check=True)
    ups, nexts = states(X)
    found = Engine(opened, exact=True).run({"x": X})
    np.testing.assert_allclose(found["Loop_last/body/up"], np.stack(ups), rtol=1e-6)  # (turns, N, 3)
    np.testing.assert_allclose(found["Loop_last/body/next"], np.stack(nexts), rtol=1e-6)
    np.testing.assert_allclose(found["last"], nexts[-1], rtol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_trace_has_samples_before_turns(make: Callable[..., Model], count: int) -> None:
    model = loop(make)
    x = np.random.default_rng(1).normal(size=(count, 3)).astype(np.float32)
    trace = capture(model, {"x": x}, model.inner, sources=["x"] * count, make_engine=Engine)
    ups, _ = states(x)
    np.testing.assert_allclose(
        trace.activations["Loop_last/body/Relu_up"], np.stack(ups, 1), rtol=1e-6
    )  # (N, turns, 3)
    np.testing.assert_array_equal(trace.activations["Loop_last/body/Identity_going"], np.ones((count, 3), bool))


def test_a_scan_stacks_its_steps_whatever_its_own_outputs_axes(make: Callable[..., Model]) -> None:
    """Cumulative sums over axis 1, read backwards and stacked along axis 1."""
    body = graph(
        "b",
        [node("Add", "state item", "next"), node("Neg", "next", "minus"), node("Identity", "next", "out")],
        ["state", "item"],
        ["next", "out"],
    )
    scan = helper.make_node(
        "Scan",
        ["start", "x"],
        ["last", "y"],
        name="Scan_y",
        body=body,
        num_scan_inputs=1,
        scan_input_axes=[1],
        scan_input_directions=[1],
        scan_output_axes=[1],
        scan_output_directions=[1],
    )
    model = make([scan], FLOAT, ["last", "y"], {"start": np.zeros(1, np.float32)})
    found = Engine(expose(model, model.inner)).run({"x": X[:1]})
    sums = np.cumsum(X[:1, ::-1], axis=1)
    np.testing.assert_allclose(found["y"], sums[:, ::-1], rtol=1e-6)
    np.testing.assert_allclose(found["Scan_y/body/minus"], -sums.T, rtol=1e-6)  # (steps, N)


def nested(make: Callable[..., Model]) -> Model:
    """Twice: where the flag is set, three turns of state <- 2 * state, else state <- -state."""
    doubling = graph(
        "inner",
        [node("Mul", "s two", "double"), node("Identity", "g", "g2")],
        [("t", TensorProto.INT64, []), ("g", TensorProto.BOOL, []), "s"],
        [("g2", TensorProto.BOOL, []), "double"],
        two=np.float32(2),
    )
    then = graph(
        "t",
        [helper.make_node("Loop", ["turns", "on", "state"], ["then_y"], name="inner_loop", body=doubling)],
        [],
        ["then_y"],
    )
    other = graph("e", [node("Neg", "state", "else_y")], [], ["else_y"])
    body = graph(
        "outer",
        [
            helper.make_node("If", ["flag"], ["next"], name="choice", then_branch=then, else_branch=other),
            node("Identity", "go", "going"),
        ],
        [("turn", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), "state"],
        [("going", TensorProto.BOOL, []), "next"],
    )
    nodes = [helper.make_node("Loop", ["two_turns", "on", "x"], ["y"], name="outer_loop", body=body)]
    constants = {"turns": np.int64(3), "two_turns": np.int64(2), "on": np.bool_(True)}
    return make(nodes, FLOAT | {"flag": (np.bool_, [])}, ["y"], constants)


@pytest.mark.parametrize("exact", [True, False])
def test_nested_bodies_are_lifted_level_by_level(make: Callable[..., Model], exact: bool) -> None:
    model = nested(make)
    layer = model.layer("outer_loop/body/choice/then_branch/inner_loop/body/Mul_double")
    assert layer.around == ("Loop", "If", "Loop")
    opened = Engine(expose(model, [layer, "outer_loop/body/choice/else_branch/else_y"]), exact=exact)
    found = opened.run({"x": X[:1], "flag": np.array(True)})
    powers = 2.0 ** np.arange(1, 7).reshape(2, 3, 1, 1)  # (outer turns, inner turns, 1, 1)
    np.testing.assert_allclose(found[layer.output.name], powers * X[:1])
    assert found["outer_loop/body/choice/else_branch/else_y"].size == 0
    found = opened.run({"x": X[:1], "flag": np.array(False)})
    assert found[layer.output.name].size == 0
    np.testing.assert_allclose(found["outer_loop/body/choice/else_branch/else_y"], np.stack([-X[:1], X[:1]]))


def test_branches_that_samples_take_differently_are_told_apart_one_by_one(make: Callable[..., Model]) -> None:
    then = graph("t", [node("Neg", "x", "then_y")], [], ["then_y"])
    other = graph("e", [node("Exp", "x", "else_y")], [], ["else_y"])
    nodes = [
        node("ReduceSum", "x", "sum", keepdims=0),
        node("Cast", "sum", "flag", to=TensorProto.BOOL),
        node("If", "flag", "y", then_branch=then, else_branch=other),
    ]
    model = make(nodes, FLOAT, ["y"])
    x = np.array([[1, 2, 3], [0, 0, 0], [4, 5, 6]], np.float32)
    engine = Engine(model)
    np.testing.assert_allclose(engine.run({"x": x})["y"], np.stack([-x[0], np.exp(x[1]), -x[2]]), rtol=1e-6)
    assert "one sample at a time" in engine.batching


@pytest.mark.parametrize("kind", ["sequence", "unknown"])
def test_what_can_not_leave_is_refused(make: Callable[..., Model], kind: str) -> None:
    inner = (
        node("SequenceConstruct", "x", "s") if kind == "sequence" else node("Gelu", "x", "s", domain="com.microsoft")
    )
    after = node("SequenceLength" if kind == "sequence" else "Size", "s", "n")
    bodies = [
        graph("t", [inner, after, node("Cast", "n", "then_y", to=TensorProto.FLOAT)], [], ["then_y"]),
        graph("e", [node("ReduceSum", "x", "else_y", keepdims=0)], [], ["else_y"]),
    ]
    flow = node("If", "flag", "y", then_branch=bodies[0], else_branch=bodies[1])
    model = make([flow], FLOAT | {"flag": (np.bool_, [])}, ["y"], opsets=[helper.make_opsetid("com.microsoft", 1)])
    with pytest.raises(LayerError, match="only tensors can leave" if kind == "sequence" else "nothing says which type"):
        expose(model, ["If_y/then_branch/s"])


def test_the_fixture_s_bodies_keep_the_logits(fixtures: Path, some: Any) -> None:
    model = read(fixtures / "if_loop.onnx")
    feeds = some(model, 2)
    opened = expose(model, model.inner)
    found = Engine(opened, exact=True).run(feeds)
    np.testing.assert_array_equal(found["logits"], Engine(model, exact=True).run(feeds)["logits"])
    halves = found["loop_node/body/loop_half"]
    np.testing.assert_allclose(halves, 0.5 * found["loop_node/body/loop_relu"])
    ran = {
        name.split("/")[1] for name, values in found.items() if "_if_node/" in name and values.size and "first" in name
    }
    assert ran == {"then_branch"}


def test_a_recurrent_model_whose_work_lies_in_branches_opens(real: Path) -> None:
    """The LSTM of silero: what its branch makes is what leaves the If around it."""
    model = read(real / "models" / "silero_vad_16k_op15.onnx")
    lstm = "/model/decoder/If_1/then_branch/model/decoder/rnn/Squeeze_output_0"
    outer = model.producers["/model/decoder/If_1_output_0"]
    opened = expose(model, [*model.inner, lstm, *outer.output])
    rng = np.random.default_rng(0)
    feeds = {
        "input": rng.normal(0, 0.1, (2, 576)).astype(np.float32),
        "state": np.zeros((2, 2, 128), np.float32),
        "sr": np.array(16000),
    }
    found = Engine(opened, exact=True).run(feeds)
    plain = Engine(model, exact=True).run(feeds)
    for name, values in plain.items():
        np.testing.assert_array_equal(found[name], values)
    assert found[lstm].shape == (2, 128)
    np.testing.assert_array_equal(found[lstm], found["/model/decoder/If_1_output_0"])
    assert not any(v.size for n, v in found.items() if n.startswith("/model/decoder/If_1/else_branch/"))
