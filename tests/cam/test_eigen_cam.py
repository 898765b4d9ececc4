"""Eigen-CAM's first eigenvector is the decomposition's, by iteration where that is proved and in full elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.cam import eigen_cam
from onnx_inspect.cam._probe import Probe
from onnx_inspect.cam.eigen_cam import Params, attribute, first_eigenpair

Matrix = NDArray[np.float64]


def of_spectrum(values: list[float], seed: int = 0) -> tuple[Matrix, Matrix]:
    """A symmetric matrix of given eigenvalues, and its first eigenvector."""
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))[0]
    return (basis * values) @ basis.T, basis[:, 0]


@pytest.mark.parametrize(
    "values",
    [
        [5.0, 1.0, 0.5, 0.0],  # far apart: iteration
        [5.0, 4.9, 0.5, 0.0],  # too near for a proof
        [1.0, 0.999999, 0.999998, 0.999997],
        [1.0, 0.0, 0.0, 0.0],
    ],
)
def test_it_finds_the_first_eigenvector(values: list[float]) -> None:
    gram, vector = of_spectrum(values)
    value, found = first_eigenpair(gram)
    assert value == pytest.approx(values[0], rel=1e-12)
    assert abs(found @ vector) == pytest.approx(1.0, abs=1e-9)  # 1 less half the square of the angle


def test_a_start_without_any_share_of_the_first_eigenvector_still_finds_it() -> None:
    """Iteration stays on the second one, which no proof calls the first."""
    basis = np.array([[1.0, 1.0], [-1.0, 1.0]]) / np.sqrt(2)
    gram = basis.T @ np.diag([3.0, 1.0]) @ basis
    first = np.linalg.eigh(gram)[1][:, -1]
    assert abs(first_eigenpair(gram)[1] @ first) == pytest.approx(1.0, abs=1e-12)


def test_a_zero_matrix_has_the_eigenvalue_zero() -> None:
    assert first_eigenpair(np.zeros((3, 3)))[0] == 0.0


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("shape", [(6, 9, 20), (64, 3, 5), (5, 2, 3, 4)])
def test_maps_are_those_of_a_full_decomposition(
    make_probe: Callable[..., Probe], monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], centre: bool
) -> None:
    activations = np.random.default_rng(1).uniform(0, 1, (2, *shape)).astype(np.float32)
    probe = make_probe(lambda x: x.reshape(len(x), -1), np.zeros((2, 1, 1, 1), np.float32), activations=activations)
    found = attribute(probe, Params(centre=centre))
    monkeypatch.setattr(eigen_cam, "STEPS", 0)
    whole = attribute(probe, Params(centre=centre))
    assert found.shape == (2, *shape[1:])
    np.testing.assert_allclose(found, whole, atol=1e-6 * np.abs(whole).max())  # float32 holds them
