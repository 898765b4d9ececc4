"""ViT-Recipro-CAM on a real vision transformer against the paper's own double masking, with plain onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from onnx_inspect import methods as explain
from onnx_inspect.cam import recipro_cam, vit_recipro_cam
from onnx_inspect.cam._probe import Probe
from onnx_inspect.cam.vit_recipro_cam import Params
from onnx_inspect.graph.read import read
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.targets import ClassTarget

MakeProbe = Callable[..., Probe]
Array = NDArray[np.float64]

VIT = Path(__file__).parents[2] / "fixtures/digits_vit.onnx"
NORM, SKIP = "layer_norm_4", "add_223"  # the last block's input, after its LayerNorm and on the skip connection
WINDOW = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16


def session(proto: onnx.ModelProto) -> ort.InferenceSession:
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def slow(x: NDArray[np.float32], target: int, *, gaussian: bool, replaced: tuple[str, ...]) -> NDArray[np.float64]:
    """Mask the tokens of the tensors `replaced` for one position after the other; the class token stays."""
    proto = onnx.load(VIT)
    opened, tail = onnx.ModelProto.FromString(proto.SerializeToString()), proto
    for name in replaced:
        opened.graph.output.append(onnx.ValueInfoProto(name=name))
        for node in tail.graph.node:
            node.input[:] = [f"{name}_replaced" if n == name else n for n in node.input]
        tail.graph.input.append(
            onnx.helper.make_tensor_value_info(f"{name}_replaced", onnx.TensorProto.FLOAT, ["batch", 65, 48])
        )
    tokens = session(opened).run(list(replaced), {"input": x[None]})
    runner, out = session(tail), np.zeros((8, 8))
    for i in range(8):
        for j in range(8):
            weights = np.zeros((10, 10))
            weights[i : i + 3, j : j + 3] = WINDOW if gaussian else np.eye(3)[1][:, None] * np.eye(3)[1]
            kept = np.concatenate([[1], weights[1:-1, 1:-1].ravel()]).astype(np.float32)
            feeds = {f"{n}_replaced": t * kept[None, :, None] for n, t in zip(replaced, tokens, strict=True)}
            out[i, j] = runner.run(["logits"], {"input": x[None], **feeds})[0][0, target]
    return out


def found(x: NDArray[np.float32], layer: str, **params: str) -> NDArray[np.float32]:
    net = read(VIT)
    batch = Batch({"input": x[None]}, "input", ("x",), (None,), (None,), None, None, ())
    view = explain.scene(net, batch, layer=layer, target=ClassTarget(3))
    return explain.attribute(view, "vit-recipro-cam", params).values[0]


@pytest.mark.parametrize("gaussian", [True, False])
def test_at_the_last_blocks_layer_norm_it_is_the_papers(gaussian: bool) -> None:
    """The paper masks the LayerNorm's output and the skip; of the skip a class token reads only its own part."""
    x = np.random.default_rng(0).uniform(-1, 1, (3, 32, 32)).astype(np.float32)
    expected = slow(x, 3, gaussian=gaussian, replaced=(NORM, SKIP))
    values = found(x, NORM, border="clip", gaussian=str(gaussian))
    assert np.ptp(expected) > 0.02
    np.testing.assert_allclose(values, expected, atol=1e-5)  # logits near 1 in float32, through one block


def test_at_the_residual_one_tensor_is_masked() -> None:
    x = np.random.default_rng(1).uniform(-1, 1, (3, 32, 32)).astype(np.float32)
    expected = slow(x, 3, gaussian=True, replaced=(SKIP,))
    np.testing.assert_allclose(found(x, SKIP, border="clip"), expected, atol=1e-5)


def curved(a: Array) -> Array:
    return np.stack([np.tanh(a.sum(axis=(2, 3)) @ [1.0, -2, 0.5]), (a**2).sum(axis=(1, 2, 3))], axis=1)


def test_windows_keep_each_neighbours_own_vector(make_probe: MakeProbe) -> None:
    a = np.random.default_rng(2).normal(size=(2, 3, 4, 5)).astype(np.float32)
    probe = make_probe(lambda x: np.zeros((len(x), 2)), np.zeros((2, 1, 8, 8), np.float32), activations=a, tail=curved)
    values = vit_recipro_cam.attribute(probe, Params(border="clip"))
    scaled = vit_recipro_cam.attribute(probe, Params())
    for n in range(2):
        for i in range(4):
            for j in range(5):
                window = np.zeros((4, 5))
                for di in (-1, 0, 1):
                    for dj in (-1, 0, 1):
                        if 0 <= i + di < 4 and 0 <= j + dj < 5:
                            window[i + di, j + dj] = WINDOW[di + 1, dj + 1]
                expected = curved((a[n] * window)[None])[0, 0]
                np.testing.assert_allclose(values[n, i, j], expected, rtol=1e-5, atol=1e-6)
                expected = curved((a[n] * window / window.sum())[None])[0, 0]
                np.testing.assert_allclose(scaled[n, i, j], expected, rtol=1e-5, atol=1e-6)


def test_the_centre_alone_is_recipro_cam(make_probe: MakeProbe) -> None:
    a = np.random.default_rng(3).normal(size=(2, 3, 4, 5)).astype(np.float32)
    probe = make_probe(lambda x: np.zeros((len(x), 2)), np.zeros((2, 1, 8, 8), np.float32), activations=a, tail=curved)
    alone = vit_recipro_cam.attribute(probe, Params(gaussian=False))
    np.testing.assert_allclose(
        alone, recipro_cam.attribute(probe, recipro_cam.Params(score="logit", window=1)), rtol=1e-6
    )
