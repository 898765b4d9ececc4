"""Tables of ids and of places are found whatever stands between them and the input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_inspect.graph.embedding import ids_table, places_table
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read


def test_a_text_classifier_tells_its_vocabulary_and_its_longest_text(fixtures: Path) -> None:
    net = read(fixtures / "sentiment.onnx")
    words, places = ids_table(net, "input_ids"), places_table(net, "input_ids", ["attention_mask"])
    assert words is not None and places is not None
    assert (words.rows, words.width) == (
        next(t for t in net.constants.values() if t.name == "words.weight").dims[0],
        48,
    )
    assert (places.rows, places.width) == (48, 48)


@pytest.mark.parametrize("between", [[], ["Cast"], ["Identity", "Cast"]])
def test_what_lies_between_ids_and_their_table_is_passed(make: Callable[..., Model], between: list[str]) -> None:
    nodes, name = [], "input_ids"
    for number, kind in enumerate(between):
        more = {"to": onnx.TensorProto.INT32} if kind == "Cast" else {}
        nodes.append(helper.make_node(kind, [name], [f"step{number}"], **more))
        name = f"step{number}"
    nodes += [
        helper.make_node("Gather", ["words", name], ["a"], name="look"),
        helper.make_node("Gather", ["kinds", "token_type_ids"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    inputs = {n: (np.int64, ["N", "T"]) for n in ("input_ids", "token_type_ids")}
    tables = {"words": np.zeros((9, 4), np.float32), "kinds": np.zeros((2, 4), np.float32)}
    net = make(nodes, inputs, ["y"], tables)
    table = ids_table(net, "input_ids")
    assert table is not None
    assert (table.node, table.rows) == ("look", 9)
    assert places_table(net, "input_ids", ["token_type_ids"]) is None  # segments aren't places


def test_a_model_of_pictures_has_no_such_tables(fixtures: Path) -> None:
    net = read(fixtures / "digits_vit.onnx")
    assert ids_table(net, "input") is None
    assert places_table(net, "input", []) is None
