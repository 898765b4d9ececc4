"""Whether `capture`, `embed` and `probe` write what they say, take each other's folders, and show classes separate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnx_inspect import capture

FIXTURES = Path(__file__).parents[2] / "fixtures"
NET = FIXTURES / "digits_convnet.onnx"
LAYERS = ("--layer", "Relu:0", "--layer", "Relu:1", "--layer", "Relu:-1")
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every fourth digit: 450 of them."""
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    with np.load(FIXTURES / "inputs" / "digits.npz") as file:
        np.savez(path, images=file["images"][::4], labels=file["labels"][::4])
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty digits as pictures in a folder for each class, two of them broken."""
    root = tmp_path_factory.mktemp("folder") / "pictures"
    with np.load(FIXTURES / "inputs" / "digits.npz") as file:
        for n in range(40):
            path = root / str(file["labels"][n]) / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(file["images"][n]).save(path)
            if n in (5, 6):
                path.write_bytes(b"broken")
    return root


def test_capture_writes_what_the_library_reads(run: Run, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "c"
    result = run("capture", NET, data, *LAYERS, "--pool", "mean", "-o", out, "--json")
    assert result.code == 0
    assert result.json["samples"] == 450 and result.json["skipped"] == []
    found = capture.open(out)
    assert [row["layer"] for row in result.json["layers"]] == list(found.layers)
    for row in result.json["layers"]:
        array = np.asarray(found.array(row["layer"]))
        assert list(array.shape) == row["shape"] and np.isfinite(array).all()
    assert result.json["accuracy"] == found.accuracy > 0.98
    again = run("capture", NET, data, *LAYERS, "--pool", "mean", "-o", out)
    assert again.code == 0 and "1 of 1 shards were there already" in again.err


def test_capture_counts_the_broken_and_names_them(run: Run, folder: Path, tmp_path: Path) -> None:
    result = run("capture", NET, folder, "--layer", "-1", "-o", tmp_path / "c", "--json")
    assert result.json["samples"] == 38
    assert [Path(one["source"]).name for one in result.json["skipped"]] == ["5.png", "6.png"]
    assert "skipped 2 of 40 samples" in result.err and "10 classes, one for each folder" in result.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "OUT"], "no layer given"),
        (["--layer", "nine", "-o", "OUT"], "layer 'nine' is not in"),
        (["--layer", "-1", "-o", "DATA"], "is a file"),
        (["--layer", "Conv:0", "--pool", "cls", "-o", "OUT"], "no class token"),
    ],
)
def test_capture_says_what_is_wrong_in_one_line(
    run: Run, data: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    places = {"OUT": tmp_path / "c", "DATA": data}
    result = run("capture", NET, data, *(places.get(word, word) for word in words))
    assert result.code == 2 and said in result.err.splitlines()[-1]
    assert not (tmp_path / "c").exists()


def test_embed_saves_the_contract_and_shows_classes_separate_with_depth(run: Run, data: Path, tmp_path: Path) -> None:
    words = ["-o", tmp_path / "e.png", "--save", tmp_path / "points.npz", "--json"]
    result = run("embed", NET, data, *LAYERS, *words)
    assert result.code == 0
    with np.load(tmp_path / "points.npz") as file:
        stored = dict(file)
    meta = json.loads(str(stored["meta"]))
    assert {k: v for k, v in result.json.items() if k != "figures"} == meta
    assert stored["points"].shape == (450, 2) and stored["labels"].shape == stored["predictions"].shape == (450,)
    assert stored["sources"][7] == f"{data}[7]"
    assert set(meta) >= {"layer", "method", "params", "quality", "layers"}
    for figure in ("knn", "silhouette", "knn_features", "silhouette_features"):
        along = [layer["quality"][figure] for layer in meta["layers"].values()]
        assert along == sorted(along), figure  # each layer separates the classes better than the one before
    assert meta["quality"]["knn_features"] > 0.97
    assert meta["misclassified"] == int((stored["labels"] != stored["predictions"]).sum())
    with Image.open(tmp_path / "e.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 100


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("method", ["pca", "tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_every_projection_separates_the_digits(run: Run, data: Path, tmp_path: Path, method: str, dim: int) -> None:
    """Of the last hidden layer; on the early one the same projection keeps them mixed."""
    if method == "umap":
        pytest.importorskip("umap", reason="the extra `umap` isn't installed")
    quick = ["--param", "iterations=300"] if method == "tsne" else []
    words = ["--layer", "Relu:0", "--layer", "Relu:-1", "--method", method, "--dim", dim, *quick]
    result = run("embed", NET, data, *words, "-o", tmp_path / "e.png", "--save", tmp_path / "p.npz", "--json")
    early, late = (layer["quality"] for layer in result.json["layers"].values())
    assert early["knn"] < 0.6 < 0.7 < late["knn"]
    assert early["silhouette"] < 0.05 < 0.15 < late["silhouette"]
    with np.load(tmp_path / "p.npz") as saved:
        assert saved["points"].shape == (450, dim)
    if method != "pca":
        assert late["knn"] > 0.97 and late["trustworthiness"] > 0.95


def test_embed_equals_scikit_learn_on_what_was_captured(run: Run, data: Path, tmp_path: Path) -> None:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE, trustworthiness

    assert run("capture", NET, data, "--layer", "Relu:-1", "-o", tmp_path / "c").code == 0
    features = np.asarray(capture.open(tmp_path / "c").array("node_relu_3"))
    for method, words, theirs in (
        ("pca", [], PCA(2, random_state=0).fit_transform(features)),
        (
            "tsne",
            ["--param", "iterations=250"],
            TSNE(2, max_iter=250, init="pca", random_state=0).fit_transform(
                PCA(50, random_state=0).fit_transform(features)
            ),
        ),
    ):
        saved = tmp_path / f"{method}.npz"
        result = run(
            "embed", tmp_path / "c", "--method", method, *words, "--save", saved, "-o", tmp_path / "e.png", "--json"
        )
        with np.load(saved) as file:
            np.testing.assert_array_equal(file["points"], theirs)
            measured = trustworthiness(features, file["points"], n_neighbors=10)
        assert result.json["quality"]["trustworthiness"] == measured


def test_a_captured_folder_stands_for_model_and_data_set(run: Run, data: Path, tmp_path: Path) -> None:
    assert run("capture", NET, data, *LAYERS, "-o", tmp_path / "whole").code == 0
    for pool in ("mean", "max"):
        live, kept = tmp_path / "live.npz", tmp_path / "kept.npz"
        run("embed", NET, data, *LAYERS, "--pool", pool, "--save", live, "-o", tmp_path / "a.png")
        run("embed", tmp_path / "whole", "--pool", pool, "--save", kept, "-o", tmp_path / "b.png")
        with np.load(live) as one, np.load(kept) as two:
            assert one.files == two.files
            for name in one.files:
                np.testing.assert_array_equal(one[name], two[name])
    one = run("embed", tmp_path / "whole", "--layer", "*relu_3", "-o", tmp_path / "c.png", "--json")
    assert list(one.json["layers"]) == ["node_relu_3"]
    assert run("embed", tmp_path / "whole", "--layer", "nine", "-o", tmp_path / "c.png").code == 2
    assert run("embed", NET, tmp_path / "whole", "-o", tmp_path / "c.png").code == 2
    assert run("capture", NET, data, *LAYERS, "--pool", "max", "-o", tmp_path / "max").code == 0
    wrong = run("embed", tmp_path / "max", "--pool", "mean", "-o", tmp_path / "c.png")
    assert wrong.code == 2 and "captured pooled by max" in wrong.err


def test_thumbnails_come_from_the_data_set_again(run: Run, folder: Path, tmp_path: Path) -> None:
    assert run("capture", NET, folder, "--layer", "Relu:-1", "-o", tmp_path / "c").code == 0
    plain = run("embed", tmp_path / "c", "-o", tmp_path / "plain.png")
    result = run("embed", tmp_path / "c", "--thumbnails", "-o", tmp_path / "thumbs.png")
    assert plain.code == result.code == 0
    with Image.open(tmp_path / "plain.png") as one, Image.open(tmp_path / "thumbs.png") as two:
        dark = [(np.asarray(picture.convert("L")) < 10).mean() for picture in (one, two)]
    assert dark[1] > 20 * dark[0]  # digits are white on black
    solid = run("embed", tmp_path / "c", "--thumbnails", "--dim", 3, "-o", tmp_path / "solid.png")
    assert "two dimensions only" in solid.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "mds"], "unknown method 'mds'; there are: pca, tsne, umap"),
        (["--param", "perplexity=3"], "pca has no parameter 'perplexity'"),
        (["--method", "tsne", "--param", "perplexity=much"], "perplexity is of type float"),
        (["--layer", "Conv:0", "--pool", "cls"], "no class token"),
        (["--pool", "cls"], "no layer of"),
    ],
)
def test_embed_says_what_is_wrong_in_one_line(
    run: Run, data: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    result = run("embed", NET, data, *words, "-o", tmp_path / "e.png")
    assert result.code == 2 and said in result.err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_layers_are_chosen_along_depth_and_said(run: Run, data: Path, tmp_path: Path) -> None:
    result = run("embed", NET, data, "-o", tmp_path / "e.png", "--json")
    assert len(result.json["layers"]) == 4 and "4 of 12 layers, evenly along depth" in result.err
    token = run("embed", FIXTURES / "digits_vit.onnx", data, "--pool", "cls", "-o", tmp_path / "v.png", "--json")
    assert token.code == 0 and token.json["pool"] == "cls" and token.json["quality"]["knn_features"] > 0.9


def test_probe_rises_with_depth_between_chance_and_the_models_own(run: Run, data: Path, tmp_path: Path) -> None:
    result = run("probe", NET, data, "--layers", "Relu:0,Relu:1,Relu:-1", "-o", tmp_path / "p.png", "--json")
    assert result.code == 0
    accuracy = [layer["accuracy"] for layer in result.json["layers"]]
    assert result.json["chance"] + 0.2 < accuracy[0] < accuracy[1] < accuracy[2]
    assert accuracy[2] > 0.97 and result.json["model_accuracy"] > 0.98
    again = run("probe", NET, data, "--layers", "Relu:0,Relu:1,Relu:-1", "-o", tmp_path / "p.png", "--json")
    assert again.json == result.json
    assert run("capture", NET, data, *LAYERS, "-o", tmp_path / "c").code == 0
    kept = run("probe", tmp_path / "c", "-o", tmp_path / "p.png", "--json")
    assert [layer["accuracy"] for layer in kept.json["layers"]] == accuracy


def test_probe_needs_classes(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.zeros((20, 8, 8), np.uint8))
    result = run("probe", NET, tmp_path / "d.npy", "-o", tmp_path / "p.png")
    assert result.code == 2 and "names no classes" in result.err


def test_models_without_class_scores_are_captured_and_embedded_too(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.random.default_rng(0).normal(size=(12, 12, 5)).astype(np.float32))
    result = run("embed", FIXTURES / "lstm.onnx", tmp_path / "d.npy", "-o", tmp_path / "e.png", "--json")
    assert result.code == 0 and result.json["misclassified"] is None


def test_several_inputs_come_from_one_file(run: Run, tmp_path: Path) -> None:
    net, data = FIXTURES / "multi_input.onnx", FIXTURES / "inputs" / "multi_input.npz"
    result = run("capture", net, data, "--layer", "-1", "-o", tmp_path / "c", "--json")
    assert result.code == 0 and result.json["samples"] == 3


def test_models_with_a_fixed_batch_are_captured_sample_by_sample(run: Run, tmp_path: Path) -> None:
    net = FIXTURES / "fixed_batch.onnx"
    result = run("capture", net, FIXTURES / "inputs", "--layer", "-1", "-o", tmp_path / "c", "--json")
    assert result.code == 0 and result.json["samples"] == len(list((FIXTURES / "inputs").glob("*.png")))
