"""Texts through the commands: which words moved the score, by closed forms and by what the model was taught."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from onnx_inspect.graph.model import Model
from onnx_inspect.methods import explain_all
from onnx_inspect.targets import parse

pytest.importorskip("tokenizers", reason="texts need the package tokenizers")

FIXTURES = Path(__file__).parents[2] / "fixtures"
SENTIMENT = FIXTURES / "sentiment.onnx"
LOVED = "The food was not good, but we loved the music."
Run = Callable[..., Any]


def values(result: Any, method: str, index: int = 0) -> dict[str, float]:
    return {t["text"]: t["value"] for t in result.json["methods"][method]["inputs"][index]["tokens"]}


def test_a_text_is_classified_with_the_tokenizer_beside_the_model(run: Run) -> None:
    result = run("predict", SENTIMENT, "--text", LOVED, "--text", "The hotel was awful.", "--json")
    assert result.code == 0
    assert [entry["top"][0]["label"] for entry in result.json["inputs"]] == ["positive", "negative"]
    assert "beside the model; name another with --tokenizer" in result.err
    assert "filled up with [PAD]" in result.err


@pytest.mark.parametrize("method", ["occlusion", "kernel-shap", "lime", "rise"])
def test_the_word_that_decides_stands_out(run: Run, tmp_path: Path, method: str) -> None:
    result = run("cam", SENTIMENT, "--text", LOVED, "--method", method, "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    found = values(result, method)
    assert max(found, key=lambda word: found[word]) == "loved"
    assert result.json["methods"][method]["shape"] == [1, 1, 14]  # a cell for each token, [CLS] and [SEP] too
    assert result.json["hidden"] == "[MASK] (id 4)"
    pixels = np.asarray(Image.open(next(tmp_path.glob("*.png"))).convert("RGB"))
    assert pixels.std() > 10  # not blank


def test_occlusion_is_the_method_for_texts_and_its_choices_are_said(run: Run, tmp_path: Path) -> None:
    result = run("cam", SENTIMENT, "--text", LOVED, "-o", tmp_path, "--json")
    assert list(result.json["methods"]) == ["occlusion"]
    assert result.json["methods"]["occlusion"]["params"]["window"] == 1.0
    assert "hidden tokens become [MASK] (id 4); choose with --hide: attention, unk, pad, an id" in result.err
    whole = run("cam", SENTIMENT, "--text", LOVED, "-o", tmp_path, "--json", "--hide", "attention", "--quiet")
    assert whole.json["hidden"] == "the attention mask"
    assert values(whole, "occlusion") != values(result, "occlusion")


def test_occlusion_of_a_token_is_the_score_that_its_mask_costs(run: Run, tmp_path: Path) -> None:
    result = run("cam", SENTIMENT, "--text", LOVED, "--target", "positive", "-o", tmp_path, "--json")
    ids = [2, *_ids(LOVED), 3]
    hidden = [[*ids[:place], 4, *ids[place + 1 :]] for place in range(1, len(ids) - 1)]
    logits = _logits([ids, *hidden])[:, 2]
    found = [t["value"] for t in result.json["methods"]["occlusion"]["inputs"][0]["tokens"]]
    np.testing.assert_allclose(found, logits[0] - logits[1:], atol=1e-4)  # float32


def test_shapley_values_of_tokens_add_up_to_the_whole_score(run: Run, tmp_path: Path) -> None:
    texts = ["the film was dull", "it was not a bad book at all"]
    words = [w for text in texts for w in ("--text", text)]
    saved = tmp_path / "maps.npz"
    more = ["--method", "kernel-shap", "--param", "samples=600", "--target", "negative", "--save", saved]
    result = run("cam", SENTIMENT, *words, *more, "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    for n, text in enumerate(texts):
        own = _ids(text)
        full, empty = _logits([[2, *own, 3], [2, *[4] * len(own), 3]])[:, 0]
        found = [t["value"] for t in result.json["methods"]["kernel-shap"]["inputs"][n]["tokens"]]
        assert len(found) == len(own)
        assert sum(found) == pytest.approx(full - empty, abs=1e-4)  # float32, and what padding does to sums
    with np.load(saved) as stored:
        raw = stored["kernel-shap"]
        assert raw.shape == (2, 1, 10)
        assert raw[0, 0, [0, 5, 6, 7, 8, 9]].tolist() == [0] * 6  # [CLS], [SEP] and padding were never hidden
        assert json.loads(str(stored["meta"])) == {k: v for k, v in result.json.items() if k != "figures"}


def _ids(text: str) -> list[int]:
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(FIXTURES / "sentiment.tokenizer.json"))
    return list(made.encode(text, add_special_tokens=False).ids)


def _logits(rows: list[list[int]]) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(SENTIMENT, providers=["CPUExecutionProvider"])
    ids = np.array(rows)
    return session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]


def bag_of_words(make: Callable[..., Model], weights: Any) -> Model:
    """A model whose score is the sum of its ids' weights: every Shapley value is a difference of two of them."""
    nodes = [
        helper.make_node("Gather", ["weights", "input_ids"], ["each"]),
        helper.make_node("ReduceSum", ["each", "axis"], ["score"], keepdims=1),
    ]
    constants = {"weights": np.asarray(weights, np.float32), "axis": np.array([1])}
    return make(nodes, {"input_ids": (np.int64, ["N", "T"])}, {"score": (np.float32, ["N", 1])}, constants)


@pytest.mark.parametrize("method", ["occlusion", "kernel-shap"])
def test_on_a_sum_of_words_each_gets_its_own_share(make: Callable[..., Model], method: str) -> None:
    from onnx_inspect.inputs.read import read

    weights = np.array([0.5, 3, -2, 7, 0.25, 1])
    net = bag_of_words(make, weights)
    batch = read(net.inputs, [], texts=["1 2 3 4", "5 3"])
    found, _ = explain_all(net, batch, methods=[method], targets=parse("regression"))
    assert batch.text is not None
    assert batch.text.hiding.words == "id 0"
    expected = [[3 - 0.5, -2.5, 6.5, -0.25], [0.5, 6.5, 0, 0]]  # what fills up is never hidden
    np.testing.assert_allclose(found[0][1].values[:, 0], expected, atol=1e-5)


def test_whole_words_are_hidden_together(run: Run, tmp_path: Path) -> None:
    text = "an unforgettable evening"
    apart = run("cam", SENTIMENT, "--text", text, "-o", tmp_path, "--json", "--quiet")
    assert list(values(apart, "occlusion")) == ["an", "un", "##forgett", "##able", "evening"]
    together = run("cam", SENTIMENT, "--text", text, "--words", "-o", tmp_path, "--json", "--quiet")
    assert list(values(together, "occlusion")) == ["an", "unforgettable", "evening"]


def test_a_contrast_tells_one_class_from_another(run: Run, tmp_path: Path) -> None:
    result = run("cam", SENTIMENT, "--text", LOVED, "--target", "positive~negative", "-o", tmp_path, "--json")
    found = values(result, "occlusion")
    assert found["loved"] > 1 > 0 > found["not"]


def test_the_likeness_of_two_texts_hangs_on_the_words_they_share(run: Run, tmp_path: Path) -> None:
    target = "similar:we loved the music"
    result = run("cam", SENTIMENT, "--text", "they loved the film", "--target", target, "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    entry = result.json["inputs"][0]
    assert entry["target"]["label"] == "cosine with “we loved the music”"
    assert 0.5 < entry["score"] <= 1
    assert max(values(result, "occlusion").items(), key=lambda pair: pair[1])[0] == "loved"
    itself = run("cam", SENTIMENT, "--text", LOVED, "--target", f"similar:{LOVED}", "-o", tmp_path, "--json")
    assert itself.json["inputs"][0]["score"] == pytest.approx(1, abs=1e-5)


def test_token_outputs_are_compared_by_their_mean(make: Callable[..., Model]) -> None:
    from onnx_inspect.inputs.read import read

    table = np.random.default_rng(0).normal(0, 1, (8, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["seen"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["seen", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["hidden"]),
    ]
    inputs = {"input_ids": (np.int64, ["N", "T"]), "attention_mask": (np.int64, ["N", "T"])}
    net = make(nodes, inputs, {"hidden": (np.float32, ["N", "T", 4])}, {"table": table, "last": np.array([2])})
    batch = read(net.inputs, [], texts=["1 2 3", "4 5"])
    found, _ = explain_all(net, batch, methods=["occlusion"], targets=parse("similar:6 7"))
    other = table[[6, 7]].mean(axis=0)
    own = [table[[1, 2, 3]].mean(axis=0), table[[4, 5]].mean(axis=0)]
    cosines = [one @ other / np.linalg.norm(one) / np.linalg.norm(other) for one in own]
    np.testing.assert_allclose(found[0][1].scores, cosines, atol=1e-6)
    assert "the mean of 'hidden' over the tokens that aren't padding" in found[0][1].notes[0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--text", ""], "text 1 of 1 is empty"),
        (["--text", "so good", "--tokenizer", "/nowhere/tokenizer.json"], "no such file"),
        (["--text", "so good", "--hide", "blank"], "can't be hidden by 'blank' here; there are: mask, attention"),
        (["--text", "so good", "--smooth", "augment"], "a text has no such variants"),
        (["--text", "so good", "--param", "fill=mean"], "fill is for pictures"),
        (["--text", "so good", "--method", "recipro-cam"], "no layer with maps over its input"),
        (["--text", "so good", "--target", "dreadful"], "dreadful"),
    ],
)
def test_what_cannot_be_done_with_a_text_is_one_line(run: Run, tmp_path: Path, words: list[str], says: str) -> None:
    result = run("cam", SENTIMENT, *words, "-o", tmp_path, "--quiet")
    assert result.code == 2
    assert says in result.err
    assert len(result.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_another_models_tokenizer_is_noticed(run: Run, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    other = Tokenizer(models.WordLevel({"[UNK]": 0, "good": 4242}, unk_token="[UNK]"))
    other.pre_tokenizer = pre_tokenizers.Whitespace()
    other.save(str(tmp_path / "other.json"))
    result = run("predict", SENTIMENT, "--text", "so good", "--tokenizer", tmp_path / "other.json")
    assert result.code == 2
    assert "'good' has the id 4242" in result.err
    assert "other.json is of another model" in result.err


@pytest.mark.parametrize(("words", "fails"), [(46, False), (47, True)])
def test_a_text_longer_than_the_model_takes_is_one_line(run: Run, words: int, fails: bool) -> None:
    result = run("predict", SENTIMENT, "--text", "good " * words, "--quiet")
    assert result.code == (2 if fails else 0)
    if fails:
        assert "the text has 49 tokens" in result.err
        assert "knows 48 places: give a shorter text" in result.err


def test_hiding_tokens_of_a_picture_is_refused(run: Run, tmp_path: Path) -> None:
    picture = FIXTURES / "inputs" / "digit_3.png"
    result = run("cam", FIXTURES / "digits_vit.onnx", picture, "--words", "-o", tmp_path)
    assert result.code == 2
    assert "--hide and --words are for texts" in result.err


def test_texts_go_through_the_other_commands(run: Run, tmp_path: Path) -> None:
    seen = run("activations", SENTIMENT, "--text", LOVED, "--layer", "Softmax:-1", "-o", tmp_path, "--json")
    assert seen.code == 0, seen.err
    assert seen.json["inputs"][0]["source"] == LOVED


def test_the_real_sentence_encoders_likeness_hangs_on_its_cat(run: Run, real: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    lines = (real / "labels" / "minilm_vocab_cut.txt").read_text(encoding="utf-8").splitlines()
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(lines)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(lines[:5])
    ends = [(name, lines.index(name)) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    made.save(str(tmp_path / "tokenizer.json"))
    with np.load(real / "data" / "minilm_sentences.npz") as stored:
        sentences, ids = [str(s) for s in stored["sentences"][:2]], stored["input_ids"][0]
    target = ["--target", f"similar:{sentences[1]}", "--tokenizer", tmp_path / "tokenizer.json"]
    net = real / "models" / "minilm_l6_cutvocab_int8.onnx"
    result = run("cam", net, "--text", sentences[0], *target, "-o", tmp_path, "--json")
    assert result.code == 0, result.err
    assert made.encode(sentences[0]).ids == ids[ids > 0].tolist()  # as the real tokenizer had it
    assert result.json["inputs"][0]["score"] == pytest.approx(0.688, abs=0.01)  # index.json; int8 scales by the batch
    found = values(result, "occlusion")
    assert {"cat", "sleeps"} == set(sorted(found, key=lambda word: -found[word])[:2])
