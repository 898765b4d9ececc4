"""DFF: factors that are known come back, what inputs share has one number, and names say what a concept does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.cam import dff
from onnx_inspect.cam._factors import factorise
from onnx_inspect.cam._probe import Probe

MakeProbe = Callable[..., Probe]
Array = NDArray[np.float64]
GRID = (4, 7)


def separable(rng: np.random.Generator, positions: int, channels: int, parts: int) -> tuple[Array, Array]:
    """Factors that are unique: each part has a position and a channel of its own."""
    weights, basis = rng.uniform(0, 1, (positions, parts)), rng.uniform(0, 1, (parts, channels))
    weights[:parts], basis[:, :parts] = 3 * np.eye(parts), 3 * np.eye(parts)
    return weights, basis


def test_known_factors_come_back() -> None:
    """Up to order and scale; 1 % is what 4000 rounds of coordinate descent leave."""
    rng = np.random.default_rng(0)
    weights, basis = separable(rng, 60, 20, 3)
    found, rows = factorise(weights @ basis, 3, 4000)
    alike = rows @ (basis / np.linalg.norm(basis, axis=1)[:, None]).T
    order = alike.argmax(axis=1)
    assert sorted(order) == [0, 1, 2]
    assert alike.max(axis=1).min() > 0.99
    np.testing.assert_allclose(found @ rows, weights @ basis, atol=0.01 * (weights @ basis).max())
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1)
    assert (np.diff(found.sum(axis=0)) <= 0).all()


@pytest.mark.parametrize("shape", [(80, 25), (25, 80)])  # more positions than channels, and fewer
def test_the_fit_is_as_good_as_scikit_learns(shape: tuple[int, int]) -> None:
    from sklearn.decomposition import NMF

    matrix = np.random.default_rng(1).uniform(0, 1, shape) ** 3
    found, rows = factorise(matrix, 5, 500)
    peer = NMF(5, init="nndsvda", max_iter=2000, tol=1e-6)
    other = peer.fit_transform(matrix) @ peer.components_
    error, theirs = (float(((matrix - one) ** 2).sum()) for one in (found @ rows, other))
    assert error < 1.02 * theirs  # both are local minima
    assert found.min() >= 0
    assert rows.min() >= 0


def test_more_parts_than_there_is_room_for_are_fewer() -> None:
    found, rows = factorise(np.random.default_rng(2).uniform(0, 1, (3, 9)), 5, 50)
    assert (found.shape, rows.shape) == ((3, 3), (3, 9))


def linear(head: Array) -> Callable[[Array], Array]:
    return lambda a: a.mean(axis=tuple(range(2, a.ndim))) @ head.T


def setting(make_probe: MakeProbe, activations: Array, classes: int = 4) -> tuple[Probe, Array]:
    """A network of mean pooling and a linear layer, behind activations that are given."""
    head = np.random.default_rng(5).normal(size=(classes, activations.shape[1]))
    tail = linear(head)
    a = activations.astype(np.float32)
    probe = make_probe(
        lambda x: np.zeros((len(x), classes)), np.zeros((len(a), 3, 8, 14), np.float32), activations=a, tail=tail
    )
    return replace(probe, base=tail(a.astype(float)), every_class=True), head


def scenes() -> Array:
    """Two inputs of two things: the first stands left in one and right in the other, above a floor."""
    things = np.array([[5.0, 1, 0, 0, 0, 0], [0, 0, 0, 2, 3, 0]])
    maps = np.zeros((2, 6, *GRID))
    maps[0, :, :2, :3] = maps[1, :, 2:, 4:] = things[0][:, None, None]
    maps[0, :, 2:, 4:] = maps[1, :, :2, :3] = things[1][:, None, None]
    return maps + np.array([0, 0, -4.0, 0, 0, 7])[:, None, None]  # channels that only stand for themselves


def test_inputs_share_concepts_and_each_position_has_one(make_probe: MakeProbe) -> None:
    probe, _ = setting(make_probe, scenes())
    found = dff.concepts(probe, dff.Params(concepts=2))
    segments = found.strengths.argmax(axis=1)
    assert segments[0, 0, 0] == segments[1, 3, 6] != segments[0, 3, 6] == segments[1, 0, 0]
    np.testing.assert_allclose(found.strengths[:, :, 1, 3], 0, atol=1e-5)  # the floor belongs to none
    np.testing.assert_allclose(
        sorted(found.strongest[0, [0, 3], [0, 6]]), sorted(map(np.linalg.norm, ([5, 1], [2, 3]))), rtol=1e-4
    )
    np.testing.assert_allclose(found.shares.sum(axis=1), 1)
    np.testing.assert_array_equal(dff.attribute(probe, dff.Params(concepts=2)), found.strongest)


def test_after_a_linear_tail_a_concepts_names_are_its_weights(make_probe: MakeProbe) -> None:
    """Closed form: a class loses the mean strength times what the head makes of the concept."""
    probe, head = setting(make_probe, np.random.default_rng(6).uniform(0, 1, (3, 6, *GRID)) ** 4)
    found = dff.concepts(probe, dff.Params(concepts=3))
    for part, vector in enumerate(found.vectors):
        shown = found.strengths[:, part].sum(axis=(1, 2)).argmax()
        own = np.maximum(
            probe.activations[shown] - np.multiply.outer(vector, found.strengths[shown, part]),
            probe.activations.min(axis=(0, 2, 3))[:, None, None],
        )
        losses = head @ (probe.activations[shown] - own).mean(axis=(1, 2), dtype=float)
        best = np.argsort(-losses)[:3]
        np.testing.assert_array_equal(found.classes[part], best)
        np.testing.assert_allclose(found.gains[part], losses[best], rtol=1e-4)


def test_a_model_without_classes_leaves_concepts_unnamed(make_probe: MakeProbe) -> None:
    probe, _ = setting(make_probe, scenes())
    found = dff.concepts(replace(probe, every_class=False), dff.Params())
    assert found.classes.shape == (4, 0)


def test_volumes_have_concepts_too(make_probe: MakeProbe) -> None:
    probe, _ = setting(make_probe, np.random.default_rng(7).uniform(0, 1, (2, 6, 3, 4, 5)))
    assert dff.concepts(probe, dff.Params(concepts=3)).strengths.shape == (2, 3, 3, 4, 5)


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="concepts lies between 0 and 13"):
        dff.Params(concepts=13)
