"""What a streamed tally keeps is what numpy finds with all activations at hand, however they were portioned."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.analysis.channels import Channels, Tally, selectivity

RNG = np.random.default_rng(3)
MAPS = np.maximum(RNG.normal(size=(60, 7, 12)), 0).astype(np.float32)
MAPS[:, 4] = 0.25  # dead: one value everywhere
MAPS[:, 5] = MAPS[:, 2] * 3 + 1  # says what channel 2 says
MAPS[:, 6] = 0
MAPS[[7, 21], 6, 3] = [2, 5]  # answers to two samples only
LABELS = np.arange(60) % 3
PLACES = np.arange(60) * 2 + 1


def tallied(portion: int, maps: NDArray[np.float32] = MAPS, top: int = 5) -> Channels:
    tally = Tally(maps.shape[1], top)
    for start in range(0, len(maps), portion):
        rows = slice(start, start + portion)
        tally.add(maps[rows], LABELS[rows], PLACES[rows])
    return tally.result(layer="layer", model="net.onnx", labels=LABELS, sources=tuple(map(str, range(60))), by="class")


@pytest.mark.parametrize("portion", [1, 7, 60])
def test_the_strongest_samples_are_those_of_all_at_once(portion: int) -> None:
    found = tallied(portion)
    peaks = MAPS.max(axis=2)  # (N, K)
    for k in (0, 1, 2, 3, 5):
        best = np.argsort(-peaks[:, k], kind="stable")[:5]
        np.testing.assert_array_equal(found.rows[k], best)
        np.testing.assert_array_equal(found.places[k], PLACES[best])
        np.testing.assert_array_equal(found.values[k], peaks[best, k])
        np.testing.assert_array_equal(found.positions[k], MAPS[best, k].argmax(axis=1))


@pytest.mark.parametrize("portion", [1, 60])
def test_samples_that_leave_a_channel_at_its_lowest_are_no_examples_of_it(portion: int) -> None:
    found = tallied(portion)
    assert found.rows[6].tolist() == [21, 7, -1, -1, -1]
    assert found.positions[6].tolist() == [3, 3, -1, -1, -1]
    assert np.isnan(found.values[6, 2:]).all()
    assert (found.rows[4] == -1).all()


def test_means_activity_and_dead_channels() -> None:
    found = tallied(7)
    assert found.dead.tolist() == [False] * 4 + [True, False, False]
    for row, group in enumerate(found.groups):
        np.testing.assert_allclose(found.means[row], MAPS[group == LABELS].mean(axis=(0, 2)), rtol=1e-6)  # float32 data
    np.testing.assert_allclose(found.mean, MAPS.mean(axis=(0, 2)), rtol=1e-6)
    np.testing.assert_allclose(found.active, (MAPS > 0).any(axis=2).mean(axis=0))
    assert found.counts.tolist() == [20, 20, 20]


@pytest.mark.parametrize("portion", [1, 60])
def test_duplicates_are_the_correlated_channels_that_are_not_dead(portion: int) -> None:
    found = tallied(portion)
    assert [(d.first, d.second) for d in found.duplicates] == [(2, 5)]
    assert found.duplicates[0].correlation == pytest.approx(1, abs=1e-6)


def test_a_large_offset_does_not_hide_a_correlation() -> None:
    maps = MAPS[:, :3] + np.float32(1000)
    maps[:, 2] = -maps[:, 1]
    found = tallied(9, maps)
    assert [(d.first, d.second) for d in found.duplicates] == [(1, 2)]
    assert found.duplicates[0].correlation == pytest.approx(-1, abs=1e-6)


def test_selectivity_is_the_papers_index() -> None:
    rectified = np.maximum(MAPS, 0).mean(axis=2, dtype=np.float64)
    means = np.stack([rectified[g == LABELS].mean(axis=0) for g in range(3)])
    for k in range(7):
        most = means[:, k].max()
        rest = np.delete(means[:, k], means[:, k].argmax()).mean()
        assert tallied(11).selectivity[k] == pytest.approx((most - rest) / (most + rest), rel=1e-6)
    assert selectivity(np.array([[0.0], [0.0]])).tolist() == [0.0]
    assert np.isnan(selectivity(np.array([[1.0]]))).all()


def test_negative_activations_count_nothing_for_selectivity() -> None:
    maps = np.full((60, 1, 4), -2, np.float32)
    maps[LABELS == 1] = 3
    assert tallied(60, maps).selectivity.tolist() == [1.0]
    assert tallied(60, maps).means[:, 0].tolist() == [-2, 3, -2]


def test_the_most_selective_come_first_and_the_dead_last() -> None:
    found = tallied(60)
    assert found.ranked()[0] == 6
    assert found.ranked()[-1] == 4


def test_json_says_what_was_found() -> None:
    told = tallied(60).to_json([6, 4])
    assert told["dead"] == [4]
    assert told["duplicates"][0][:2] == [2, 5]
    assert [one["channel"] for one in told["channels"]] == [6, 4]
    assert [(c["source"], c["value"]) for c in told["channels"][0]["top"]] == [("21", 5.0), ("7", 2.0)]
    assert told["channels"][1]["top"] == []


def test_memory_does_not_grow_with_the_samples() -> None:
    tally = Tally(7, 5)
    kept = []
    for _ in range(4):
        tally.add(MAPS, LABELS, PLACES)
        kept.append(sum(a.nbytes for a in vars(tally).values() if isinstance(a, np.ndarray)))
    assert len(set(kept)) == 1
