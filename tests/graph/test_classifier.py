"""The class scores are found, and the logits before what squashes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_inspect.engine import Engine
from onnx_inspect.errors import TargetError
from onnx_inspect.graph.classifier import find
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read
from onnx_inspect.graph.surgery import expose


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


X = {"x": ("float32", ["N", 5])}
STEPS = {"s": np.float32(0.1), "z": np.uint8(3)}


@pytest.mark.parametrize(
    ("nodes", "scores", "squash"),
    [
        ([node("Relu", "x", "y")], "y", ""),
        ([node("Relu", "x", "a"), node("Softmax", "a", "y")], "a", "Softmax"),
        ([node("Relu", "x", "a"), node("LogSoftmax", "a", "y")], "a", "LogSoftmax"),
        ([node("Relu", "x", "a"), node("Sigmoid", "a", "y")], "a", "Sigmoid"),
        (
            [
                node("Relu", "x", "a"),
                node("Softmax", "a", "b"),
                node("Identity", "b", "c"),
                node("Reshape", "c t", "y"),
            ],
            "a",
            "Softmax",
        ),
        ([node("Relu", "x", "a"), node("Softmax", "a", "b"), node("QuantizeLinear", "b s z", "y")], "a", "Softmax"),
        (
            [
                node("Relu", "x", "a"),
                node("QuantizeLinear", "a s z", "q"),
                node("DequantizeLinear", "q s z", "b"),
                node("Softmax", "b", "y"),
            ],
            "b",
            "Softmax",
        ),
        ([node("Relu", "x", "a"), node("QuantizeLinear", "a s z", "y")], "a", ""),
        ([node("Softmax", "x", "a"), node("Exp", "a", "y")], "y", ""),
    ],
)
def test_scores_are_traced_back_to_logits(
    make: Callable[..., Model], nodes: list[onnx.NodeProto], scores: str, squash: str
) -> None:
    found = find(make(nodes, X, ["y"], STEPS | {"t": [0, 5]}))
    assert (found.output, found.scores, found.squash, found.logits) == ("y", scores, squash, bool(squash))


def test_the_steps_of_a_quantised_output_are_read(make: Callable[..., Model]) -> None:
    nodes = [node("Softmax", "x", "a"), node("QuantizeLinear", "a s z", "y")]
    model = make(nodes, X, ["y"], STEPS)
    found = find(model)
    assert (found.scale, found.zero_point) == (pytest.approx(0.1), 3)
    x = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    values = Engine(expose(model, ["a"])).run({"x": x})
    np.testing.assert_allclose((values["y"] - found.zero_point) * found.scale, values["a"], atol=0.0501)  # half a step


def test_the_output_with_scores_is_chosen_among_several(make: Callable[..., Model]) -> None:
    nodes = [
        node("ArgMax", "x", "label", axis=1, keepdims=1),
        node("Unsqueeze", "x two", "boxes"),
        node("Relu", "x", "scores"),
        node("Neg", "x", "others"),
    ]
    model = make(nodes, X, ["label", "boxes", "scores", "others"], {"two": [2]})
    assert find(model).output == "scores"
    assert find(model, output="others").output == "others"
    with pytest.raises(TargetError, match="has no output 'none'; it has: label, boxes, scores, others"):
        find(model, output="none")
    with pytest.raises(TargetError, match=r"no class scores of the form \[N, classes\]: 'label' is int64"):
        find(model, output="label")


def detector(make: Callable[..., Model], boxes: str) -> Model:
    """Scores and boxes of a picture's places, of which those above a threshold are kept."""
    nodes = [
        node("Flatten", "x", "row"),
        node("Reshape", "row four", "places"),  # (15, 4)
        node("ReduceMax", "places", "best", axes=[1], keepdims=0),
        node("Greater", "best least", "good"),
        node("NonZero", "good", "rows"),
        node("Squeeze", "rows zero", "which"),
        node("Gather", "places which", "boxes"),
        node("Gather", "best which", "scores"),
    ]
    constants = {"four": [-1, 4], "least": np.float32(0.5), "zero": [0]}
    return make(nodes, {"x": ("float32", [1, 3, 4, 5])}, [boxes, "scores"], constants)


@pytest.mark.parametrize("shapes", [None, {"boxes": (7, 4), "scores": (7,)}, {"boxes": (1, 4), "scores": (1,)}])
def test_boxes_that_were_found_are_no_class_scores(
    make: Callable[..., Model], shapes: dict[str, tuple[int, ...]] | None
) -> None:
    """Also where a single one was found: rows that a NonZero or a suppression counts are no samples."""
    with pytest.raises(TargetError, match="gives no class scores"):
        find(detector(make, "boxes"), shapes)


def test_boxes_of_all_places_are_no_class_scores(make: Callable[..., Model]) -> None:
    with pytest.raises(TargetError, match="gives no class scores"):
        find(detector(make, "places"), {"places": (15, 4), "scores": (7,)})


def test_a_block_of_samples_and_a_nonzero_of_constants_leave_class_scores(make: Callable[..., Model]) -> None:
    nodes = [
        node("NonZero", "ones", "places"),
        node("Squeeze", "places zero", "columns"),
        node("Gather", "x columns", "y", axis=1),
    ]
    model = make(nodes, {"x": ("float32", [4, 5])}, ["y"], {"ones": np.ones(5, np.float32), "zero": [0]})
    assert find(model, {"y": (4, 5)}).output == "y"


@pytest.mark.parametrize(
    "name", ["ultraface_slim_320", "deeplab_mnv2_dm05_uint8", "yunet_s_320", "style_candy", "minilm_l6_cutvocab_int8"]
)
def test_models_without_class_scores_say_what_they_give(real: Path, name: str) -> None:
    with pytest.raises(TargetError, match=r"gives no class scores of the form \[N, classes\]: '.*' is \w+ \["):
        find(read(real / "models" / f"{name}.onnx"))


@pytest.mark.parametrize(
    ("name", "squash"),
    [
        ("squeezenet1_fp16", "Softmax"),
        ("resnet8_keras_int8", "Softmax"),
        ("mobilenet_v1_025_128_uint8", "Softmax"),
        ("resnet20_cifar10", ""),
        ("digits_mlp_sklearn", "Softmax"),
    ],
)
def test_logits_of_real_models_make_their_outputs(real: Path, some: Any, name: str, squash: str) -> None:
    model = read(real / "models" / f"{name}.onnx")
    found = find(model)
    assert found.squash == squash
    values = Engine(expose(model, [found.scores]), exact=True).run(some(model, 1))
    logits = values[found.scores].astype(np.float64).reshape(1, -1)
    output = ((values[found.output].astype(np.float64) - found.zero_point) * found.scale).reshape(1, -1)
    if squash:
        powers = np.exp(logits - logits.max())
        logits = powers / powers.sum()
    np.testing.assert_allclose(output, logits, atol=max(1e-3, 2 * found.scale * (found.scale != 1)))


def test_a_dictionary_of_scores_is_looked_through(real: Path) -> None:
    model = read(real / "models" / "iris_logreg_zipmap.onnx")
    found = find(model)
    assert (found.output, found.scores) == ("output_probability", "probabilities")
    x = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], np.float32)
    values = Engine(expose(model, [found.scores])).run({"input": x})
    np.testing.assert_allclose(values[found.scores], values[found.output])
    assert values[found.output].shape == (2, 3)
