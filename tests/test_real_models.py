"""Models and photographs made by others: every command answers, or says in one line why it can't."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import run  # noqa: F401  # the fixture

REAL = Path(__file__).parents[2] / "shared" / "real"
INDEX: dict[str, Any] = json.loads((REAL / "index.json").read_text()) if (REAL / "index.json").is_file() else {}
MODELS = {model["id"]: model for model in INDEX.get("models", [])}
METHODS = ("cam", "eigen-cam", "ablation-cam", "recipro-cam")
PICTURES = {32: "cifar_horse.png", 28: "digit_5.jpg", 48: "gtsrb_7040.png"}
SPEECH = ["-I", "sr=16000", "-I", "state=zeros:2,1,128", "-I", "input=zeros:1,576"]
Run = Callable[..., Any]

pytestmark = pytest.mark.skipif(not MODELS, reason=f"{REAL} is not here")


def preprocess_of(model: dict[str, Any], folder: Path) -> list[object]:
    """The index's preprocessing as our JSON file, as options."""
    given = model.get("preprocess")
    if not given:
        return []
    keys = {key: given[key] for key in ("layout", "scale", "mean", "std")}
    colour = {"L": "GRAY"}.get(given["colour"], given["colour"])
    path = folder / "preprocess.json"
    size = [given["height"], given["width"]]
    path.write_text(json.dumps(keys | {"size": size, "resize": "stretch", "colour": colour}))
    return ["--preprocess", path]


def inputs_of(model: dict[str, Any]) -> list[object]:
    if model["id"].startswith("silero"):
        return list(SPEECH)
    if not model.get("preprocess"):
        return ["random"]
    return [REAL / "images" / PICTURES.get(model["preprocess"]["height"], "dog_cat_both.png")]


@pytest.mark.parametrize("name", MODELS)
def test_summary_lists_every_layer(name: str, run: Run) -> None:  # noqa: F811
    result = run("summary", REAL / MODELS[name]["file"], "--json")
    assert result.code == 0, result.err
    assert len(result.json["layers"]) >= 1
    shown = run("summary", REAL / MODELS[name]["file"])
    assert shown.code == 0
    assert len(shown.out.splitlines()) > 5


@pytest.mark.parametrize("name", [n for n, m in MODELS.items() if "top1" in m.get("verified", {})])
def test_predict_reproduces_the_recorded_classes(name: str, run: Run, tmp_path: Path) -> None:  # noqa: F811
    model = MODELS[name]
    recorded = model["verified"]["top1"]
    if isinstance(recorded, list):
        inputs, wanted = [REAL / model["verified"]["data"]], recorded
    else:
        files = {image["id"]: image["file"] for image in INDEX["images"]}
        inputs = [REAL / files[image] for image in recorded]
        wanted = [entry["index"] if isinstance(entry, dict) else entry for entry in recorded.values()]
    result = run("predict", REAL / model["file"], *inputs, *preprocess_of(model, tmp_path), "--json", "--top", 1)
    assert result.code == 0, result.err
    assert [entry["top"][0]["index"] for entry in result.json["inputs"]] == wanted


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if "ppocr_v3" in n else n for n in MODELS])
def test_each_cam_draws_a_picture_or_says_why_not(name: str, run: Run, tmp_path: Path) -> None:  # noqa: F811
    model = MODELS[name]
    words = [word for method in METHODS for word in ("--method", method)]
    options = [*preprocess_of(model, tmp_path), "--json", "--quiet", "-o", tmp_path / "maps"]
    result = run("cam", REAL / model["file"], *inputs_of(model), *words, *options)
    if result.code == 0:
        answered = {entry["method"] for entry in result.json["methods"].values()}
        refused = {entry["method"]: entry["reason"] for entry in result.json["skipped"]}
        assert answered | set(refused) == set(METHODS)
        assert all(len(reason.splitlines()) == 1 for reason in refused.values())
        assert len(list((tmp_path / "maps").glob("*.png"))) == 1
    else:
        assert result.code == 2, result.err
        assert "has no layer with maps" in result.json["error"]["message"]
        assert not (tmp_path / "maps").exists()


QUICK = {
    "resnet8_keras_int8",
    "vit_cifar10_pgd_2_3_16",
    "gtsrb_bnn_48_nhwc",
    "silero_vad_16k_op15",
    "iris_logreg_zipmap",
}


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in MODELS])
def test_activations_draw_layers_and_count_them(name: str, run: Run, tmp_path: Path) -> None:  # noqa: F811
    model = MODELS[name]
    options = [*preprocess_of(model, tmp_path), "--json", "--quiet", "-o", tmp_path / "maps"]
    result = run("activations", REAL / model["file"], *inputs_of(model), *options)
    assert result.code == 0, result.err
    assert len(result.json["layers"]) >= 1
    assert len(result.json["figures"]) == len(list((tmp_path / "maps").glob("*.png")))


BINARY = {"gtsrb_bnn_48_nhwc"}  # its activations are signs: flat everywhere
CLASSIFIERS = [n for n, m in MODELS.items() if "classification" in m["task"] and not re.search("mlp", n)]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_has_a_gradient_unless_it_moves_in_steps(name: str, run: Run, tmp_path: Path) -> None:  # noqa: F811
    model = MODELS[name]
    options = [*preprocess_of(model, tmp_path), "--quiet", "--json", "-o", tmp_path / "maps"]
    words = [word for method in ("grad-cam", "saliency") for word in ("--method", method)]
    result = run("cam", REAL / model["file"], *inputs_of(model), *words, *options)
    if name in BINARY:
        assert result.code == 2
        assert "zero everywhere at node" in result.json["error"]["message"]
        return
    assert result.code == 0, result.err
    assert "grad-cam" in result.json["methods"]
    assert not result.json["methods"]["grad-cam"]["inputs"][0]["flat"]
