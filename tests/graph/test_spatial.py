"""Maps are read with their layout, and the layer for a CAM is the last that still knows where things are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_inspect.graph.bind import bind
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read
from onnx_inspect.graph.spatial import Spatial, candidates, spatial


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=outputs.split()[0], **attributes)


@pytest.mark.parametrize(
    ("name", "layer", "form"),
    [
        ("gap", "relu_node", Spatial("channels-first", (6, 10))),
        ("skip", "top_relu_node", Spatial("channels-first", (8, 9))),
        ("nhwc", "model/conv2/Relu_node", Spatial("channels-first", (8, 10))),
        ("conv1d", "relu2_node", Spatial("channels-first", (16,))),
        ("conv3d", "relu2_node", Spatial("channels-first", (3, 4, 5))),
        ("function", "block2_node/add", Spatial("channels-first", (6, 8))),
        ("if_loop", "second_if_node", Spatial("channels-first", (8, 10))),
        ("fixed_batch_vit", "with_cls_node", Spatial("tokens", (4, 4), 1)),
        ("fixed_batch_concat", "placed_node", Spatial("tokens", (4, 4), 1)),
        ("shapes_resnet", "node_relu_8", Spatial("channels-first", (8, 8))),
        ("multi_input", "relu_node", Spatial("channels-first", (6, 8))),
    ],
)
def test_the_default_layer_of_each_fixture(fixtures: Path, name: str, layer: str, form: Spatial) -> None:
    model = read(fixtures / f"{name}.onnx")
    best = candidates(model, bind(model))[0]
    assert (best.layer.name, best.spatial, best.rank) == (layer, form, 1)


@pytest.mark.parametrize("name", ["linear", "lstm"])
def test_models_without_maps_have_no_candidate(fixtures: Path, name: str) -> None:
    model = read(fixtures / f"{name}.onnx")
    assert candidates(model, bind(model)) == ()


@pytest.mark.parametrize(
    ("name", "form", "grid", "prefix"),
    [
        ("squeezenet1_fp32", "channels-first", (13, 13), 0),
        ("mobilenet_v2_224_uint8", "channels-first", (7, 7), 0),
        ("resnet8_keras_int8", "channels-first", (8, 8), 0),
        ("fer_mini_xception", "channels-first", (4, 4), 0),
        ("vit_cifar10_pgd_2_3_16", "tokens", (2, 2), 1),
        ("nanodet_m_416", "channels-first", (13, 13), 0),  # its outputs are maps: the deepest
        ("deeplab_mnv2_dm05_uint8", "channels-first", (33, 33), 0),
    ],
)
def test_the_default_layer_of_real_models(real: Path, name: str, form: str, grid: tuple[int, ...], prefix: int) -> None:
    model = read(real / "models" / f"{name}.onnx")
    best = candidates(model, bind(model))[0]
    assert (best.spatial.form, best.spatial.grid, best.spatial.prefix) == (form, grid, prefix)


def test_a_patch_embedding_is_followed_through_every_form(make: Callable[..., Model]) -> None:
    nodes = [
        node("Conv", "x w", "patches", strides=[4, 4]),  # (N, 8, 3, 5)
        node("Reshape", "patches rows", "flat"),  # (N, 8, 15)
        node("Transpose", "flat", "tokens", perm=[0, 2, 1]),  # (N, 15, 8)
        node("Concat", "cls tokens", "with_cls", axis=1),  # (N, 16, 8)
        node("MatMul", "with_cls m", "mixed"),
        node("LayerNormalization", "mixed one", "normed"),
        node("Transpose", "patches", "last", perm=[0, 2, 3, 1]),
        node("Reshape", "last token_rows", "again"),
        node("Reshape", "again back", "map"),
        node("Gather", "normed zero", "y", axis=1),
    ]
    constants = {
        "w": np.zeros((8, 3, 4, 4), np.float32),
        "rows": [0, 8, 15],
        "cls": np.zeros((1, 1, 8), np.float32),
        "m": np.zeros((8, 8), np.float32),
        "one": np.ones(8, np.float32),
        "token_rows": [0, 15, 8],
        "back": [0, 3, 5, 8],
        "zero": np.int64(0),
    }
    model = make(nodes, {"x": ("float32", [1, 3, 12, 20])}, ["y", "map"], constants)
    found = spatial(model, bind(model))
    assert found == {
        "patches": Spatial("channels-first", (3, 5)),
        "flat": Spatial("flat", (3, 5)),
        "tokens": Spatial("tokens", (3, 5)),
        "with_cls": Spatial("tokens", (3, 5), 1),
        "mixed": Spatial("tokens", (3, 5), 1),
        "normed": Spatial("tokens", (3, 5), 1),
        "last": Spatial("channels-last", (3, 5)),
        "again": Spatial("tokens", (3, 5)),
        "map": Spatial("channels-last", (3, 5)),
    }


def test_a_layer_before_its_own_activation_is_not_offered_twice(fixtures: Path) -> None:
    model = read(fixtures / "skip.onnx")
    names = [c.layer.op_type for c in candidates(model, bind(model))]
    assert "Conv" not in names[:1]
    assert len({c.layer.name for c in candidates(model, bind(model))}) == len(names)
    assert [c.rank for c in candidates(model, bind(model))] == list(range(1, len(names) + 1))


def test_what_decides_no_output_is_no_candidate(make: Callable[..., Model]) -> None:
    nodes = [
        node("Conv", "x w", "used"),
        node("GlobalAveragePool", "used", "y"),
        node("Conv", "x w", "unused"),
        node("Relu", "unused", "dead_end"),
    ]
    model = make(nodes, {"x": ("float32", [1, 3, 8, 8])}, ["y"], {"w": np.zeros((4, 3, 3, 3), np.float32)})
    assert [c.layer.name for c in candidates(model, bind(model))] == ["used"]
