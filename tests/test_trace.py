"""A trace holds what the layers held, and how far opening them moved the outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnx_inspect.engine import Engine
from onnx_inspect.errors import OutputError
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read
from onnx_inspect.results import largest_difference
from onnx_inspect.trace import capture, save_arrays

X = np.random.default_rng(0).normal(size=(5, 3, 16, 18)).astype(np.float32)


def exactly(model: Model) -> Engine:
    return Engine(model, exact=True)


def test_activations_are_those_of_the_runtime(fixtures: Path, plainly: Any) -> None:
    from onnx_inspect.graph.surgery import expose

    model = read(fixtures / "skip.onnx")
    trace = capture(model, {"input": X}, model.layers, sources=list("abcde"), make_engine=exactly)
    expected = plainly(expose(model, model.layers), {"input": X})
    assert [layer.name for layer in trace.layers] == [layer.name for layer in model.layers]
    for layer in trace.layers:
        np.testing.assert_allclose(trace.activations[layer.name], expected[layer.output.name], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trace.outputs["logits"], expected["logits"], rtol=1e-5, atol=1e-6)
    assert (trace.drift, trace.provider, trace.sources) == (0.0, "CPUExecutionProvider", tuple("abcde"))
    assert trace.digest == model.digest


def test_layers_come_in_the_model_s_order_without_repeats(fixtures: Path) -> None:
    model = read(fixtures / "skip.onnx")
    wanted = [model.layer(n) for n in ("top", "stem", "top", "fc_node")]
    trace = capture(model, {"input": X[:1]}, wanted, sources=["a"], make_engine=Engine)
    assert [layer.name for layer in trace.layers] == ["stem_node", "top_node", "fc_node"]
    assert set(trace.activations) == {"stem_node", "top_node", "fc_node"}


def test_the_drift_is_the_largest_change_of_an_output(fixtures: Path, some: Any) -> None:
    """Half precision on a CPU: opening a layer moves the rounding, by no more than a few last digits."""
    model = read(fixtures / "fp16.onnx")
    feeds = some(model, 3)
    trace = capture(model, feeds, model.layers, sources=list("abc"), make_engine=Engine)
    first = {n: a[:1] for n, a in feeds.items()}
    from onnx_inspect.graph.surgery import expose

    plain, opened = Engine(model).run(first)["logits"], Engine(expose(model, model.layers)).run(first)["logits"]
    assert trace.drift == largest_difference(plain, opened)
    assert trace.drift < 0.05


def test_a_drift_of_nothing_numeric_is_unknown(make: Callable[..., Model]) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["a"]), helper.make_node("Identity", ["a"], ["y"])]
    model = make(nodes, {"x": (8, ["N", 1])}, {"y": (8, ["N", 1])})
    trace = capture(model, {"x": np.array([["a"]])}, [model.layer("a")], sources=["a"], make_engine=Engine)
    assert trace.drift is None
    assert trace.activations["Identity_0"].tolist() == [["a"]]


def test_what_all_samples_share_is_there_for_each(make: Callable[..., Model]) -> None:
    nodes = [helper.make_node("Exp", ["w"], ["e"]), helper.make_node("Mul", ["x", "e"], ["y"])]
    model = make(nodes, {"x": ("float32", ["N", 2])}, ["y"], {"w": np.zeros(2, np.float32)})
    trace = capture(model, {"x": np.ones((3, 2))}, model.layers, sources=list("abc"), make_engine=Engine)
    np.testing.assert_array_equal(trace.activations["Exp_0"], np.ones((3, 2)))


def test_half_precision_arrives_as_float32_and_integers_stay(fixtures: Path, some: Any) -> None:
    model = read(fixtures / "fp16.onnx")
    trace = capture(model, some(model, 1), model.layers, sources=["a"], make_engine=Engine)
    assert {str(a.dtype) for a in trace.activations.values()} == {"float32"}
    model = read(fixtures / "if_loop.onnx")
    trace = capture(
        model, some(model, 1), [model.layer("shape"), model.layer("is_high")], sources=["a"], make_engine=Engine
    )
    assert {n: str(a.dtype) for n, a in trace.activations.items()} == {"shape_node": "int64", "is_high_node": "bool"}


def test_finiteness_is_told(fixtures: Path) -> None:
    model = read(fixtures / "gap.onnx")
    bad = np.zeros((1, 3, 12, 20), np.float32)
    bad[0, 0, 0, 0] = np.inf
    trace = capture(
        model, {"input": bad}, [model.layer("conv"), model.layer("fc_node")], sources=["a"], make_engine=Engine
    )
    assert not trace.finite("conv_node")
    fine = capture(model, {"input": bad[:, 1:2].repeat(3, 1)}, [model.layer("conv")], sources=["a"], make_engine=Engine)
    assert fine.finite("conv_node")


def test_a_saved_trace_comes_back(fixtures: Path, tmp_path: Path, some: Any) -> None:
    model = read(fixtures / "function.onnx")  # its names hold slashes
    trace = capture(model, some(model, 3), model.layers, sources=list("abc"), make_engine=Engine)
    trace.save(tmp_path / "trace.npz")
    with np.load(tmp_path / "trace.npz") as found:
        assert set(found.files) == {layer.name for layer in model.layers}
        for name, array in trace.activations.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype


@pytest.mark.parametrize("name", ["file", "/model/conv", "a:0", "ünïcode", "with space", "arr_0", "../up", "x.npy"])
def test_any_name_is_a_key(tmp_path: Path, name: str) -> None:
    save_arrays(tmp_path / "a.npz", {name: np.arange(3), "text": np.array(["é", "b"], object)})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        np.testing.assert_array_equal(found[name], np.arange(3))
        assert found["text"].tolist() == ["é", "b"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_a_place_that_can_not_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"):
        save_arrays(tmp_path, {"a": np.zeros(1)})


def test_a_trace_of_no_layers_has_the_outputs(fixtures: Path) -> None:
    model = read(fixtures / "gap.onnx")
    trace = capture(model, {"input": np.zeros((1, 3, 12, 20))}, [], sources=["a"], make_engine=Engine)
    assert trace.activations == {}
    assert trace.outputs["logits"].shape == (1, 5)
