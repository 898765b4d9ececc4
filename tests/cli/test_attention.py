"""`attention` from picture or text to file: planted patches, what is saved and printed, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnx_inspect.analysis import attention_query as queries
from onnx_inspect.analysis import attention_views as views
from onnx_inspect.analysis.attention import rollout
from onnx_inspect.attention import capture
from onnx_inspect.graph.read import read as read_model
from onnx_inspect.inputs.read import read

FIXTURES = Path(__file__).parents[2] / "fixtures"
VIT, SENTIMENT = FIXTURES / "digits_vit.onnx", FIXTURES / "sentiment.onnx"
DIGIT = FIXTURES / "inputs" / "digit_3.png"
TEXT = "The food was not good, but we loved the music."
Run = Callable[..., Any]


def planted(path: Path, size: tuple[int, int], box: tuple[int, int, int, int]) -> Path:
    """A black picture (H, W) with one bright box: top, left, bottom, right."""
    picture = np.zeros((*size, 3), np.uint8)
    picture[box[0] : box[2], box[1] : box[3]] = 255
    Image.fromarray(picture).save(path)
    return path


def test_attention_saves_probabilities_by_layer_with_their_meta(run: Run, tmp_path: Path) -> None:
    saved = tmp_path / "attention.npz"
    result = run(
        "attention", VIT, DIGIT, FIXTURES / "inputs" / "digit_5.png", "--save", saved, "-o", tmp_path, "--json"
    )
    assert result.code == 0, result.err
    layers = [entry["layer"] for entry in result.json["attentions"]]
    with np.load(saved) as stored:
        assert set(stored.files) == {*layers, "meta", "rollout"}
        for layer in layers:
            assert stored[layer].dtype == np.float32
            assert stored[layer].shape == (2, 4, 65, 65)
            np.testing.assert_allclose(stored[layer].sum(axis=-1), 1, atol=1e-5)
        meta = json.loads(str(stored["meta"]))
        assert stored["rollout"].shape == (2, 65, 65)
    assert {k: v for k, v in result.json.items() if k != "figures"} == meta
    assert [entry["index"] for entry in meta["attentions"]] == [0, 1, 2]
    for entry in meta["attentions"]:
        assert entry["grid"] == [8, 8]
        assert entry["prefix_names"] == ["cls"]
        assert entry["error"] < 1e-5
        assert len(entry["statistics"]) == 4
        assert {"entropy", "distance", "first", "itself", "name", "dead"} <= set(entry["statistics"][0])
    assert [Path(p).name for p in result.json["figures"]] == [
        f"digit_{d}-{part}.png" for d in (3, 5) for part in ("model", layers[-1])
    ]
    for path in result.json["figures"]:
        assert np.asarray(Image.open(path).convert("RGB")).std() > 20  # not blank


GOLDEN = {"layer", "index", "kind", "shape", "heads", "queries", "reduced", "causal", "cross", "grid", "prefix"}


def test_meta_of_a_text_holds_its_tokens(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="texts need the package tokenizers")
    result = run("attention", SENTIMENT, "--text", TEXT, "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    assert result.json["inputs"][0]["tokens"][:4] == ["[CLS]", "The", "food", "was"]
    assert set(result.json) == {"model", "provider", "inputs", "query", "attentions", "refused", "notes", "figures"}
    for entry in result.json["attentions"]:
        assert set(entry) >= GOLDEN | {"prefix_names", "windows", "error", "statistics"}
        assert entry["grid"] is None
        assert entry["shape"] == [1, 4, 14, 14]
        assert entry["causal"] is False


def test_padding_is_neither_drawn_nor_counted() -> None:
    pytest.importorskip("tokenizers", reason="texts need the package tokenizers")
    net = read_model(str(SENTIMENT))
    tokenizer = FIXTURES / "sentiment.tokenizer.json"
    shown = []
    for texts in (["the film was dull"], ["the film was dull", TEXT]):
        batch = read(net.inputs, [], texts=texts, tokenizer=tokenizer)
        found = capture(net, batch)
        assert found.maps[-1].probabilities.shape[-1] == (6 if len(texts) == 1 else 14)
        shown.append(views.over_tokens(found.maps[-1], views.kinds(found.maps[-1:], batch)[0], 0, batch, None))
    assert shown[0].rows == shown[1].rows == ("[CLS]", "the", "film", "was", "dull", "[SEP]")
    for alone, beside in zip(shown[0].heads, shown[1].heads, strict=True):
        np.testing.assert_allclose(alone.values, beside.values, atol=1e-5)  # float32, and what a mask of -10000 leaves


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 6), (6, 2), (7, 7)])
@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_a_planted_patch_is_where_rollout_and_heads_look(
    tmp_path: Path, size: tuple[int, int], row: int, column: int
) -> None:
    net = read_model(str(VIT))
    tall, wide = size[0] // 8, size[1] // 8
    box = (row * tall, column * wide, (row + 1) * tall, (column + 1) * wide)
    batch = read(net.inputs, [str(planted(tmp_path / "p.png", size, box))], metadata=net.metadata)
    found = capture(net, batch)
    last = found.maps[-1]
    named = views.kinds([last], batch)[0]
    panel = views.over_picture(last, named, 0, batch, queries.parse("cls"), rollout(found.maps))
    labels = [one.method for one in panel.maps]
    assert labels == ["head 0", "head 1", "head 2", "head 3", "mean of 4 heads", "rollout"]
    for label in ("head 0", "mean of 4 heads", "rollout"):  # head 2 looks at what is empty
        values = panel.maps[labels.index(label)].values
        assert values.shape == size  # on the original
        at = np.unravel_index(int(np.nanargmax(values)), values.shape)
        assert box[0] <= at[0] < box[2], label
        assert box[1] <= at[1] < box[3], label


def test_a_planted_patch_is_found_again_behind_a_crop(tmp_path: Path) -> None:
    net = read_model(str(VIT))
    preprocess = json.loads(net.metadata["onnx_inspect.preprocess"]) | {"resize": "crop"}
    size, box = (64, 128), (24, 72, 32, 80)
    batch = read(
        net.inputs, [str(planted(tmp_path / "p.png", size, box))], preprocess=json.dumps(preprocess), metadata={}
    )
    found = capture(net, batch)
    named = views.kinds(found.maps[-1:], batch)[0]
    panel = views.over_picture(found.maps[-1], named, 0, batch, None, rollout(found.maps))
    values = panel.maps[-1].values
    assert np.isnan(values[:, :20]).all()  # cut off by the crop
    at = np.unravel_index(int(np.nanargmax(values)), values.shape)
    assert box[0] - 4 <= at[0] < box[2] + 4  # within a patch's reach
    assert box[1] - 4 <= at[1] < box[3] + 4


def test_a_query_of_the_picture_draws_that_patchs_attention(run: Run, tmp_path: Path) -> None:
    result = run("attention", VIT, DIGIT, "--query", "18,6", "-o", tmp_path, "--json", "--layer", "1", "--layer", "-1")
    assert result.code == 0, result.err
    assert result.json["query"] == "18,6"
    assert [entry["index"] for entry in result.json["attentions"]] == [1, 2]
    assert len(result.json["figures"]) == 3  # the model, and each layer that was named


def test_heads_are_reduced_inside_the_model(run: Run, tmp_path: Path) -> None:
    saved = [tmp_path / "all.npz", tmp_path / "mean.npz"]
    run("attention", VIT, DIGIT, "--save", saved[0], "-o", tmp_path, "--quiet")
    result = run("attention", VIT, DIGIT, "--reduce", "mean", "--save", saved[1], "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    with np.load(saved[0]) as one, np.load(saved[1]) as other:
        for layer in (e["layer"] for e in result.json["attentions"]):
            np.testing.assert_allclose(other[layer], one[layer].mean(axis=1, keepdims=True), atol=1e-6)
        np.testing.assert_allclose(other["rollout"], one["rollout"], atol=1e-6)
    assert result.json["attentions"][0]["statistics"][0]["head"] == "mean"


def test_one_head_of_one_layer_keeps_its_number(run: Run, tmp_path: Path) -> None:
    result = run("attention", VIT, DIGIT, "--layer", "0", "--head", "2", "-o", tmp_path, "--json")
    assert [s["head"] for s in result.json["attentions"][0]["statistics"]] == ["2"]
    assert "rollout" not in result.json
    rolled = run("attention", VIT, DIGIT, "--layer", "0", "--head", "2", "--rollout", "-o", tmp_path, "--json")
    assert len(rolled.json["rollout"]["layers"]) == 3  # over all layers and heads nevertheless


def test_what_is_discarded_changes_the_rollout(run: Run, tmp_path: Path) -> None:
    found = []
    for share in ("0", "0.9"):
        saved = tmp_path / f"{share}.npz"
        run("attention", VIT, DIGIT, "--discard", share, "--save", saved, "-o", tmp_path, "--quiet")
        with np.load(saved) as stored:
            found.append(stored["rollout"])
    assert np.abs(found[0] - found[1]).max() > 0.01
    np.testing.assert_allclose(found[1].sum(axis=-1), 1, atol=1e-5)


def test_the_table_names_every_head_and_says_how_far_it_is_proved(run: Run, tmp_path: Path) -> None:
    result = run("attention", VIT, DIGIT, "-o", tmp_path)
    assert result.code == 0
    head = result.out.splitlines()[0].split()
    assert head == ["layer", "head", "entropy", "distance", "first", "itself", "kind"]
    assert "proved within" in result.out
    assert len([line for line in result.out.splitlines() if line.endswith(".png")]) == 2


@pytest.mark.parametrize(
    ("model", "words", "says"),
    [
        ("digits_convnet.onnx", [DIGIT], "has no attention"),
        ("digits_vit.onnx", [DIGIT, "--query", "dog"], "--query is cls, mean, a token's number, or x,y"),
        ("digits_vit.onnx", [DIGIT, "--query", "900"], "has 65 queries: 0 to 64"),
        ("digits_vit.onnx", [DIGIT, "--query", "400,2"], "outside what the network saw"),
        ("digits_vit.onnx", [DIGIT, "--layer", "7"], "it has 3"),
        ("digits_vit.onnx", [DIGIT, "--head", "9"], "has no head 9"),
        ("digits_vit.onnx", [DIGIT, "--discard", "1"], "a share from 0 to below 1"),
        ("sentiment.onnx", ["-I", "input_ids=[[2,9,3]]", "--query", "3,3"], "needs the patches of a picture"),
    ],
)
def test_what_cannot_be_seen_is_one_line(run: Run, tmp_path: Path, model: str, words: list[Any], says: str) -> None:
    saved = tmp_path / "attention.npz"
    result = run("attention", FIXTURES / model, *words, "-o", tmp_path / "out", "--save", saved, "--quiet")
    assert result.code == 2
    assert says in result.err
    assert len(result.err.splitlines()) == 1
    assert not saved.exists()
