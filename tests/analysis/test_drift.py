"""Rank correlation and overlap against scipy and plain loops, and what verdicts follow from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.analysis.drift import Limits, drift, on_one_grid, overlap, rank_correlation
from onnx_inspect.cam._probe import Attribution
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.inputs.placement import place


def batch(count: int, labels: tuple[str, ...] | None = None) -> Batch:
    return Batch(
        arrays={"x": np.zeros((count, 3, 8, 8), np.float32)},
        primary="x",
        sources=tuple(f"{n}.png" for n in range(count)),
        originals=(np.zeros((16, 16, 3), np.uint8),) * count,
        placements=(place((16, 16), (8, 8), "stretch"),) * count,
        preprocess=None,
        labels=labels,
        notes=(),
    )


def attribution(values: NDArray[Any]) -> Attribution:
    return Attribution(
        values=np.asarray(values, np.float32),
        method="cam",
        layer="last",
        params={},
        targets=("cat",) * len(values),
        classes=np.zeros(len(values), np.intp),
        scores=np.full(len(values), 0.5),
        passes=1,
        tail_passes=0,
        seconds=0.0,
        provider="cpu",
        class_aware=True,
    )


@pytest.mark.parametrize("levels", [1000, 5, 2])
def test_rank_correlation_is_scipys_ties_included(levels: int) -> None:
    stats: Any = pytest.importorskip("scipy.stats", reason="the oracle")
    rng = np.random.default_rng(levels)
    for size in (4, 49, 1000):
        a, b = rng.integers(0, levels, (2, size)).astype(float)
        if np.ptp(a) and np.ptp(b):
            assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


def test_only_the_order_of_cells_counts() -> None:
    a = np.random.default_rng(0).normal(0, 1, 60)
    assert rank_correlation(a, np.exp(3 * a)) == pytest.approx(1)
    assert rank_correlation(a, -(a**3)) == pytest.approx(-1)
    assert rank_correlation(a, np.zeros(60)) is None


def test_overlap_is_the_share_of_common_strongest_cells() -> None:
    a, b = np.random.default_rng(1).normal(0, 1, (2, 200))
    strongest = [set(np.argsort(-x)[:20].tolist()) for x in (a, b)]
    assert overlap(a, b) == pytest.approx(len(strongest[0] & strongest[1]) / 20)
    assert overlap(a, a) == 1


def test_tied_cells_share_the_last_places() -> None:
    """Ten places; A has five clear ones and 20 tied for the rest, so that each of these is in by a quarter."""
    a = np.r_[np.full(5, 2.0), np.full(20, 1.0), np.zeros(75)]
    b = np.r_[np.full(5, 2.0), np.full(5, 1.0), np.zeros(90)]
    assert overlap(a, b) == pytest.approx((5 + 5 * 0.25) / 10)


def test_maps_of_other_resolutions_and_crops_meet_on_the_picture() -> None:
    """The same function of the picture's places, sampled by two networks of other sizes and another crop."""
    places = place((60, 100), (40, 40), "stretch"), place((60, 100), (32, 32), "crop")

    def seen(where: Any, cells: int) -> NDArray[np.float32]:
        centres = (np.arange(cells) + 0.5) / cells
        found = np.array([[where.point(x, y) for x in centres] for y in centres])  # (cells, cells, 2)
        return (found[..., 0] + 0.3 * found[..., 1]).astype(np.float32)

    one, other = on_one_grid((seen(places[0], 10), seen(places[1], 7)), places)
    assert one.size == other.size > 500
    assert one.size < 38 * 64  # where the crop saw nothing is left out
    assert rank_correlation(one, other) == pytest.approx(1, abs=0.02)  # the outer half cells repeat the edge


def test_verdicts_tell_another_reason_from_another_prediction() -> None:
    rng = np.random.default_rng(2)
    a = rng.normal(0, 1, (4, 6, 6))
    b = np.stack([a[0] * 2 + 1, a[1][:, ::-1], a[2], np.ones((6, 6))])
    classes = np.array([0, 1, 2, 1]), np.array([0, 1, 0, 1])
    labels = ("cat", "dog", "fox")
    found = drift(attribution(a), batch(4, labels), classes[0], attribution(b), batch(4, labels), classes[1], Limits())
    verdicts = [p.verdict for p in found.pictures]
    assert verdicts == ["same", "reason changed", "prediction changed", "no evidence"]
    assert found.pictures[0].rank_correlation == pytest.approx(1)
    assert (found.changed, found.flips, found.agree) == (1, 1, False)
    assert found.order[0] == 1
    assert found.order[-1] == 3
    assert found.pictures[2].predicted == ("fox", "cat")
    assert found.to_json()["pictures"][0]["source"] == "1.png"


def test_limits_decide() -> None:
    a = np.random.default_rng(3).normal(0, 1, (1, 8, 8))
    b = a + np.random.default_rng(4).normal(0, 1, (1, 8, 8))
    classes = np.zeros(1, np.intp)

    def verdict(limits: Limits) -> str:
        found = drift(attribution(a), batch(1), classes, attribution(b), batch(1), classes, limits)
        return found.pictures[0].verdict

    base = drift(attribution(a), batch(1), classes, attribution(b), batch(1), classes, Limits()).pictures[0]
    assert base.rank_correlation is not None
    assert base.overlap is not None
    assert verdict(Limits(rank_correlation=base.rank_correlation - 0.01)) == "same"
    assert verdict(Limits(rank_correlation=base.rank_correlation + 0.01)) == "reason changed"
    assert verdict(Limits(-1, overlap=base.overlap + 0.01)) == "reason changed"


def test_names_of_classes_are_taken_from_the_side_that_has_them() -> None:
    a = attribution(np.random.default_rng(5).normal(0, 1, (1, 4, 4)))
    zero = np.zeros(1, np.intp)
    found = drift(a, batch(1, ("cat",)), zero, replace(a), batch(1), zero, Limits())
    assert found.pictures[0].predicted == ("cat", "cat")
    without = drift(a, batch(1), None, a, batch(1), None, Limits())
    assert without.pictures[0].predicted == (None, None)
    assert without.pictures[0].agree
