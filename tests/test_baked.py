"""A baked model gives its own outputs and the map: the same as outside, from any runtime of standard operators."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx.reference import ReferenceEvaluator

from onnx_inspect.baked import Baked, baked
from onnx_inspect.cli.bake import command
from onnx_inspect.errors import LayerError, MethodError
from onnx_inspect.graph.baking import methods
from onnx_inspect.graph.read import read
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.inputs.read import read as read_inputs
from onnx_inspect.methods import attribute
from onnx_inspect.scene import scene
from onnx_inspect.targets import parse

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "fixtures"
WEB = ROOT / "tests" / "web"
SHAPES = [str(FIXTURES / "inputs" / f"shape_{name}.png") for name in ("star", "cross")]
ON_CONVOLUTIONS = [m for m in methods() if m != "attention"]


def shapes(method: str, layer: str | None = None, *, ask: bool = False) -> tuple[Baked, Batch]:
    net = read(FIXTURES / "shapes_resnet.onnx")
    batch = read_inputs(net.inputs, SHAPES, metadata=net.metadata)
    return baked(net, batch, method, layer=layer, ask=ask), batch


def plain_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("method", ON_CONVOLUTIONS)
def test_a_bare_session_gives_the_map_that_cam_computes(method: str) -> None:
    made, batch = shapes(method)
    onnx.checker.check_model(made.model.proto, full_check=True)
    logits, *_, found, heat = plain_session(made.model.proto).run(None, dict(batch.arrays))
    net = read(FIXTURES / "shapes_resnet.onnx")
    expected = attribute(scene(net, batch), method).values
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.ptp(expected))  # float32 sums in another order
    np.testing.assert_array_equal(logits, plain_session(net.proto).run(["logits"], dict(batch.arrays))[0])
    assert heat.shape == (2, 64, 64)
    assert heat.min() >= 0
    np.testing.assert_allclose(heat.max(axis=(1, 2)), 1, atol=0.25)  # interpolation may miss the peak of a coarse map


@pytest.mark.parametrize("method", ["grad-cam++", "recipro-cam", "ablation-cam", "eigen-cam"])
def test_at_an_early_layer_the_tail_is_written_out(method: str) -> None:
    assert shapes(method, "Relu:2")[0].error < 1e-5


@pytest.mark.parametrize("method", ["cam", "grad-cam", "eigen-cam", "recipro-cam"])
def test_the_reference_evaluator_gives_the_same_map(method: str) -> None:
    made, batch = shapes(method)
    feeds = dict(batch.arrays)
    names = [o.name for o in made.model.outputs]
    found = ReferenceEvaluator(made.model.proto).run(None, feeds)[names.index("map")]
    expected = plain_session(made.model.proto).run(["map"], feeds)[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.ptp(expected))


def test_only_standard_operators_are_added() -> None:
    for method in ON_CONVOLUTIONS:
        assert {n.domain for n in shapes(method)[0].model.proto.graph.node} <= {"", "ai.onnx"}, method


def test_the_class_can_be_asked_for() -> None:
    made, batch = shapes("grad-cam", ask=True)
    assert [i.name for i in made.model.inputs][-1] == "index"
    net = read(FIXTURES / "shapes_resnet.onnx")
    for wanted in (0, 3):
        feeds = {**batch.arrays, "index": np.full(2, wanted)}
        found = plain_session(made.model.proto).run(["map"], feeds)[0]
        expected = attribute(scene(net, batch, target=parse(str(wanted), None)[0]), "grad-cam").values
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.ptp(expected))


def test_each_sample_is_explained_for_its_own_best_class() -> None:
    made, batch = shapes("grad-cam")
    logits, index = plain_session(made.model.proto).run(["logits", "index"], dict(batch.arrays))
    np.testing.assert_array_equal(index, logits.argmax(axis=1))


@pytest.mark.parametrize(
    ("fixture", "method"),
    [
        ("digits_vit.onnx", "grad-cam"),
        ("digits_vit.onnx", "recipro-cam"),
        ("digits_vit.onnx", "attention"),
        ("fixed_batch_vit.onnx", "ablation-cam"),
        ("nhwc.onnx", "recipro-cam"),
        ("conv1d.onnx", "layer-cam"),
        ("fp16.onnx", "grad-cam"),
        ("skip.onnx", "recipro-cam"),
    ],
)
def test_tokens_layouts_signals_and_half_precision_are_baked(fixture: str, method: str) -> None:
    net = read(FIXTURES / fixture)
    batch = read_inputs(net.inputs, ["random"], metadata=net.metadata)
    assert baked(net, batch, method).error < 1e-3


def test_a_method_that_samples_is_refused_with_those_that_can() -> None:
    with pytest.raises(MethodError, match=r"rise.*these can: ablation-cam, attention"):
        shapes("rise")


def test_a_model_without_attention_is_refused() -> None:
    with pytest.raises(LayerError, match="no attention over a grid"):
        shapes("attention")


def test_the_command_writes_the_file_and_says_what_it_holds(tmp_path: Path) -> None:
    out = tmp_path / "explained.onnx"
    arguments = [
        str(FIXTURES / "shapes_resnet.onnx"),
        SHAPES[0],
        "--method",
        "grad-cam",
        "-o",
        str(out),
        "--json",
        "-q",
    ]
    said = json.loads(CliRunner().invoke(command, arguments, catch_exceptions=False).output)
    assert [o["name"] for o in said["outputs"]] == ["logits", "index", "map", "heatmap"]
    assert said["error"] < 1e-5
    assert said["operators"] == []
    assert [o.name for o in read(out).outputs] == ["logits", "index", "map", "heatmap"]


def test_a_browsers_runtime_gives_the_same_map(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or not (WEB / "node_modules" / "onnxruntime-web").is_dir():
        pytest.skip("Node.js or tests/web/node_modules is missing: install them with npm install --prefix tests/web")
    made, batch = shapes("grad-cam")
    (tmp_path / "net.onnx").write_bytes(made.model.proto.SerializeToString())
    pixels = batch.arrays[batch.primary][:1].astype(np.float32)
    (tmp_path / "pixels.bin").write_bytes(pixels.tobytes())
    words = [node, str(WEB / "run.js"), str(tmp_path / "net.onnx"), str(tmp_path / "pixels.bin"), "1,3,64,64"]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    expected = plain_session(made.model.proto).run(["map"], {batch.primary: pixels})[0]
    np.testing.assert_allclose(json.loads(ran.stdout), expected.ravel(), rtol=0, atol=1e-5 * np.ptp(expected))
