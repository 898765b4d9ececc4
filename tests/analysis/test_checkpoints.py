"""The order and the names of checkpoints."""

from __future__ import annotations

import random

import pytest

from onnx_inspect.analysis.checkpoints import in_order

CASES = {
    ("net.onnx", "net_epoch3.onnx", "net_epoch12.onnx"): [("epoch3", 3), ("epoch12", 12), ("final", 13)],
    ("ckpt-1000.onnx", "ckpt-200.onnx", "ckpt-final.onnx", "ckpt-init.onnx"): [
        ("init", 0),
        ("ckpt-200", 200),
        ("ckpt-1000", 1000),
        ("final", 1001),
    ],
    ("epoch=3-step=1200.onnx", "epoch=10-step=4000.onnx"): [("epoch=3-step=1200", 3), ("epoch=10-step=4000", 10)],
    ("r10/m.onnx", "r2/m.onnx", "r1/m.onnx"): [("r1", 1), ("r2", 2), ("r10", 10)],
    ("a.onnx", "b.onnx"): [("a", 0), ("b", 1)],
    ("conv1d_1.onnx", "conv1d_2.onnx"): [("conv1d_1", 1), ("conv1d_2", 2)],
    ("resnet50_e1.onnx", "resnet50_e2.onnx"): [("e1", 1), ("e2", 2)],
    ("best.onnx", "e9.onnx", "untrained.onnx"): [("untrained", 0), ("e9", 9), ("best", 10)],
    ("epoch3-loss0.25.onnx", "epoch12-loss0.05.onnx"): [("epoch3-loss0.25", 3), ("epoch12-loss0.05", 12)],
}


@pytest.mark.parametrize("names", CASES, ids=lambda names: names[0])
def test_numbers_count_as_numbers_and_words_have_their_places(names: tuple[str, ...]) -> None:
    for seed in range(3):
        shuffled = random.Random(seed).sample(names, len(names))
        assert [(c.label, c.step) for c in in_order(shuffled)] == CASES[names]


def test_the_given_order_is_kept() -> None:
    found = in_order(["e3.onnx", "e1.onnx", "e2.onnx"], "given")
    assert [c.label for c in found] == ["e3", "e1", "e2"]
    assert [c.step for c in found] == [0, 1, 2]  # their numbers don't grow
