"""Whether one line of Python gives the maps that the command line gives, from any kind of input."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import onnx_inspect
from onnx_inspect.cam._probe import Attribution
from onnx_inspect.errors import InputError, InspectError, OutputError, TargetError
from onnx_inspect.graph.read import read
from onnx_inspect.inputs.read import read as read_inputs
from onnx_inspect.methods import attribute, scene
from onnx_inspect.targets import ClassTarget

FIXTURES = Path(__file__).parents[1] / "fixtures"
NET = FIXTURES / "shapes_resnet.onnx"
STAR, CROSS = (FIXTURES / "inputs" / f"shape_{name}.png" for name in ("star", "cross"))
PIXELS = np.asarray(Image.open(STAR).convert("RGB"))


def test_a_path_a_picture_an_array_and_a_batch_are_explained_alike() -> None:
    net = read(NET)
    batch = read_inputs(net.inputs, [str(STAR)], metadata=net.metadata)
    expected = attribute(scene(net, batch), "recipro-cam").values
    fed = batch.arrays[batch.primary]
    for model, inputs in [
        (str(NET), str(STAR)),
        (NET, [STAR]),
        (net, PIXELS),
        (net, PIXELS[None]),
        (net, fed),
        (net, batch),
    ]:
        found = onnx_inspect.explain(model, inputs)
        assert isinstance(found, Attribution)
        np.testing.assert_array_equal(found.values, expected)
        assert found.targets == ("star",)
        assert found.maps.shape == (1, 64, 64)


def test_maps_are_on_the_original_picture_and_between_0_and_1() -> None:
    large = np.asarray(Image.fromarray(PIXELS).resize((200, 120)))
    found = onnx_inspect.explain(NET, large, method="ablation-cam")
    assert found.maps.dtype == np.float32
    assert found.maps.shape == (1, 120, 200)
    assert found.maps.min() == 0
    assert 0.9 < found.maps.max() <= 1
    assert found.overlay().shape == (120, 200, 3)
    assert found.overlay().dtype == np.uint8
    np.testing.assert_array_equal(found.overlay(alpha=0.0), large)


def test_pictures_of_different_sizes_give_a_map_each() -> None:
    found = onnx_inspect.explain(NET, [STAR, FIXTURES / "inputs" / "digit_3.png"])
    assert found.map(0).shape == (64, 64)
    assert found.map(1).shape == (32, 32)
    with pytest.raises(InputError, match="different sizes"):
        _ = found.maps


def test_targets_are_words_numbers_or_objects() -> None:
    maps = [onnx_inspect.explain(NET, STAR, target=t).values for t in ("cross", 4, "4", ClassTarget(4))]
    assert all(np.array_equal(maps[0], other) for other in maps[1:])
    named = onnx_inspect.explain(NET, STAR, target="b", labels=list("abcdef"))
    assert named.targets == ("b",)
    for several in ("top-3", "all"):
        with pytest.raises(TargetError, match="several maps"):
            onnx_inspect.explain(NET, STAR, target=several)


def test_parameters_layers_and_smoothing_are_the_command_lines() -> None:
    one = onnx_inspect.explain(NET, STAR, params={"score": "logit"})
    assert one.params["score"] == "logit"
    both = onnx_inspect.explain(NET, STAR, layer=["Relu:-1", "Relu:3"], combine="max", smooth="augment")
    assert both.layer.count(" + ") == 1
    assert both.params["combine"] == "max"
    assert both.params["smooth"] == "augment"


def test_numbers_and_figures_are_saved_by_suffix(tmp_path: Path) -> None:
    found = onnx_inspect.explain(NET, [STAR, CROSS])
    found.save(tmp_path / "maps.npz")
    with np.load(tmp_path / "maps.npz") as stored:
        np.testing.assert_array_equal(stored["recipro-cam"], found.values)
        assert [i["target"]["label"] for i in json.loads(str(stored["meta"]))["inputs"]] == ["star", "cross"]
    found.save(tmp_path / "maps.png")
    assert np.asarray(Image.open(tmp_path / "maps.png").convert("RGB")).std() > 20
    with pytest.raises(OutputError, match=r"\.jpg"):
        found.save(tmp_path / "maps.jpg")


def test_a_budget_gives_an_estimate_that_says_so() -> None:
    full = onnx_inspect.explain(NET, STAR, method="score-cam")
    found = onnx_inspect.explain(NET, STAR, method="score-cam", budget=10)
    assert full.estimate is None
    assert found.estimate is not None
    assert found.estimate.passes == (10,)
    a, b = (one.values.ravel().astype(float) for one in (full, found))
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.95
    assert onnx_inspect.explain(NET, STAR, method="score-cam", budget="60s").estimate is not None
    with pytest.raises(InspectError, match="a budget is a number of passes"):
        onnx_inspect.explain(NET, STAR, method="score-cam", budget="soon")


def test_concepts_are_laid_over_the_picture_in_their_own_colours() -> None:
    found = onnx_inspect.explain(NET, STAR, method="dff", params={"concepts": 2})
    assert found.concepts is not None
    assert found.concepts.strengths.shape[:2] == (1, 2)
    assert found.overlay().shape == PIXELS.shape
    heat = onnx_inspect.explain(NET, STAR, method="mean-activation").overlay()
    assert np.abs(found.overlay().astype(int) - heat).mean() > 5


def test_a_notebook_gets_a_picture() -> None:
    found = onnx_inspect.explain(NET, STAR)
    picture = Image.open(io.BytesIO(found._repr_png_()))
    assert picture.format == "PNG"
    assert np.asarray(picture.convert("RGB")).std() > 20


def test_a_signal_is_no_picture_to_lay_a_map_over() -> None:
    net = read(FIXTURES / "conv1d.onnx")
    shape = [d if isinstance(d, int) else 1 for d in net.inputs[0].shape or ()]
    found = onnx_inspect.explain(
        net, np.random.default_rng(0).normal(size=shape).astype(np.float32), method="eigen-cam"
    )
    with pytest.raises(InputError, match="signal"):
        found.overlay()


def test_importing_the_package_is_light_and_its_names_come_when_asked_for() -> None:
    code = (
        "import sys, onnx_inspect; heavy = {'onnx', 'onnxruntime', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\nassert callable(onnx_inspect.explain)\nassert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
    with pytest.raises(AttributeError, match="no attribute 'explane'"):
        _ = onnx_inspect.explane  # type: ignore[attr-defined]


def test_a_text_is_explained_by_its_tokens(fixtures: Path, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="texts need the package tokenizers")
    text = "We loved the music."
    found = onnx_inspect.explain(fixtures / "sentiment.onnx", text=text, method="occlusion")
    assert found.values.shape == (1, 1, 7)
    assert found.batch.text is not None
    assert found.batch.text.tokens[0].pieces[int(found.values[0, 0].argmax())] == "loved"
    found.save(tmp_path / "text.png")
    assert (tmp_path / "text.png").stat().st_size > 5000
    with pytest.raises(InputError, match="a text has no map over a picture"):
        found.overlay()
