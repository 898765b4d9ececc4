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


@pytest.mark.parametrize("order", ["channels first", "channels last"])
def test_patches_are_found_without_a_convolution(make: Callable[..., Model], order: str) -> None:
    """Pixels are moved into patches, as einops does it; tokens without a class token are averaged."""
    first = order == "channels first"
    shape = [1, 3, 12, 20] if first else [1, 12, 20, 3]
    nodes = [
        node("Div", "x scale", "scaled") if not first else node("Identity", "x", "scaled"),
        node("Reshape", "scaled apart", "taken_apart"),  # rows and columns of patches, and of pixels in them
        node("Transpose", "taken_apart", "by_patch", perm=[0, 2, 4, 3, 5, 1] if first else [0, 1, 3, 2, 4, 5]),
        node("Reshape", "by_patch rows", "patches"),
        node("MatMul", "patches w", "tokens"),
        node("Transpose", "tokens", "turned", perm=[0, 2, 1]),
        node("MatMul", "turned mix", "mixed"),  # along the tokens: an MLP-Mixer's
        node("Transpose", "mixed", "back", perm=[0, 2, 1]),
        node("Add", "tokens back", "sum"),
        node("ReduceMean", "sum", "y", axes=[1], keepdims=0),
    ]
    constants = {
        "scale": np.float32(255),
        "apart": [1, 3, 3, 4, 5, 4] if first else [1, 3, 4, 5, 4, 3],
        "rows": [1, 15, 48],
        "w": np.zeros((48, 8), np.float32),
        "mix": np.zeros((15, 15), np.float32),
    }
    model = make(nodes, {"x": ("float32", shape)}, ["y"], constants, opset=17)
    found = spatial(model, bind(model))
    assert {name: found[name] for name in ("patches", "tokens", "sum")} == dict.fromkeys(
        ("patches", "tokens", "sum"), Spatial("tokens", (3, 5))
    )
    assert not {"x", "scaled", "taken_apart"} & set(found)
    best = candidates(model, bind(model))[0]
    assert (best.layer.name, best.why) == ("sum", "the last tokens, which the network averages")


def test_a_crop_is_no_map_of_the_plane_but_all_its_strides_together_are(make: Callable[..., Model]) -> None:
    cuts = {"even": ([0, 0], [2, 2]), "odd": ([1, 0], [2, 2]), "right": ([0, 1], [2, 2]), "both": ([1, 1], [2, 2])}
    cuts["crop"] = [0, 0], [1, 1]
    nodes = [node("Conv", "x w", "maps")]
    constants: dict[str, Any] = {"w": np.zeros((4, 3, 1, 1), np.float32), "axes": [2, 3]}
    for name, (starts, steps) in cuts.items():
        constants |= {f"{name}_s": starts, f"{name}_e": [4, 4] if name == "crop" else [99, 99], f"{name}_t": steps}
        nodes.append(node("Slice", f"maps {name}_s {name}_e axes {name}_t", name))
    nodes.append(node("Concat", "even odd right both", "merged", axis=1))
    model = make(nodes, {"x": ("float32", [1, 3, 8, 12])}, ["merged", "crop"], constants)
    found = spatial(model, bind(model))
    assert found == {"maps": Spatial("channels-first", (8, 12)), "merged": Spatial("channels-first", (4, 6))}


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_a_pad_that_is_cropped_again_leaves_maps_in_their_place(make: Callable[..., Model], mode: str) -> None:
    nodes = [
        node("Conv", "x w", "maps"),
        node("Transpose", "maps", "last", perm=[0, 2, 3, 1]),
        node("Pad", "last pads", "padded", mode=mode),
        node("Reshape", "padded apart", "split"),
        node("Transpose", "split", "windows", perm=[0, 1, 3, 2, 4, 5]),
        node("Transpose", "windows", "joined", perm=[0, 1, 3, 2, 4, 5]),
        node("Reshape", "joined whole", "together"),
        node("Slice", "together zero end axes", "cropped"),
    ]
    constants = {
        "w": np.zeros((4, 3, 1, 1), np.float32),
        "pads": [0, 0, 0, 0, 0, 2, 3, 0],
        "apart": [1, 2, 5, 3, 5, 4],
        "whole": [1, 10, 15, 4],
        "zero": [0, 0],
        "end": [8, 12],
        "axes": [1, 2],
    }
    model = make(nodes, {"x": ("float32", [1, 3, 8, 12])}, ["cropped"], constants)
    found = spatial(model, bind(model))
    assert found["cropped"] == Spatial("channels-last", (8, 12))
    if mode == "constant":
        assert found["windows"].form == "windows"
        assert found["windows"].places[:6] == (0, 1, 2, 3, 4, 25)  # six cells are in the first row of windows


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
