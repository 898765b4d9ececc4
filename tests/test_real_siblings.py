"""Pairs of models that other people made are compared rightly, each fed through its own convention."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnx_inspect.cli.app import main

# Least cosine of the outputs, tensors of A that have no counterpart, and a share of matched tensors of some SQNR.
PAIRS = {
    ("squeezenet1_fp32", "squeezenet1_fp16"): (0.99999, 0, 50.0),
    ("mobilenet_v1_025_128_fp32", "mobilenet_v1_025_128_uint8"): (0.99, 0, 10.0),
    ("captum_cifar_legacy_op11", "captum_cifar_dynamo_op21"): (0.999999, 0, 100.0),
    ("resnet8_keras_fp32", "resnet8_keras_int8"): (0.99, 0, 15.0),
    ("visual_wake_words_fp32", "visual_wake_words_int8"): (0.99, 0, 10.0),
    ("mnist_cntk_op7", "mnist_cntk_op8_optimised"): (0.999999, 3, 100.0),  # two biases and a product are folded away
}


@pytest.fixture
def compare(real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def call(a: str, b: str) -> tuple[int, Any]:
        pictures = [real / "images" / f"{name}.jpg" for name in ("zebra", "hotdog")]
        words = [
            "compare",
            *(real / "models" / f"{n}.onnx" for n in (a, b)),
            *pictures,
            "--json",
            "-o",
            tmp_path / "p.png",
        ]
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return int(str(ended.value.code)), json.loads(capsys.readouterr().out)

    return call


@pytest.mark.slow
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_siblings_are_recognised_layer_by_layer(compare: Callable[..., Any], a: str, b: str) -> None:
    cosine, gone, sqnr = PAIRS[a, b]
    code, found = compare(a, b)
    assert code == 0 and found["agree"]
    assert found["outputs"][0]["cosine"] >= cosine and found["outputs"][0]["top1"] == 1
    assert len(found["unmatched_a"]) == gone
    assert all(pair["sqnr_db"] is None or pair["sqnr_db"] > sqnr for pair in found["matched"])
    values = [pair for pair in found["matched"] if pair["evidence"].startswith("values")]
    assert len(values) > 0.8 * len(found["matched"])


def test_two_exporters_of_one_network_agree_layer_by_layer(compare: Callable[..., Any]) -> None:
    """The fast one of the pairs: every name differs."""
    code, found = compare("captum_cifar_legacy_op11", "captum_cifar_dynamo_op21")
    assert code == 0 and found["culprit"] is None
    assert not found["unmatched_a"] and not found["unmatched_b"]
    assert all(pair["a"] != pair["b"] for pair in found["matched"][:-1])


@pytest.mark.slow
def test_a_quantised_output_that_is_cut_off_is_named(compare: Callable[..., Any]) -> None:
    """The int8 file's logits end at about 1.9, where the float file's go beyond 2.4."""
    _, found = compare("visual_wake_words_fp32", "visual_wake_words_int8")
    assert found["culprit"]["a"] == "Add__87:0"
    assert "cut off" in found["culprit"]["why"]
