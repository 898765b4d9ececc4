"""Gradients of texts are by the vectors of their tokens: against differences, completeness, and what is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_inspect.analysis import token_saliency
from onnx_inspect.embedded import at_embedding
from onnx_inspect.errors import LayerError, MethodError
from onnx_inspect.graph.read import read
from onnx_inspect.inputs.read import read as read_inputs
from onnx_inspect.methods import attribute
from onnx_inspect.scene import Scene, scene
from tests.cli.conftest import run  # noqa: F401  # the fixture

FIXTURES = Path(__file__).parents[1] / "fixtures"
SHORT, LONG = "a wonderful, warm film.", "Not bad at all, but the ending is dull."
METHODS = ("saliency", "gradient-x-input", "integrated-gradients", "smooth-grad")


@pytest.fixture(scope="module")
def view() -> Scene:
    model = read(FIXTURES / "sentiment.onnx")
    tokenizer = FIXTURES / "sentiment.tokenizer.json"
    batch = read_inputs(model.inputs, [], metadata=model.metadata, texts=[SHORT, LONG], tokenizer=tokenizer)
    return scene(model, batch)


def test_gradients_by_tokens_are_what_central_differences_say(view: Scene) -> None:
    """40 random directions; float32 scores leave some 1e-7 / 1e-3 of noise in each difference."""
    probe = at_embedding(view).probe()
    of = np.ones(2, np.intp)
    gradient = probe.input_gradients(lambda rows: probe.inputs[rows], np.arange(2))[1].astype(np.float64)
    rng, step = np.random.default_rng(0), 1e-3
    for _ in range(40):
        way = rng.normal(size=gradient.shape)
        pair = (probe.inputs[1] + step * np.stack([way, -way])).astype(np.float32)
        scores = probe.scores(lambda rows, pair=pair: pair[rows], of)
        assert (scores[0] - scores[1]) / (2 * step) == pytest.approx(float((gradient * way).sum()), abs=5e-3)


def test_the_model_seen_from_its_tokens_scores_the_same(view: Scene) -> None:
    probe = at_embedding(view).probe()
    np.testing.assert_allclose(
        probe.scores(lambda rows: probe.inputs[rows], np.arange(2)), view.probe().base_scores(), rtol=1e-5
    )


@pytest.mark.parametrize("method", METHODS)
def test_each_token_gets_a_value_and_padding_none(view: Scene, method: str) -> None:
    found = attribute(view, method)
    assert view.batch.read_as is not None
    tokens = view.batch.read_as.tokens
    assert found.values.shape == (2, 1, len(tokens[0].pieces))
    assert found.tokenwise
    assert found.layer == ""
    panel = token_saliency.of_batch([found], 0, view.batch)
    assert panel.pieces[0] == "[CLS]"
    assert len(panel.maps[0].values) == tokens[0].count
    assert panel.maps[0].every
    padding = np.array(tokens[0].padding)
    assert padding.any()
    assert np.abs(found.values[0, 0, padding]).max() <= 1e-6 * np.abs(found.values[0]).max()


def test_shares_of_all_tokens_add_up_to_the_change_of_the_score(view: Scene) -> None:
    found = attribute(view, "integrated-gradients")
    assert found.account is not None and found.account.change is not None
    np.testing.assert_allclose(found.values.sum(axis=(1, 2)), found.account.change, rtol=2e-3)
    assert np.abs(found.account.change).min() > 0.1


def test_json_names_every_token_and_says_nothing_of_hiding(run: Any, tmp_path: Path) -> None:  # noqa: F811
    words = ("--method", "gradient-x-input", "--json", "-o", tmp_path)
    found = run("cam", FIXTURES / "sentiment.onnx", "--text", SHORT, *words)
    assert found.code == 0, found.err
    tokens = found.json["methods"]["gradient-x-input"]["inputs"][0]["tokens"]
    assert tokens[0]["text"] == "[CLS]"
    assert "hidden" not in found.json
    assert len(found.json["figures"]) == 1


def test_methods_of_pictures_alone_say_where_a_text_has_gradients(view: Scene) -> None:
    with pytest.raises(LayerError, match="gradients need real numbers; the nearest layer"):
        attribute(view, "guided-backprop")


def test_a_model_without_a_table_is_refused() -> None:
    model = read(FIXTURES / "shapes_resnet.onnx")
    batch = read_inputs(model.inputs, ["random"], metadata=model.metadata)
    with pytest.raises(MethodError, match="no table"):
        at_embedding(scene(model, batch))
