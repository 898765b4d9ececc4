"""Whether several maps become one as it is said, number by number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.analysis.combination import combine
from onnx_inspect.cam._component import principal_component
from onnx_inspect.cam._probe import Attribution
from onnx_inspect.errors import MethodError

RNG = np.random.default_rng(5)


def attribution(values: NDArray[np.float32], layer: str) -> Attribution:
    return Attribution(
        values, "score-cam", layer, {"a": 1}, ("cat",), np.array([3]), np.array([0.5]), 2, 7, 0.5, "cpu", True
    )


@pytest.mark.parametrize(("how", "expected"), [("mean", 0.5), ("max", 0.75), ("product", 0.1875)])
def test_maps_of_one_size_are_combined_cell_by_cell(how: str, expected: float) -> None:
    first = np.array([[[0, 4], [1, -2]]], np.float32)  # as units: 0, 1, 0.25, 0
    second = np.array([[[1, 1], [3, 0]]], np.float32) * 4  # 1/3, 1/3, 1, 0
    scaled = np.array([[[0, 8], [6, 0]]], np.float32)  # 0, 1, 0.75, 0
    found = combine([attribution(first, "a"), attribution(scaled, "b")], how)
    assert found.values[0, 1, 0] == pytest.approx(expected)
    assert found.layer == "a + b"
    assert found.params == {"a": 1, "combine": how}
    assert (found.passes, found.tail_passes) == (4, 14)
    assert found.values.max() <= 1
    assert combine([attribution(second, "c")], how).values is second


def test_coarse_maps_are_brought_to_the_finest_grid() -> None:
    coarse, fine = RNG.random((1, 2, 3)).astype(np.float32), RNG.random((1, 4, 6)).astype(np.float32)
    assert combine([attribution(coarse, "a"), attribution(fine, "b")], "mean").values.shape == (1, 4, 6)


def test_a_flat_map_adds_nothing_and_leaves_nothing_of_a_product() -> None:
    some = RNG.random((1, 4, 4)).astype(np.float32)
    flat = attribution(np.ones((1, 4, 4), np.float32), "flat")
    assert combine([attribution(some, "a"), flat], "product").flat == (True,)
    alone = combine([attribution(some, "a"), replace(flat, values=some)], "mean").values
    np.testing.assert_allclose(combine([attribution(some, "a"), flat], "mean").values * 2, alone, rtol=1e-6)


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(MethodError, match="mean, max, product"):
        combine([attribution(RNG.random((1, 2, 2)).astype(np.float32), "a")] * 2, "median")


def test_the_component_of_one_direction_is_that_direction_with_the_sums_sign() -> None:
    """Channels that are multiples of one map have that map, centred, as their only component."""
    pattern = RNG.random((4, 5))
    activations = (np.array([1.0, 2, 0.5])[:, None, None] * pattern).astype(np.float32)[None]
    for sign in (1, -1):
        weights = sign * np.array([[0.3, 1.0, 0.2]])
        found = principal_component(weights, activations)[0]
        length = np.linalg.norm(weights[0] * [1, 2, 0.5])
        np.testing.assert_allclose(found, sign * length * (pattern - pattern.mean()), atol=1e-5)


def test_the_component_is_the_direction_of_most_variance() -> None:
    activations, weights = RNG.normal(size=(1, 6, 3, 7)).astype(np.float32), RNG.normal(size=(1, 6))
    found = principal_component(weights, activations)[0].ravel()
    points = (activations[0].reshape(6, -1) * weights[0][:, None]).T
    values = np.linalg.eigvalsh(np.cov(points.T, bias=True))
    assert found.var() == pytest.approx(values[-1], rel=1e-4)
    assert principal_component(weights, np.zeros((1, 6, 3, 7), np.float32)).max() == 0
