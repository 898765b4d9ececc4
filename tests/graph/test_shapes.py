"""Types and shapes follow without a weight being read; a large weight's values decide none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_inspect.errors import ModelError
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read
from onnx_inspect.graph.shapes import inferred


def test_what_the_runtime_makes_is_what_was_inferred(
    fixtures: Path, some: Callable[..., object], plainly: Callable[..., object]
) -> None:
    from onnx_inspect.graph.surgery import expose

    for path in sorted(fixtures.glob("*.onnx")):
        model = read(path)
        if model.folder and path.stem == "external":
            continue  # its weights lie beside it: the engine's business
        found = plainly(expose(model, model.layers), some(model, 1))
        for layer in model.layers:
            spec, value = layer.output, found[layer.output.name]
            if spec.shape is not None:
                assert len(spec.shape) == value.ndim, (path.stem, layer.name)
                assert all(d == got for d, got in zip(spec.shape, value.shape, strict=True) if isinstance(d, int))
            assert spec.dtype in ("", str(value.dtype))


def test_a_large_weight_is_not_copied_into_inference(make: Callable[..., Model]) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = make(nodes, {"x": ("float32", ["N", 300])}, ["y"], {"w": np.zeros((300, 20), np.float32)})
    graph = inferred(model.proto, "net.onnx")
    assert not graph.initializer
    assert [d.dim_param or d.dim_value for d in graph.output[0].type.tensor_type.shape.dim] == ["N", 20]


def test_bodies_are_inferred_too(fixtures: Path) -> None:
    graph = inferred(read(fixtures / "if_loop.onnx").proto, "net.onnx")
    body = next(a.g for n in graph.node if n.op_type == "Loop" for a in n.attribute if a.name == "body")
    assert {v.name for v in body.value_info} >= {"loop_conv", "loop_relu"}


def test_what_onnx_can_not_infer_at_all_keeps_what_is_declared(make: Callable[..., Model]) -> None:
    """A broken classifier of ai.onnx.ml makes onnx's inference raise, strict or not."""
    broken = helper.make_node("LinearClassifier", ["x"], ["label", "scores"], domain="ai.onnx.ml", coefficients=[1.0])
    opsets = [helper.make_opsetid("ai.onnx.ml", 1)]
    outputs = {"label": (TensorProto.INT64, ["N"]), "scores": ("float32", ["N", 3])}
    model = make([broken], {"x": ("float32", ["N", 4])}, outputs, opsets=opsets)
    assert model.tensor("scores").shape == ("N", 3)


def test_a_declared_shape_that_is_wrong_does_not_refuse_a_model_that_runs(
    make: Callable[..., Model], plainly: Callable[..., object]
) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    model = make(nodes, {"x": ("float32", ["N", 4])}, {"y": ("float32", ["N", 5])})
    assert plainly(model, {"x": np.ones((2, 4), np.float32)})["y"].shape == (2, 4)


@pytest.mark.parametrize(
    ("node", "constants", "kind"),
    [
        (helper.make_node("Add", ["x", "w"], ["y"], name="bad"), {"w": np.zeros(5, np.float32)}, "Add"),
        (helper.make_node("MatMul", ["x", "w"], ["y"], name="bad"), {"w": np.zeros((5, 2), np.float32)}, "MatMul"),
    ],
)
def test_contradictions_are_named(
    make: Callable[..., Model], node: onnx.NodeProto, constants: dict[str, object], kind: str
) -> None:
    with pytest.raises(ModelError, match=f"contradict each other at {kind} 'bad': "):
        make([node], {"x": ("float32", ["N", 4])}, ["y"], constants)
