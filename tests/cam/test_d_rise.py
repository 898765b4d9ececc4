"""D-RISE: a loop over its masks, the likeness of detections from its formula, and what it says to other targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.cam import d_rise
from onnx_inspect.cam._grids import draw
from onnx_inspect.cam._probe import Probe
from onnx_inspect.errors import MethodError
from onnx_inspect.targets._base import Box
from onnx_inspect.targets.box import FixedBox
from onnx_inspect.targets.decoders import Layout

MakeProbe = Callable[..., Probe]
Array = NDArray[Any]
SIZE = (17, 30)


def crooked(x: Array) -> Array:
    return np.stack([x.max(axis=(1, 2, 3)), np.tanh(x.mean(axis=(1, 2, 3)) * 4)], axis=1)


@pytest.mark.parametrize("estimator", ["plain", "centred"])
def test_it_equals_its_definition_on_the_masks_drawn(make_probe: MakeProbe, estimator: str) -> None:
    x = np.random.default_rng(1).uniform(0.2, 1, (2, 3, *SIZE)).astype(np.float32)
    probe = replace(make_probe(crooked, x, logits=False), readings={"detection": 1})
    found = d_rise.attribute(probe, d_rise.Params(masks=25, estimator=estimator))
    masks = draw(np.random.default_rng(0), 25, 16, 0.5, SIZE).make(np.arange(25)).astype(float)
    for n in range(2):
        scores = [crooked((x[n] * m)[None].astype(np.float32).astype(float))[0, 1] for m in masks]
        mean = np.mean(scores) if estimator == "centred" else 0.0
        expected = mean + sum((s - mean) * m for s, m in zip(scores, masks, strict=True)) / (25 * 0.5)
        np.testing.assert_allclose(found[n], expected, rtol=1e-4, atol=1e-6)


def test_a_target_that_is_no_detection_is_told_what_to_use(make_probe: MakeProbe) -> None:
    probe = make_probe(crooked, np.ones((1, 3, *SIZE), np.float32))
    with pytest.raises(MethodError, match="give --target box:best or box:x0,y0,x1,y1, or take --method rise"):
        d_rise.attribute(probe, d_rise.Params())


def iou(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@pytest.mark.parametrize("objectness", [True, False])
def test_the_likeness_is_overlap_times_objectness_times_cosine(objectness: bool) -> None:
    """A loop over the proposals of raw YOLO outputs: (n, 5 + classes) with an objectness, (4 + classes, n) without."""
    rng = np.random.default_rng(2)
    centres, sizes = rng.uniform(10, 60, (2, 40, 2)), rng.uniform(5, 30, (2, 40, 2))
    classes, objects = rng.uniform(0, 1, (2, 40, 5)), rng.uniform(0, 1, (2, 40, 1))
    raw = np.concatenate([centres, sizes, *([objects] if objectness else []), classes], axis=2).astype(np.float32)
    raw = raw if objectness else raw.transpose(0, 2, 1)
    places = np.array([[0.2, 0.3, 0.6, 0.7], [0.1, 0.1, 0.5, 0.9]])
    vectors = np.stack([rng.uniform(0, 1, 5), np.eye(5)[3]])
    of = np.array([1, 0])
    target = FixedBox(
        ("", ""), np.full(2, -1), (), Layout("yolo", ("out",)), places, np.array([2, 3]), vectors, (80, 64)
    )
    found = target.read({"out": raw}, of)[:, target.readings["detection"]]
    for b, n in enumerate(of):
        likeness = []
        for j in range(40):
            (x, y), (w, h) = centres[b, j], sizes[b, j]
            box = ((x - w / 2) / 64, (y - h / 2) / 80, (x + w / 2) / 64, (y + h / 2) / 80)
            p = classes[b, j]
            cosine = p @ vectors[n] / (np.linalg.norm(p) * np.linalg.norm(vectors[n]))
            likeness.append(iou(box, places[n]) * (objects[b, j, 0] if objectness else p.max()) * cosine)
        np.testing.assert_allclose(found[b], max(likeness), rtol=1e-5)


def test_a_picture_without_any_box_near_scores_nothing() -> None:
    raw = np.zeros((1, 9, 7), np.float32)  # centre, size, objectness, two classes; empty boxes count for nothing
    raw[0, :2] = [[40, 40, 4, 4, 1, 1, 0], [60, 10, 4, 4, 1, 0, 1]]
    place = np.array([[0.0, 0, 0.1, 0.1]])
    target = FixedBox(
        ("",), np.full(1, -1), (), Layout("yolo", ("out",)), place, np.array([0]), np.array([[1.0, 0]]), (64, 64)
    )
    np.testing.assert_array_equal(target.read({"out": raw}, np.array([0])), [[0, 0]])
