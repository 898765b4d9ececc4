"""Sobol: the closed forms of an additive model and of Ishigami's function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnx_inspect.cam import sobol
from onnx_inspect.cam._probe import Probe
from onnx_inspect.cam._superpixels import rectangles
from onnx_inspect.cam.sobol import Params, replicated, total_indices

MakeProbe = Callable[..., Probe]


def test_ishigamis_total_indices() -> None:
    """sin x1 + 7 sin^2 x2 + 0.1 x3^4 sin x1 on [-pi, pi]^3: 0.5576, 0.4424 and 0.2437 (Ishigami and Homma 1990)."""
    x = (2 * replicated(np.random.default_rng(0), 2048, 3) - 1) * np.pi
    y = np.sin(x[:, 0]) + 7 * np.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * np.sin(x[:, 0])
    # 2048 quasi-random rows: errors of a few thousandths.
    np.testing.assert_allclose(total_indices(y, 2048), [0.5576, 0.4424, 0.2437], atol=0.02)


def test_replicated_rows_differ_from_their_first_in_one_cell() -> None:
    design = replicated(np.random.default_rng(1), 8, 5).reshape(6, 8, 5)
    assert design.min() >= 0
    assert design.max() < 1
    for i in range(5):
        changed = design[i + 1] != design[0]
        assert changed[:, i].all()
        assert not np.delete(changed, i, axis=1).any()
    second = np.stack([design[i + 1][:, i] for i in range(5)], axis=1)
    assert abs(np.corrcoef(design[0].ravel(), second.ravel())[0, 1]) < 0.5


def test_cells_of_an_additive_model_share_the_variance(make_probe: MakeProbe) -> None:
    """For sum a_i z_i with equal uniform z the index is a_i^2 / sum a^2; the order among them is exact."""
    size, shape = (12, 20), (3, 3)
    x = np.random.default_rng(2).normal(0.4, 1, (1, 2, *size)).astype(np.float32)
    weights = np.random.default_rng(3).normal(size=(2, *size))
    params = Params(cells=3, designs=256)
    found = sobol.attribute(make_probe(lambda v: (v * weights).sum(axis=(1, 2, 3))[:, None], x), params)[0]
    cells = rectangles(size, shape)
    terms = np.bincount(cells.ravel(), (weights * x[0]).sum(axis=0).ravel())
    expected = terms**2 / (terms**2).sum()
    middles = np.stack(
        [found[2::4][:, [3, 9, 16]]]
    ).ravel()  # inside the cells, where enlarging keeps near their values
    assert np.corrcoef(middles, expected)[0, 1] > 0.98
    indices = total_indices(
        replicated(np.random.default_rng(0), 256, 9) @ terms,
        256,
    )
    # 256 quasi-random rows: errors of about a hundredth; the sum's is the variance's.
    np.testing.assert_allclose(indices, expected, atol=0.02)
    assert indices.sum() == pytest.approx(1, abs=0.05)


def test_interactions_count_for_both_cells() -> None:
    """z1 z2 with z3 idle: V = 7/144, and each total index is (1/3)(1/12) / V = 4/7; together more than 1."""
    z = replicated(np.random.default_rng(4), 1024, 3)
    np.testing.assert_allclose(total_indices(z[:, 0] * z[:, 1], 1024), [4 / 7, 4 / 7, 0], atol=0.02)


def test_a_score_that_never_moves_gives_zeros() -> None:
    np.testing.assert_array_equal(total_indices(np.full(8 * 4, 2.5), 8), np.zeros(3))


def test_designs_must_be_a_power_of_two() -> None:
    with pytest.raises(ValueError, match="power of two"):
        Params(designs=24)
