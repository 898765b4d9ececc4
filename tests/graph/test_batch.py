"""Where samples lie, which batch a model insists on, and that a freed batch gives what its samples give alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_inspect.engine import Engine
from onnx_inspect.graph.batch import batch_axes, fixed_batch, sample_axis, varying
from onnx_inspect.graph.free import free
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read

RNG = np.random.default_rng(0)
Shape = tuple[Any, ...]


def node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), **attributes)


@pytest.mark.parametrize(
    ("shapes", "axes", "fixed"),
    [
        ({"x": ("N", 3, 8, 8)}, {"x": 0}, None),
        ({"x": (None, 4)}, {"x": 0}, None),
        ({"x": (1, 3, 8, 8)}, {"x": 0}, 1),
        ({"x": (4, 3, 8, 8)}, {"x": 0}, 4),
        ({"x": ()}, {"x": None}, None),
        ({"x": None}, {"x": 0}, None),
        ({"x": ("None", 3, "None", "None")}, {"x": 0}, None),
        ({"x": ("time", "batch", 5)}, {"x": 1}, None),  # a symbol named like a batch wins over one that opens
        ({"x": ("T", "N", 5)}, {"x": 1}, None),
        ({"x": ("batch", 5), "state": (2, "batch", 8), "rate": ()}, {"x": 0, "state": 1, "rate": None}, None),
        ({"x": ("a", 5), "z": ("b", 5)}, {"x": 0, "z": 0}, None),
        ({"x": ("N", 5), "anchors": (100, 4)}, {"x": 0, "anchors": None}, None),
        ({"x": (1, 5), "z": (1, 7)}, {"x": 0, "z": 0}, 1),
        ({"x": (1, 3, 8, 8), "anchors": (100, 4)}, {"x": 0, "anchors": None}, 1),
        ({"x": (1, 512), "rate": (1,), "h": (2, 1, 64), "c": (2, 1, 64)}, {"x": 0, "rate": None, "h": 1, "c": 1}, 1),
        ({"x": (4, 5), "table": (9, 5)}, {"x": 0, "table": None}, 4),
    ],
)
def test_the_axis_of_samples(
    make: Callable[..., Model], shapes: dict[str, Shape | None], axes: dict[str, int | None], fixed: int | None
) -> None:
    nodes = [node("Identity", name, f"{name}_out") for name in shapes]
    model = make(nodes, {n: ("float32", s) for n, s in shapes.items()}, [f"{n}_out" for n in shapes])
    assert batch_axes(model) == axes
    assert fixed_batch(model) == fixed


def test_the_axis_of_samples_inside_follows_the_symbol(make: Callable[..., Model]) -> None:
    model = make(
        [node("Transpose", "x", "t", perm=[1, 2, 0]), node("Relu", "t")], {"x": ("float32", ["N", 3, 4])}, ["y"]
    )
    assert sample_axis(model, "y") == 2
    assert sample_axis(model, "nothing") is None


def test_what_varies_with_the_sample(make: Callable[..., Model]) -> None:
    nodes = [
        node("Shape", "x", "shape"),
        node("ConstantOfShape", "shape", "zeros"),
        node("Mul", "w rate", "scaled"),
        node("Add", "x zeros", "a"),
        node("MatMul", "a scaled"),
    ]
    inputs = {"x": ("float32", ["N", 3]), "rate": ("float32", [])}
    model = make(nodes, inputs, ["y"], {"w": np.ones((3, 2), np.float32)})
    assert varying(model) == {"x", "a", "y"}


def flow(condition: str, then: list[onnx.NodeProto], other: list[onnx.NodeProto], outputs: str) -> onnx.NodeProto:
    """An If whose branches make their last tensors."""
    count = len(outputs.split())
    bodies = []
    for name, nodes in (("t", then), ("e", other)):
        made = [n.output[0] for n in nodes[-count:]]
        infos = [helper.make_tensor_value_info(m, TensorProto.FLOAT, None) for m in made]
        bodies.append(helper.make_graph(nodes, name, [], infos))
    return node("If", condition, outputs, then_branch=bodies[0], else_branch=bodies[1])


def test_each_output_of_a_branch_varies_on_its_own(make: Callable[..., Model]) -> None:
    then = [node("Relu", "x", "t1"), node("Neg", "w", "t2")]
    other = [node("Exp", "x", "e1"), node("Abs", "w", "e2")]
    model = make(
        [flow("flag", then, other, "one two")],
        {"x": ("float32", ["N", 3]), "flag": (np.bool_, [])},
        ["one", "two"],
        {"w": np.ones(2, np.float32)},
    )
    assert varying(model) == {"x", "one"}
    by_value = [
        node("ReduceSum", "x", "s", keepdims=0),
        node("Cast", "s", "yes", to=TensorProto.BOOL),
        flow("yes", then, other, "one two"),
    ]
    model = make(by_value, {"x": ("float32", ["N", 3])}, ["one", "two"], {"w": np.ones(2, np.float32)})
    assert {"one", "two"} <= varying(model)  # which branch runs depends on the sample


def test_what_a_loop_hands_on_varies_once_any_turn_does(make: Callable[..., Model]) -> None:
    """a <- b, b <- c, c <- x: after the first turn only c depends on x, after the third all do; d never does."""
    names = "abcd"
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names]
    body = helper.make_graph(
        [
            node("Identity", "b", "a2"),
            node("Identity", "c", "b2"),
            node("Identity", "x", "c2"),
            node("Neg", "d", "d2"),
            node("Identity", "go", "g2"),
        ],
        "body",
        [
            helper.make_tensor_value_info("t", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            *infos,
        ],
        [
            helper.make_tensor_value_info("g2", TensorProto.BOOL, []),
            *(helper.make_tensor_value_info(f"{n}2", TensorProto.FLOAT, None) for n in names),
        ],
    )
    nodes = [node("Loop", "turns on w w w w", "A B C D", body=body)]
    constants = {"turns": np.int64(3), "on": np.bool_(True), "w": np.zeros((1, 3), np.float32)}
    model = make(nodes, {"x": ("float32", ["N", 3])}, ["A", "B", "C", "D"], constants)
    assert varying(model) == {"x", "A", "B", "C"}


# Freeing a batch of one


def proved(model: Model, count: int = 5, seed: int = 0) -> str:
    """Check that `count` samples give what each gives alone in a fresh session, and say how they were run."""
    axes = batch_axes(model)
    rng = np.random.default_rng(seed)
    feeds = {
        s.name: rng.normal(size=[count if i == axes[s.name] else d for i, d in enumerate(s.shape or ())]).astype(
            np.float32
        )
        for s in model.inputs
    }
    engine = Engine(model, exact=True)
    found = engine.run(feeds)
    for i in range(count):
        one = {n: a if axes[n] is None else np.take(a, [i], axes[n]) for n, a in feeds.items()}
        for name, value in Engine(model, exact=True).run(one).items():
            alone = engine.samples_first(name, value, 1)[0]
            together = engine.samples_first(name, found[name], count)[i]
            np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
    return engine.batching


def weights(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


PICTURE = {"x": ("float32", [1, 2, 4, 6])}
TOKENS = {"x": ("float32", [1, 6, 4])}
FREED: dict[str, tuple[Any, ...]] = {
    "Reshape": ([node("Reshape", "x t")], PICTURE, {"t": [1, 48]}),
    "Reshape with a free axis": ([node("Reshape", "x t")], PICTURE, {"t": [1, 2, -1]}),
    "Reshape that copies": ([node("Reshape", "x t")], PICTURE, {"t": [1, 0, 24]}),
    "Reshape into windows and back": (
        [
            node("Reshape", "x t", "a"),
            node("Transpose", "a", "b", perm=[0, 1, 3, 2, 4]),
            node("Reshape", "b w", "c"),
            node("MatMul", "c m", "d"),
            node("Reshape", "d u"),
        ],
        {"x": ("float32", [1, 4, 4, 3])},
        {"t": [1, 2, 2, 4, 3], "w": [8, 2, 3], "m": weights(3, 3), "u": [1, 48]},
    ),
    "Reshape of heads with a free axis": (
        [node("Reshape", "x t", "a"), node("MatMul", "a m", "b"), node("Reshape", "b u")],
        {"x": ("float32", [1, 6, 8])},
        {"t": [12, -1, 4], "m": weights(4, 4), "u": [1, 6, -1]},
    ),
    "one target of two Reshapes": (
        [node("Reshape", "x t", "a"), node("Reshape", "w t", "b"), node("Add", "a b")],
        PICTURE,
        {"t": [1, 48], "w": weights(48)},
    ),
    "Concat with a class token": ([node("Concat", "c x", axis=1)], TOKENS, {"c": weights(1, 1, 4)}),
    "Concat with an expanded token": (
        [node("Expand", "c s", "e"), node("Concat", "e x", axis=1)],
        TOKENS,
        {"c": weights(1, 1, 4), "s": [1, 1, 4]},
    ),
    "Concat with zeros of a written shape": (
        [node("ConstantOfShape", "s", "z"), node("Concat", "z x", axis=-1)],
        TOKENS,
        {"s": [1, 6, 2]},
    ),
    "Resize to sizes": ([node("Resize", "x - - s", mode="linear")], PICTURE, {"s": [1, 2, 7, 9]}),
    "Resize to sizes, nearest": (
        [node("Resize", "x - - s", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")],
        PICTURE,
        {"s": [1, 2, 8, 12]},
    ),
    "Upsample by scales": (
        [node("Resize", "x - s", mode="linear")],
        PICTURE,
        {"s": np.array([1, 1, 2, 2], np.float32)},
    ),
    "Expand along the batch": ([node("Expand", "x s")], {"x": ("float32", [1, 1, 4])}, {"s": [1, 6, 4]}),
    "Slice, Pad, Tile, Split": (
        [
            node("Slice", "x a b c", "s"),
            node("Pad", "s p", "q"),
            node("Tile", "q r", "t"),
            node("Split", "t", "y z", axis=2, num_outputs=2),
        ],
        PICTURE,
        {"a": [0], "b": [3], "c": [3], "p": [0, 0, 1, 0, 0, 0, 1, 0], "r": [1, 2, 1, 1]},
    ),
    "GridSample": ([node("GridSample", "x g")], PICTURE, {"g": np.clip(weights(1, 5, 5, 2), -1, 1)}),
    "GatherElements": ([node("GatherElements", "x i", axis=2)], PICTURE, {"i": RNG.integers(0, 4, (1, 2, 3, 6))}),
    "a mask that broadcasts": ([node("Where", "m x w")], TOKENS, {"m": weights(1, 6, 4) > 0, "w": weights(1, 6, 4)}),
}


@pytest.mark.parametrize("name", FREED)
def test_a_batch_of_one_is_freed(make: Callable[..., Model], name: str) -> None:
    nodes, inputs, constants = FREED[name]
    model = make(nodes, inputs, [n for n in nodes[-1].output], constants)
    assert proved(model) == "in batches, freed from a batch of one"
    assert fixed_batch(free(model)) is None


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("ways", ["forward", "bidirectional"])
def test_initial_states_are_freed(make: Callable[..., Model], op: str, ways: str) -> None:
    gates, directions = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 1 + (ways == "bidirectional")
    states = "h c" if op == "LSTM" else "h"
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2]),
        node(op, f"t w r - n {states}", "all last", hidden_size=3, direction=ways),
        node("Transpose", "last", "y", perm=[1, 0, 2]),
    ]
    constants = {
        "w": weights(directions, 3 * gates, 4),
        "r": weights(directions, 3 * gates, 3),
        "n": np.array([5], np.int32),
        "h": weights(directions, 1, 3),
        "c": weights(directions, 1, 3),
    }
    model = make(nodes, TOKENS, ["y", "all"], {k: v for k, v in constants.items() if k != "c" or op == "LSTM"})
    assert proved(model) == "in batches, freed from a batch of one"


def test_states_along_another_axis_are_freed_and_joined(make: Callable[..., Model]) -> None:
    """A recurrent step with its state as a second input, all of a fixed batch of one, [1, D] and [2, 1, H]."""
    nodes = [
        node("Unsqueeze", "x zero", "t"),
        node("LSTM", "t w r - - h h", "all last", hidden_size=3, direction="bidirectional"),
        node("Add", "last h", "state"),
    ]
    constants = {"w": weights(2, 12, 4), "r": weights(2, 12, 3), "zero": [0]}
    inputs = {"x": ("float32", [1, 4]), "h": ("float32", [2, 1, 3])}
    model = make(nodes, inputs, {"all": ("float32", [1, 2, 1, 3]), "state": ("float32", [2, 1, 3])}, constants)
    assert proved(model) == "in batches, freed from a batch of one"
    found = Engine(model).run({"x": weights(4, 4), "h": weights(2, 4, 3)})
    assert found["state"].shape == (2, 4, 3)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([node("Gather", "x zero", "a", axis=0), node("Unsqueeze", "a zero")], {"zero": [0]}),  # takes sample 0 only
        ([node("Transpose", "x", "t", perm=[1, 0, 2]), node("Reshape", "t s")], {"s": [6, 4]}),  # mixes rows
        ([node("ReduceMean", "x axes", "m"), node("Sub", "x m")], {"axes": [0]}),  # batch statistics
    ],
)
def test_what_can_not_be_freed_runs_one_by_one_and_says_so(
    make: Callable[..., Model], nodes: list[onnx.NodeProto], constants: Any
) -> None:
    model = make(nodes, TOKENS, ["y"], constants)
    assert proved(model).startswith("one sample at a time: a batch of two")


@pytest.mark.parametrize("name", ["fixed_batch", "fixed_batch_vit", "fixed_batch_concat"])
def test_the_fixtures_of_batch_one_are_freed(fixtures: Path, name: str) -> None:
    assert proved(read(fixtures / f"{name}.onnx")) == "in batches, freed from a batch of one"


@pytest.mark.parametrize(
    "name", ["nanodet_m_416", "ultraface_slim_320", "resnet20_cifar10", "mnist_cntk_op7", "mnist_mlp_256x4"]
)
def test_real_models_of_batch_one_are_freed(real: Path, name: str) -> None:
    assert proved(read(real / "models" / f"{name}.onnx"), 3) == "in batches, freed from a batch of one"


def test_freeing_forgets_shapes_that_no_longer_hold(fixtures: Path) -> None:
    freed = free(read(fixtures / "fixed_batch_vit.onnx"))
    assert freed.inputs[0].shape == ("batch", 3, 16, 16)
    assert freed.outputs[0].shape is not None
    assert not isinstance(freed.outputs[0].shape[0], int)
    onnx.checker.check_model(freed.proto, full_check=True)
