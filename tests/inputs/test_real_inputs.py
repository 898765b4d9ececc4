"""Recorded answers of real models: the whole way from a file to the numbers fed has to be right for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from onnx_inspect.graph.read import read as read_model
from onnx_inspect.inputs.read import read

REAL = Path(__file__).parents[2] / "../shared/real"
MODELS = [
    "squeezenet1_fp16",
    "mobilenet_v2_224_uint8",
    "resnet8_keras_int8",
    "vit_cifar10_pgd_2_3_16",
    "mnist_mlp_256x4",
]

pytestmark = pytest.mark.skipif(not (REAL / "index.json").exists(), reason="../shared/real is not here")


def described(name):
    return next(m for m in json.loads((REAL / "index.json").read_text())["models"] if m["id"] == name)


def preprocess_json(recorded):
    kept = {key: recorded[key] for key in ("layout", "scale", "mean", "std")}
    colour = {"L": "GRAY"}.get(recorded["colour"], recorded["colour"])
    return json.dumps({**kept, "size": [recorded["height"], recorded["width"]], "resize": "stretch", "colour": colour})


@pytest.mark.parametrize("name", MODELS)
def test_the_recorded_top_1_comes_out(name):
    entry = described(name)
    model = read_model(REAL / entry["file"])
    recorded = entry["verified"]["top1"]
    if isinstance(recorded, dict):
        suffix = {path.stem: path.suffix for path in (REAL / "images").iterdir()}
        words = [str(REAL / "images" / f"{k}{suffix[k]}") for k in recorded]
        expected = [answer["index"] for answer in recorded.values()]
    else:
        words, expected = [str(REAL / entry["verified"]["data"])], recorded
    batch = read(model.inputs, words, preprocess=preprocess_json(entry["preprocess"]), metadata=model.metadata)
    session = ort.InferenceSession(REAL / entry["file"])
    array = batch.arrays[batch.primary]
    found = [np.argmax(session.run(None, {batch.primary: array[i : i + 1]})[0]) for i in range(batch.n)]
    assert found == expected


def test_the_digits_archive_fits_the_tabular_model_by_shape():
    entry = described("digits_mlp_sklearn")
    model = read_model(REAL / entry["file"])
    with np.load(REAL / "data/digits_test.npz") as data:
        rows, truth = data["x"], data["y"]
    said = '{"size": [8, 8], "colour": "GRAY", "scale": 0.0627450980392157}'  # 16 / 255
    batch = read(model.inputs, [str(REAL / "data/digits_test.npz")], preprocess=said)
    np.testing.assert_array_equal(batch.arrays["X"], rows)
    np.testing.assert_array_equal(batch.originals[0][..., 0].ravel(), np.rint(rows[0] / 16 * 255))
    labels = ort.InferenceSession(REAL / entry["file"]).run(["label"], {"X": batch.arrays["X"]})[0]
    assert np.mean(labels == truth) > 0.9


def test_sentences_come_keyed_by_input_name():
    model = read_model(REAL / described("minilm_l6_cutvocab_int8")["file"])
    batch = read(model.inputs, [str(REAL / "data/minilm_sentences.npz")])
    assert batch.n == 8 and set(batch.arrays) == {"input_ids", "attention_mask", "token_type_ids"}
    assert any("ignored original_input_ids, sentences, cosine_fp32" in note for note in batch.notes)


def test_a_recurrent_model_runs_on_what_random_and_values_give():
    path = REAL / described("silero_vad_16k_op15")["file"]
    batch = read(read_model(path).inputs, ["input:1,576", "state=zeros", "sr=16000"])
    assert batch.primary == "input" and batch.shared == {"state", "sr"}
    ((probability,),) = ort.InferenceSession(path).run(["output"], dict(batch.arrays))[0]
    assert 0 <= probability <= 1
