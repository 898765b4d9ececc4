"""What `cam` does with several targets, layers and smoothings, and with models of other kinds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

FIXTURES = Path(__file__).parents[2] / "fixtures"
NET = FIXTURES / "shapes_resnet.onnx"
STAR, CROSS = (FIXTURES / "inputs" / f"shape_{name}.png" for name in ("star", "cross"))
REAL = Path(__file__).parents[2] / "../shared/real"
Run = Callable[..., Any]


def arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def test_several_targets_are_several_maps_named_by_method_and_target(run: Run, tmp_path: Path) -> None:
    words = ["--target", "top-2", "--target", "circle", "--method", "cam", "--method", "eigen-cam"]
    result = run("cam", NET, STAR, CROSS, *words, "--save", tmp_path / "m.npz", "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    kinds = [f"{method}@{target}" for method in ("cam", "eigen-cam") for target in ("top-1", "top-2", "circle")]
    assert list(result.json["methods"]) == kinds
    assert set(arrays(tmp_path / "m.npz")) == {*kinds, "meta"}
    labels = [[i["target"]["label"] for i in result.json["methods"][f"cam@{t}"]["inputs"]] for t in ("top-1", "circle")]
    assert labels == [["star", "cross"], ["circle", "circle"]]


def test_all_classes_are_explained_one_by_one(run: Run, tmp_path: Path) -> None:
    result = run("cam", NET, STAR, "--target", "all", "--method", "cam", "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    scores = [entry["inputs"][0]["score"] for entry in result.json["methods"].values()]
    assert len(scores) == 6
    assert sum(scores) == pytest.approx(1, abs=1e-6)


def test_layers_are_combined_into_one_map_of_the_finest_grid(run: Run, tmp_path: Path) -> None:
    layers = ["--layer", "Relu:-1", "--layer", "Relu:2"]
    for how in ("mean", "max", "product"):
        words = [*layers, "--combine", how, "--save", tmp_path / "m.npz", "-o", tmp_path, "--json"]
        result = run("cam", NET, STAR, *words)
        assert result.code == 0, result.err
        assert result.json["methods"]["recipro-cam"]["params"]["combine"] == how
        found = arrays(tmp_path / "m.npz")["recipro-cam"]
        assert found.shape[1] > 8
        assert found.min() >= 0
        assert found.max() <= 1
    assert run("cam", NET, STAR, *layers, "--combine", "sum", "-o", tmp_path).code == 2


def test_augmented_maps_of_a_mirrored_picture_are_mirrored(run: Run, tmp_path: Path) -> None:
    """Averaging over flips makes a map that knows no left and right, whatever the network prefers."""
    x = np.random.default_rng(2).uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
    found = []
    for name, array in (("a", x), ("b", np.ascontiguousarray(x[..., ::-1]))):
        np.save(tmp_path / f"{name}.npy", array)
        words = ["--smooth", "augment", "--target", "star", "--save", tmp_path / "m.npz", "-o", tmp_path / "o"]
        assert run("cam", NET, tmp_path / f"{name}.npy", *words).code == 0
        found.append(arrays(tmp_path / "m.npz")["recipro-cam"])
    np.testing.assert_allclose(found[1], found[0][..., ::-1], atol=1e-4)
    assert 0.2 < found[0].max() <= 1


def test_eigen_smoothing_applies_to_weighted_channels_and_is_refused_elsewhere(run: Run, tmp_path: Path) -> None:
    words = [w for m in ("cam", "ablation-cam", "score-cam", "recipro-cam") for w in ("--method", m)]
    result = run("cam", NET, STAR, *words, "--smooth", "eigen", "-o", tmp_path, "--json")
    assert set(result.json["methods"]) == {"cam", "ablation-cam", "score-cam"}
    assert "no sum of weighted channels" in result.json["skipped"][0]["reason"]
    plain = run("cam", NET, STAR, "--method", "cam", "--save", tmp_path / "p.npz", "-o", tmp_path)
    smooth = run("cam", NET, STAR, "--method", "cam", "--smooth", "eigen", "--save", tmp_path / "s.npz", "-o", tmp_path)
    assert plain.code == smooth.code == 0
    first, second = arrays(tmp_path / "p.npz")["cam"].ravel(), arrays(tmp_path / "s.npz")["cam"].ravel()
    assert 0.3 < np.corrcoef(first, second)[0, 1] < 0.99999


def test_a_budget_is_kept_and_said_in_json_and_words(run: Run, tmp_path: Path) -> None:
    words = ["--method", "score-cam", "--method", "rise", "--method", "recipro-cam", "--budget", "20"]
    result = run("cam", NET, STAR, CROSS, *words, "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    for method, whole in (("score-cam", 40), ("rise", 1000)):
        entry = result.json["methods"][method]
        assert entry["budget"] == "20 passes"
        assert entry["passes"] <= 2 * 20 + 2
        for one in entry["inputs"]:
            assert one["estimate"]["passes"] <= 20
            assert one["estimate"]["of"] >= whole
            assert one["estimate"]["stable_from"] == 0.97
        assert f"{method}, {STAR}: estimate: " in result.err
    closed = result.json["methods"]["recipro-cam"]  # takes no budget: it is what it always is
    assert closed["budget"] is None
    assert closed["inputs"][0]["estimate"] is None
    assert "recipro-cam takes no budget" in result.err


def test_without_a_budget_nothing_is_estimated(run: Run, tmp_path: Path) -> None:
    result = run("cam", NET, STAR, "--method", "score-cam", "-o", tmp_path, "--json")
    assert result.json["methods"]["score-cam"]["inputs"][0]["estimate"] is None
    assert "estimate" not in result.err
    wrong = run("cam", NET, STAR, "--method", "score-cam", "--budget", "much", "-o", tmp_path)
    assert wrong.code == 2
    assert "a budget is a number of passes like 200, or of seconds like 5s, got 'much'" in wrong.err


def test_copies_share_a_budget(run: Run, tmp_path: Path) -> None:
    """Six augmented copies of 48 passes: 8 each."""
    words = ["--method", "score-cam", "--smooth", "augment", "--budget", "48", "-o", tmp_path, "--json"]
    found = run("cam", NET, STAR, *words).json["methods"]["score-cam"]["inputs"][0]["estimate"]
    assert found["passes"] <= 48


def test_concepts_are_told_and_saved_for_all_inputs_together(run: Run, tmp_path: Path) -> None:
    words = ["--method", "dff", "--param", "concepts=3", "--save", tmp_path / "m.npz", "-o", tmp_path, "--json"]
    result = run("cam", NET, STAR, CROSS, *words)
    assert result.code == 0, result.err
    concepts = result.json["methods"]["dff"]["concepts"]
    assert [len(c["shares"]) for c in concepts] == [2, 2, 2]
    np.testing.assert_allclose(np.sum([c["shares"] for c in concepts], axis=0), 1, atol=1e-5)
    best = {c["classes"][0]["label"] for c in concepts}
    assert best & {"star", "cross"}  # what is in the pictures is among what concepts speak for
    stored = arrays(tmp_path / "m.npz")
    grid = stored["dff"].shape[1:]
    assert stored["dff.concepts"].shape == (2, 3, *grid)
    assert stored["dff.vectors"].shape[0] == 3
    np.testing.assert_array_equal(stored["dff.concepts"].max(axis=1), stored["dff"])
    smoothed = run("cam", NET, STAR, "--method", "dff", "--smooth", "augment", "-o", tmp_path)
    assert smoothed.code == 2
    assert "several maps" in smoothed.err


def test_d_rise_explains_boxes_and_says_what_else_to_use(run: Run, tmp_path: Path) -> None:
    result = run("cam", NET, STAR, "--method", "d-rise", "-o", tmp_path)
    assert result.code == 2
    assert "give --target box:best or box:x0,y0,x1,y1, or take --method rise" in result.err


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    """A model of pictures without any map: 8x8 pixels as one row, and one linear layer."""
    weight = np.zeros((64, 3), np.float32)
    weight[9:11] = [[0, 5, 0], [0, 5, 0]]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path / "mlp.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_model_without_maps_is_explained_by_methods_that_need_none(run: Run, mlp: Path, tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.full((8, 8), 200, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    keys = {
        "size": [8, 8],
        "resize": "stretch",
        "layout": "NCHW",
        "colour": "GRAY",
        "scale": 0.005,
        "mean": 0,
        "std": 1,
    }
    words = ["--preprocess", json.dumps(keys), "--method", "occlusion", "--method", "recipro-cam"]
    options = ["--param", "window=1", "--param", "stride=1", "--save", tmp_path / "m.npz", "-o", tmp_path, "--json"]
    result = run("cam", mlp, tmp_path / "grey.png", *words, *options)
    assert result.code == 0, result.err
    assert result.json["layer"] == result.json["methods"]["occlusion"]["layer"] == "input"
    assert "needs no layer" not in result.json["methods"]
    assert "no layer with maps" in result.json["skipped"][0]["reason"]
    found = arrays(tmp_path / "m.npz")["occlusion"][0]
    expected = np.zeros(64)
    expected[9:11] = 5  # each pixel is 200 * 0.005 = 1: what its weight adds to the score
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-5)


def test_a_black_box_method_runs_once_beside_several_layers(run: Run, tmp_path: Path) -> None:
    words = ["--method", "occlusion", "--method", "cam", "--method", "ablation-cam", "--param", "stride=0.5"]
    layers = ["--layer", "Relu:-1", "--layer", "Relu:-2"]
    result = run("cam", NET, STAR, *words, *layers, "-o", tmp_path, "--json")
    assert [key.split("@")[0] for key in result.json["methods"]].count("occlusion") == 1
    assert "occlusion" in result.json["methods"]
    assert [key.split("@")[0] for key in result.json["methods"]].count("ablation-cam") == 2


def test_a_target_that_the_model_does_not_have_is_an_error_and_no_skip(run: Run, tmp_path: Path) -> None:
    for target, says in [
        ("99", "doesn't exist"),
        ("box:1,1,5,5", "no boxes"),
        ("segment:1", "no class scores for pixels"),
    ]:
        result = run("cam", NET, STAR, "--target", target, "-o", tmp_path)
        assert result.code == 2
        assert says in result.err


BOXES = [  # model, picture, target's box (drawn by eye), method
    ("nanodet_m_416", "dog_bicycle_truck.jpg", "132,218,311,541", "@15"),
    ("nanodet_m_416", "dog_bicycle_truck.jpg", "466,74,693,172", "@2"),
    ("ultraface_slim_320", "three_nurses.jpg", "683,45,803,200", ""),
    ("yunet_s_320", "three_nurses.jpg", "197,90,315,258", ""),
]


@pytest.mark.skipif(not (REAL / "index.json").is_file(), reason=f"{REAL} is not here")
@pytest.mark.parametrize(("name", "picture", "box", "category"), BOXES)
def test_the_map_of_a_real_detectors_box_peaks_inside_it(
    name: str, picture: str, box: str, category: str, run: Run, tmp_path: Path
) -> None:
    index = json.loads((REAL / "index.json").read_text())
    given = next(model for model in index["models"] if model["id"] == name)["preprocess"]
    keys = {key: given[key] for key in ("layout", "colour", "scale", "mean", "std")}
    (tmp_path / "p.json").write_text(
        json.dumps(keys | {"size": [given["height"], given["width"]], "resize": "stretch"})
    )
    words = ["--target", f"box:{box}{category}", "--preprocess", tmp_path / "p.json", "-o", tmp_path, "--json"]
    result = run("cam", REAL / f"models/{name}.onnx", REAL / "images" / picture, *words)
    assert result.code == 0, result.err
    x, y = result.json["methods"]["recipro-cam"]["inputs"][0]["peak"]
    x0, y0, x1, y1 = map(float, box.split(","))
    assert x0 <= x <= x1
    assert y0 <= y <= y1
    assert result.json["inputs"][0]["target"]["index"] is None
    assert result.json["inputs"][0]["score"] > 0.3
