"""What is kept of a tensor recognises it in another layout, unit and precision, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_inspect.analysis.fingerprints import alike, closeness, joined, likeness, orders, sketch

RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(1, 12, 9, 7)).astype(np.float32)


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (0, 3, 1, 2), (0, 2, 1, 3)])
def test_another_layout_of_the_same_values_is_the_same(order: tuple[int, ...]) -> None:
    found = likeness([sketch(MAPS, 1)], [sketch(np.ascontiguousarray(MAPS.transpose(order)), 1)])
    assert found.values[0, 0] == pytest.approx(1, abs=1e-12)
    assert orders(4)[found.order[0, 0]] == order


def test_a_reshape_is_the_same_in_its_own_order() -> None:
    found = likeness([sketch(MAPS, 1)], [sketch(MAPS.reshape(1, -1), 1), sketch(MAPS.reshape(12, 63), 1)])
    np.testing.assert_allclose(found.values, 1, atol=1e-12)
    assert (found.order == 0).all()


def test_maps_are_recognised_as_tokens() -> None:
    tokens = np.ascontiguousarray(MAPS.reshape(1, 12, 63).transpose(0, 2, 1))
    assert alike(sketch(MAPS, 1), sketch(tokens, 1)) == pytest.approx(1, abs=1e-12)


def test_integers_in_steps_need_no_scale() -> None:
    steps = np.clip(np.rint(MAPS / 0.03) + 120, 0, 255).astype(np.uint8)
    assert alike(sketch(MAPS, 1), sketch(steps, 1)) > 0.999
    assert alike(sketch(MAPS, 1), sketch(steps.astype(np.float32), 1)) < 0.1  # the same numbers as real ones are others


def test_a_scaled_or_shifted_tensor_is_another() -> None:
    assert alike(sketch(MAPS, 1), sketch(1.5 * MAPS, 1)) < 0.95
    assert alike(sketch(MAPS, 1), sketch(MAPS + 1, 1)) < 0.7


def test_a_relu_makes_another_tensor() -> None:
    assert alike(sketch(MAPS, 1), sketch(np.maximum(MAPS, 0), 1)) < 0.9


def test_tensors_of_other_sizes_are_never_alike() -> None:
    assert alike(sketch(MAPS, 1), sketch(MAPS[:, :6], 1)) == 0


def test_constants_are_alike_only_where_they_are_the_same_number() -> None:
    one, other = np.full((1, 8), 2.0), np.full((1, 8), 3.0)
    assert alike(sketch(one, 1), sketch(one.copy(), 1)) == 1
    assert alike(sketch(one, 1), sketch(other, 1)) == 0
    assert alike(sketch(np.zeros((1, 8)), 1), sketch(np.zeros((1, 8)), 1)) == 1


def test_what_is_not_finite_does_not_spoil_the_rest() -> None:
    broken = MAPS.copy()
    broken[0, 0, 0, 0] = np.nan
    found = sketch(broken, 1)
    assert np.isfinite(found.rows).all()
    assert found.strange == pytest.approx(1 / MAPS.size)  # all of it is kept: it is small
    assert alike(found, sketch(MAPS, 1)) > 0.99


def test_inputs_are_joined_in_turn() -> None:
    parts = [sketch(x, 2) for x in (MAPS, -MAPS)]
    whole = joined(parts)
    assert whole.rows.shape[1] == sum(part.rows.shape[1] for part in parts)
    assert alike(whole, joined([sketch(x, 2) for x in (MAPS, MAPS)])) < 0.6


def test_closeness_counts_digits() -> None:
    np.testing.assert_allclose(closeness(np.array([0.0, 0.9, 0.999999, 1.0])), [0, 1, 6, 12], rtol=1e-5)
