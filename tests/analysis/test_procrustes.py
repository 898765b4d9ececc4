"""Procrustes against scipy and against turns that were planted; the plane of largest spread against its definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_inspect.analysis.procrustes import align, principal_plane

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("mirrored", [1, -1])
def test_a_planted_turn_is_undone(mirrored: int) -> None:
    reference = RNG.normal(0, 1, (30, 2)) * (3, 1)
    angle = 2.1
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([1, mirrored])
    moved = 0.2 * reference @ turn + (5, -7)
    aligned, disparity = align(moved, reference)
    np.testing.assert_allclose(aligned, reference, atol=1e-12)
    assert disparity == pytest.approx(0, abs=1e-20)


def test_disparity_is_scipys() -> None:
    spatial: Any = pytest.importorskip("scipy.spatial", reason="the oracle")
    for seed in range(5):
        rng = np.random.default_rng(seed)
        a, b = rng.normal(0, 1, (20, 3)), rng.normal(0, 2, (20, 3))
        _, disparity = align(b, a)
        assert disparity == pytest.approx(spatial.procrustes(a, b)[2], rel=1e-9)


def test_points_without_spread_lie_in_the_middle() -> None:
    reference = RNG.normal(4, 1, (6, 2))
    aligned, disparity = align(np.ones((6, 2)), reference)
    np.testing.assert_allclose(aligned, np.broadcast_to(reference.mean(axis=0), (6, 2)))
    assert disparity == 1
    assert align(np.ones((6, 2)), np.ones((6, 2)))[1] == 0


def test_the_plane_holds_the_most_spread_of_all_planes() -> None:
    points = RNG.normal(0, 1, (50, 6)) @ RNG.normal(0, 1, (6, 6))
    plane = principal_plane(points.reshape(50, 2, 3))
    centred = points - points.mean(axis=0)
    total = float((centred**2).sum())
    assert plane.share == pytest.approx(float((plane.points**2).sum()) / total)
    for seed in range(200):
        axes = np.linalg.qr(np.random.default_rng(seed).normal(0, 1, (6, 2)))[0]
        assert float(((centred @ axes) ** 2).sum()) / total <= plane.share + 1e-12
    assert abs(plane.points[:, 0] @ plane.points[:, 1]) < 1e-9 * total


def test_few_points_and_few_features_leave_empty_axes() -> None:
    assert principal_plane(np.zeros((4, 1))).share == 0
    one = principal_plane(np.array([[1.0], [2.0], [4.0]]))
    assert one.points[:, 1].tolist() == [0, 0, 0]
    assert one.share == pytest.approx(1)
    assert principal_plane(np.ones((1, 5))).points.shape == (1, 2)
