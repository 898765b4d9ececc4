"""What `attention` prints and saves, whole; and what it says of heads, refusals and rollouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_inspect.analysis.attention_query import parse
from onnx_inspect.analysis.attention_report import report
from onnx_inspect.errors import LayerError, MethodError
from onnx_inspect.heads import AttentionMap, Attentions
from onnx_inspect.inputs.batch import Batch


def batch() -> Batch:
    array = np.zeros((1, 3, 4, 6), np.float32)
    return Batch({"x": array}, "x", ("photo.png",), (None,), (None,), None, None, ("a choice",))


def layer(name: str, index: int, p: Any, **more: Any) -> AttentionMap:
    probabilities = np.asarray(p, np.float32)
    cells = np.array([[-1, 0, 1, 2, 3]])
    known: dict[str, Any] = {
        "kind": "softmax", "heads": tuple(range(probabilities.shape[1])), "queries": None, "reduced": None,
        "causal": False, "cross": False, "grid": (2, 2), "cells": cells, "prefix": 1, "prefix_names": ("cls",),
        "windows": 1, "query_grid": (2, 2), "query_cells": cells, "error": 1e-7,
    }  # fmt: skip
    return AttentionMap(layer=name, index=index, probabilities=probabilities, **(known | more))


def attentions(*maps: AttentionMap, refused: tuple[tuple[str, str], ...] = ()) -> Attentions:
    return Attentions(maps, refused, ("photo.png",), "CPUExecutionProvider", 1)


EYE, EVEN = np.eye(5)[None], np.full((1, 5, 5), 0.2)
TWO = np.stack([np.concatenate([EYE, EVEN])])  # (1, 2, 5, 5): a diagonal and an even head


def test_meta_is_all_that_is_known_of_each_attention() -> None:
    found = attentions(layer("a", 0, TWO), refused=(("b", "not proved"),))
    made = report(found, None, batch(), model="net.onnx", query=parse("cls"))
    statistics = made.meta["attentions"][0].pop("statistics")
    assert made.meta == {
        "model": "net.onnx",
        "provider": "CPUExecutionProvider",
        "inputs": [{"source": "photo.png"}],
        "query": "cls",
        "attentions": [
            {
                "layer": "a", "index": 0, "kind": "softmax", "shape": [1, 2, 5, 5], "heads": [0, 1], "queries": None,
                "reduced": None, "causal": False, "cross": False, "grid": [2, 2], "prefix": 1,
                "prefix_names": ["cls"], "windows": 1, "query_grid": [2, 2], "error": 1e-7,
            }
        ],
        "refused": [{"layer": "b", "reason": "not proved"}],
        "notes": ["a choice"],
    }  # fmt: skip
    assert statistics[0] == {
        "head": "0", "entropy": 0.0, "evenness": 0.0, "distance": 0.0, "first": 0.2, "itself": 1.0, "previous": 0.0,
        "following": 0.0, "movement": 0.8, "name": "diagonal", "dead": False,
    }  # fmt: skip
    assert statistics[1]["name"] == "even"
    assert statistics[1]["dead"] is True
    assert statistics[1]["entropy"] == pytest.approx(np.log(5), abs=1e-6)
    # Patches of 2 x 2 seen alike: 0, 1, 1 and the root of 2 away
    assert statistics[1]["distance"] == pytest.approx((2 + 2**0.5) / 4, abs=1e-6)


def test_arrays_are_the_probabilities_by_layer_and_the_meta() -> None:
    made = report(attentions(layer("a", 0, TWO), layer("b/c", 1, TWO)), None, batch(), model="net.onnx")
    assert list(made.arrays) == ["a", "b/c", "meta"]
    assert made.arrays["b/c"].dtype == np.float32
    assert json.loads(str(made.arrays["meta"])) == made.meta


def test_what_is_refused_and_what_heads_do_is_said() -> None:
    found = attentions(layer("a", 0, TWO), layer("b", 1, TWO), refused=(("c", "not proved: misses by 3%"),))
    notes = report(found, None, batch(), model="net.onnx").notes
    assert notes == (
        "refused 'c': not proved: misses by 3%",
        "diagonal: head 0.0, 1.0",
        "even, so dead: head 0.1, 1.1",
    )


def test_without_any_attention_the_reason_is_the_error() -> None:
    with pytest.raises(LayerError, match=r"no attention of net.onnx could be recovered: 'c': not proved"):
        report(attentions(refused=(("c", "not proved"),)), None, batch(), model="net.onnx")


def test_a_rollout_comes_with_pictures_and_by_asking() -> None:
    layers = attentions(layer("a", 0, TWO), layer("b", 1, TWO))
    made = report(layers, layers, batch(), model="net.onnx", discard=0.25)
    assert made.rolled is not None
    assert made.meta["rollout"] == {"layers": ["a", "b"], "reduce": "mean", "discard": 0.25}
    assert made.arrays["rollout"].shape == (1, 5, 5)
    plain = attentions(*(layer(n, i, TWO, grid=None, cells=None, query_grid=None) for i, n in enumerate("ab")))
    assert report(plain, plain, batch(), model="net.onnx").rolled is None
    assert report(plain, plain, batch(), model="net.onnx", wanted=True).rolled is not None


def test_a_rollout_over_a_refused_layer_is_refused() -> None:
    found = attentions(layer("a", 0, TWO), layer("c", 2, TWO), refused=(("b", "not proved"),))
    with pytest.raises(MethodError, match="no rollout: 'b' is missing, not proved"):
        report(found, found, batch(), model="net.onnx", wanted=True)
    assert report(found, found, batch(), model="net.onnx").rolled is None


def test_meta_can_be_printed_where_statistics_mean_nothing(tmp_path: Path) -> None:
    from onnx_inspect.cli._session import emit

    crossing = layer("a", 0, TWO[:, :, :3], cross=True, query_grid=None, query_cells=None)
    made = report(attentions(crossing), None, batch(), model="net.onnx")
    emit(made.meta, tmp_path / "meta.json")
    stored = json.loads((tmp_path / "meta.json").read_text())
    assert stored["attentions"][0]["statistics"][0]["distance"] is None
    json.loads(str(made.arrays["meta"]), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
