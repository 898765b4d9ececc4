"""CKA against its definitions: a sum over quadruples, the paper's formula, and what it must not depend on."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.analysis import cka
from onnx_inspect.errors import InputError

Floats = NDArray[np.float64]


def of(a: list[Any], b: list[Any], size: int | None = None) -> cka.Likeness:
    """CKA of layers (N, ...) in minibatches of `size` samples in the order given."""
    sums, count = cka.Sums(len(a), len(b)), len(a[0])
    for start in range(0, count, size or count):
        rows = slice(start, start + (size or count))
        sums.add([cka.gram(x[rows]) for x in a], [cka.gram(x[rows]) for x in b])
    return sums.likeness([f"a{i}" for i in range(len(a))], [f"b{i}" for i in range(len(b))])


def plain(x: Floats, y: Floats, size: int) -> float:
    """The paper's formula, written out with dense matrices: HSIC_1 averaged over minibatches, then normalised."""

    def hsic(k: Floats, m: Floats) -> float:
        n = len(k)
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        one = np.ones(n)
        middle = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return float((np.trace(k @ m) + middle - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3)))

    parts = [(x[s : s + size] @ x[s : s + size].T, y[s : s + size] @ y[s : s + size].T) for s in range(0, len(x), size)]
    between, own, other = (
        float(np.mean([hsic(*pair) for pair in pairs]))
        for pairs in (parts, [(k, k) for k, _ in parts], [(m, m) for _, m in parts])
    )
    return between / np.sqrt(own * other)


def test_hsic_is_the_mean_over_all_quadruples_of_samples() -> None:
    """HSIC_1 as a U-statistic: over ordered quadruples of different samples, K_ij (L_ij + L_qr - 2 L_iq)."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(2, 1, (6, 5)), rng.normal(-1, 3, (6, 4))
    k, m = x @ x.T, y @ y.T
    every = [k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in permutations(range(6), 4)]
    found = cka.hsic(cka.gram(x).reshape(1, -1), cka.gram(y).reshape(1, -1), 6)
    assert found.item() == pytest.approx(np.mean(every), rel=1e-11)  # float64 sums of 360 terms of either sign


@pytest.mark.parametrize("size", [24, 8, 4])
def test_minibatches_agree_with_a_plain_dense_implementation(size: int) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(3, 1, (24, 30))
    layers = [x, np.maximum(x @ rng.normal(0, 1, (30, 12)), 0), x[:, :3] ** 2]
    found = of(layers, layers[::-1], size)
    expected = [[plain(one, other, size) for other in layers[::-1]] for one in layers]
    np.testing.assert_allclose(found.values, expected, rtol=1e-9)  # the same float64 sums in another order
    assert found.minibatches == (size,) * (24 // size)


def test_identical_layers_give_one_and_so_do_rotated_scaled_and_moved_ones() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(0, 1, (40, 16)) * np.linspace(0.1, 3, 16)
    rotation = np.linalg.qr(rng.normal(0, 1, (16, 16)))[0]
    found = of([x], [x, x @ rotation, -7e3 * x, x + 50.0, x[:, ::-1], np.pad(x, ((0, 0), (0, 9)))], 10)
    np.testing.assert_allclose(found.values, 1, atol=1e-9)  # a sum of 50s loses five digits of sixteen


def test_a_rotation_of_one_side_leaves_the_likeness_to_another_layer() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(0, 1, (30, 8))
    y = np.tanh(x @ rng.normal(0, 1, (8, 6)))
    rotated = y @ np.linalg.qr(rng.normal(0, 1, (6, 6)))[0]
    before, after = of([x], [y]).values, of([x], [rotated * 0.01]).values
    np.testing.assert_allclose(after, before, rtol=1e-9)
    assert 0.3 < before.item() < 0.99


def test_independent_noise_is_near_zero_without_bias() -> None:
    """The biased estimator of 8 samples of 500 features would give more than 0.9 here."""
    rng = np.random.default_rng(4)
    found = of([rng.normal(0, 1, (800, 500))], [rng.normal(0, 1, (800, 300))], 8)
    assert abs(found.values.item()) < 0.05
    assert found.values.item() <= found.chance[0] + 0.05


def test_the_axes_and_the_type_of_activations_do_not_matter() -> None:
    rng = np.random.default_rng(5)
    maps = rng.normal(0, 1, (12, 3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(cka.gram(maps), cka.gram(maps.astype(np.float64).reshape(12, -1)))
    np.testing.assert_allclose(cka.gram(maps), cka.gram(np.moveaxis(maps, 1, -1)), atol=1e-12)
    counts = rng.integers(0, 255, (12, 7), np.uint8)
    np.testing.assert_array_equal(cka.gram(counts), cka.gram(counts.astype(np.float64)))


def test_features_are_read_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(6).normal(5, 1, (9, 100))
    whole = cka.gram(x)
    monkeypatch.setattr(cka, "BLOCK", 9 * 7)
    np.testing.assert_allclose(cka.gram(x), whole, atol=1e-11)


def test_a_layer_that_says_the_same_of_every_input_has_no_likeness() -> None:
    x = np.random.default_rng(7).normal(0, 1, (16, 5))
    still, broken = np.full((16, 5), 0.1, np.float32) * 3, np.where(np.eye(16, 5) > 0, np.nan, x)
    found = of([x, still, broken], [still, x])
    assert np.isnan(found.values).tolist() == [[True, False], [True, True], [True, True]]
    assert found.nearest == (1, None, None)
    assert found.path == (1, None, None)
    assert found.path_mean == pytest.approx(1)
    assert np.isnan(found.chance).tolist() == [False, True, True]
    assert found.to_json()["nearest"][1] == {"a": "a1", "b": None, "cka": None, "above_chance": False}


def test_few_samples_are_never_above_chance_while_many_are() -> None:
    rng = np.random.default_rng(8)
    x = rng.normal(0, 1, (200, 20))
    y = np.tanh(x @ rng.normal(0, 1, (20, 20))) + rng.normal(0, 0.3, (200, 20))
    assert of([x], [y]).above_chance(0)
    noise = [rng.normal(0, 1, (200, 20)) for _ in range(40)]
    found = of(noise[:20], noise[20:])
    assert sum(found.above_chance(i) for i in range(20)) <= 4  # one in twenty by its definition; 4 has odds of 1 in 60


def test_fewer_than_four_samples_are_refused() -> None:
    with pytest.raises(InputError, match=r"at least 4 inputs.*got 3"):
        cka.gram(np.zeros((3, 5)))


def test_the_path_is_the_best_of_all_monotone_ones() -> None:
    rng = np.random.default_rng(9)
    for rows, columns in [(1, 4), (4, 1), (4, 3), (3, 5), (5, 4)]:
        values = rng.random((rows, columns))
        every = [p for p in product(range(columns), repeat=rows) if list(p) == sorted(p)]
        best = max(sum(values[i, j] for i, j in enumerate(p)) for p in every)
        found = cka.monotone_path(values)
        assert list(found) == sorted(j for j in found if j is not None)
        total = sum(values[i, j] for i, j in enumerate(found) if j is not None)
        assert total == pytest.approx(best, abs=rows * cka.LEAN)


def test_of_layers_that_are_equally_alike_the_one_at_the_same_depth_is_taken() -> None:
    assert cka.nearest(np.ones((3, 3))) == (0, 1, 2)
    assert cka.monotone_path(np.ones((4, 2))) == (0, 0, 1, 1)
    assert cka.monotone_path(np.full((2, 3), np.nan)) == (None, None)
