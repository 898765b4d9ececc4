"""Attention of models that onnxruntime's own tools fused, optimised or quantised: recovered, and proved.

Fused models compute what PyTorch does: 1e-5, both in float32. Quantised ones attend where their rounded numbers lead,
so that only the proof against the model's own context holds them to account.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="it exports the models")
pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")
pytest.importorskip("onnxruntime.transformers.optimizer", reason="it fuses the models")
pytest.importorskip("onnxruntime.quantization", reason="it quantises the models")

from fixtures import attentive_variants as variants
from fixtures.attentive_cases import Exported, export
from onnx_inspect.attention import capture
from onnx_inspect.graph.read import parse
from onnx_inspect.heads import Attentions
from onnx_inspect.inputs.batch import Batch

BERT, VIT, GPT2 = "BERT, written out", "ViT 4x6, class token, written out", "GPT-2, packed"
SWIN, TORCH = "Swin 8x16, written out", "MultiheadAttention, weights, time first"


@cache
def case(name: str) -> Exported:
    return export(name, "legacy", 17)


def captured(data: bytes, arrays: Mapping[str, NDArray[Any]]) -> Attentions:
    count = len(next(iter(arrays.values())))
    none = (None,) * count
    return capture(
        parse(data), Batch(arrays, next(iter(arrays)), tuple(map(str, range(count))), none, none, None, None, ())
    )


def operators(data: bytes) -> set[str]:
    return {node.op_type for node in onnx.load_from_string(data).graph.node}


def check(found: Attentions, expected: Exported) -> None:
    assert not found.refused
    assert len(found.maps) == len(expected.probabilities)
    for own, probabilities in zip(found.maps, expected.probabilities, strict=True):
        assert np.abs(own.probabilities - probabilities).max() < 1e-5
        assert own.error < 1e-5


@pytest.mark.parametrize("level", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("name", "kind", "multi_head", "operator"),
    [
        (BERT, "bert", False, "Attention"),
        (BERT, "bert", True, "MultiHeadAttention"),
        (VIT, "vit", False, "Attention"),
        (VIT, "vit", True, "MultiHeadAttention"),
        (GPT2, "gpt2", False, "Attention"),
    ],
)
def test_fused_models_give_the_heads_of_pytorch(
    name: str, kind: str, multi_head: bool, operator: str, level: int
) -> None:
    data = variants.fused(case(name).data, kind, heads=4, width=32, level=level, multi_head=multi_head)
    assert operator in operators(data)  # else nothing was fused
    assert "Softmax" not in operators(data)
    found = captured(data, case(name).arrays)
    check(found, case(name))
    assert {m.kind for m in found.maps} == {f"com.microsoft.{operator}"}
    assert {m.causal for m in found.maps} == {name == GPT2}
    assert {m.grid for m in found.maps} == {(4, 6) if name == VIT else None}


@pytest.mark.parametrize("name", [BERT, VIT, GPT2, SWIN, TORCH])
@pytest.mark.parametrize("level", ["extended", pytest.param("all", marks=pytest.mark.slow)])
def test_models_that_the_runtime_saved_give_the_heads_of_pytorch(name: str, level: Any) -> None:
    data = variants.optimised(case(name).data, level)
    check(captured(data, case(name).arrays), case(name))


@pytest.mark.parametrize("name", [BERT, SWIN])
@pytest.mark.parametrize("way", ["dynamic", "per channel", "products", "products, optimised", "QDQ", "QOperator"])
def test_quantised_models_are_proved_against_their_own_context(name: str, way: str) -> None:
    expected = case(name)
    made = {
        "dynamic": lambda: variants.dynamic(expected.data),
        "per channel": lambda: variants.dynamic(expected.data, per_channel=True),
        "products": lambda: variants.dynamic(expected.data, products=True),
        "products, optimised": lambda: variants.optimised(variants.dynamic(expected.data, products=True)),
        "QDQ": lambda: variants.static(expected.data, expected.arrays, "QDQ"),
        "QOperator": lambda: variants.static(expected.data, expected.arrays, "QOperator"),
    }[way]()
    found = captured(made, expected.arrays)
    assert not found.refused
    assert [m.probabilities.shape for m in found.maps] == [p.shape for p in expected.probabilities]
    exact = way in ("dynamic", "per channel")  # there the attention itself stays in float32
    assert max(m.error for m in found.maps) < (1e-5 if exact else 0.05)
    # Weights in int8 move scores by some percent; a rounded mask of -1e9 takes part of the score's range with it.
    assert max(np.abs(m.probabilities - p).max() for m, p in zip(found.maps, expected.probabilities, strict=True)) < (
        0.05 if "Q" not in way else 0.3
    )


def test_a_quantised_fused_attention_is_recovered_to_rounding() -> None:
    data = variants.dynamic(variants.fused(case(BERT).data, "bert", heads=4, width=32))
    assert "QAttention" in operators(data)
    found = captured(data, case(BERT).arrays)
    assert not found.refused
    assert {m.kind for m in found.maps} == {"com.microsoft.QAttention"}
    assert max(m.error for m in found.maps) < 1e-5  # the integers' product is exact, what follows is float32
