"""KPCA-CAM against scikit-learn's KernelPCA, and against Eigen-CAM where the kernel is linear."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import KernelPCA

from onnx_inspect.cam import eigen_cam, kpca_cam
from onnx_inspect.cam._probe import Probe
from onnx_inspect.cam.kpca_cam import Params
from onnx_inspect.errors import MethodError

MakeProbe = Callable[..., Probe]
Array = NDArray[np.float64]


def around(make_probe: MakeProbe, activations: NDArray[np.float32]) -> Probe:
    score = lambda x: x.sum(axis=(1, 2, 3))[:, None]  # noqa: E731
    return make_probe(score, np.ones((len(activations), 3, 6, 8), np.float32), activations=activations)


def random(count: int = 2) -> Array:
    return (np.random.default_rng(2).uniform(0, 1, (count, 9, 5, 7)) ** 3).astype(np.float32)


@pytest.mark.parametrize(("kernel", "gamma"), [("sigmoid", 0.0), ("sigmoid", 0.4), ("rbf", 0.0), ("rbf", 2.0)])
def test_it_equals_scikit_learns(make_probe: MakeProbe, kernel: str, gamma: float) -> None:
    activations = random()
    found = kpca_cam.attribute(around(make_probe, activations), Params(kernel=kernel, gamma=gamma))
    for n, a in enumerate(activations.astype(float)):
        points = a.reshape(9, -1).T
        points = points - points.mean(axis=0)
        expected = KernelPCA(1, kernel=kernel, gamma=gamma or None).fit_transform(points)[:, 0]
        expected *= np.sign(np.corrcoef(expected, a.mean(axis=0).ravel())[0, 1])
        np.testing.assert_allclose(found[n].ravel(), expected, atol=1e-6 * np.ptp(expected))


def test_a_linear_kernel_is_eigen_cam_centred(make_probe: MakeProbe) -> None:
    probe = around(make_probe, random())
    linear = kpca_cam.attribute(probe, Params(kernel="linear"))
    np.testing.assert_allclose(linear, eigen_cam.attribute(probe, eigen_cam.Params(centre=True)), atol=1e-5)


def test_equal_positions_give_zeros(make_probe: MakeProbe) -> None:
    constant = np.broadcast_to(np.linspace(-1, 2, 9, dtype=np.float32)[None, :, None, None], (1, 9, 5, 7))
    for kernel in ("sigmoid", "rbf", "linear"):
        probe = around(make_probe, np.ascontiguousarray(constant))
        np.testing.assert_array_equal(kpca_cam.attribute(probe, Params(kernel=kernel)), 0)


def test_a_layer_too_large_for_its_kernel_matrix_is_refused(make_probe: MakeProbe) -> None:
    probe = around(make_probe, np.zeros((1, 1, 100, 100), np.float32))
    with pytest.raises(MethodError, match="100x100 positions"):
        kpca_cam.attribute(probe, Params())
