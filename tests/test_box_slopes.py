"""A detector's box has a gradient: every decoder's derivative against central differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.targets._plane import overlap, overlap_slopes
from onnx_inspect.targets.box import FixedBox
from onnx_inspect.targets.decoders import find
from tests.test_targets import SIZE, WANTED, detr, nanodet, ssd, yolo_v5, yolo_v8, yunet

Outputs = dict[str, NDArray[Any]]
FAMILIES: dict[str, tuple[int, Callable[[], Outputs]]] = {
    "yolo v5": (1, yolo_v5),
    "yolo v8": (1, yolo_v8),
    "ssd": (1, ssd),
    "detr": (1, detr),
    "nanodet": (1, nanodet),
    "yunet": (0, yunet),
}


def logits_of_ssd() -> Outputs:
    """Scores that the file doesn't squash itself."""
    found = ssd()
    return found | {"s": np.log(np.maximum(found["s"], 1e-9))}


@pytest.mark.parametrize("family", [*FAMILIES, "ssd of logits"])
def test_slopes_of_a_box_are_those_of_its_score(family: str) -> None:
    """In 20 random directions of all outputs, in float64: central differences are exact to their step's square."""
    column, make = FAMILIES.get(family, (1, logits_of_ssd))
    rng = np.random.default_rng(0)
    single = {name: np.maximum(a, -20).astype(np.float64) for name, a in make().items()}
    outputs = {name: np.concatenate([a, a + 0.01 * rng.uniform(size=a.shape)]) for name, a in single.items()}
    layout = find({n: a[:1].shape for n, a in outputs.items()}, SIZE)
    places = WANTED + np.array([[0.01, -0.02, 0.03, 0.015], [-0.03, 0.01, -0.02, 0.02]])
    vectors = np.zeros((2, layout.decode([outputs[n] for n in layout.tensors], SIZE).scores.shape[2]))
    fixed = FixedBox(("a", "b"), np.full(2, -1), (), layout, places, np.full(2, column), vectors, SIZE)
    of = np.arange(2)
    slopes = fixed.slopes(outputs, of)
    assert set(slopes) == set(layout.tensors)
    assert all(slopes[n].shape == outputs[n].shape for n in slopes)
    step = 1e-6
    held = family == "ssd"  # probabilities stay such: only the boxes are moved, and one score
    for _ in range(20):
        way = {n: rng.normal(size=a.shape) for n, a in outputs.items()}
        if held:
            way["s"] = np.zeros_like(way["s"])
            way["s"][:, 17] = [-1e-3, 1e-3, 0]
        said = sum((slopes[n] * way[n]).reshape(2, -1).sum(axis=1) for n in slopes)
        ends = [fixed.read({n: a + s * way[n] for n, a in outputs.items()}, of)[:, 0] for s in (step, -step)]
        np.testing.assert_allclose(said, (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=1e-5)
    assert all(np.abs(slopes[n][0]).max() > 0 for n in (layout.tensors[:2] if len(slopes) > 1 else layout.tensors))


def test_slopes_of_the_overlap_are_its_differences() -> None:
    rng = np.random.default_rng(0)
    box = np.sort(rng.uniform(size=(200, 2, 2)), axis=1).reshape(200, 4)
    other = np.sort(rng.uniform(size=(200, 2, 2)), axis=1).reshape(200, 4)
    step = 1e-7
    for corner in range(4):
        move = step * np.eye(4)[corner]
        seen = (overlap(box, (other + move)[:, None]) - overlap(box, (other - move)[:, None]))[:, 0] / (2 * step)
        np.testing.assert_allclose(overlap_slopes(box, other)[:, corner], seen, atol=1e-5)
    apart = overlap_slopes(np.array([[0, 0, 0.2, 0.2]]), np.array([[0.5, 0.5, 0.9, 0.9]]))
    assert not apart.any()
