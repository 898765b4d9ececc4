"""The Grad-CAM family and its like against closed forms, central differences and completeness, on real graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.cam._probe import Probe
from onnx_inspect.graph.read import read
from onnx_inspect.inputs.read import read as read_inputs
from onnx_inspect.methods import attribute
from onnx_inspect.scene import Scene, scene
from onnx_inspect.targets import parse

FIXTURES = Path(__file__).parents[2] / "fixtures"
STAR, CROSS = (str(FIXTURES / "inputs" / f"shape_{name}.png") for name in ("star", "cross"))
LINEAR_TAIL = ("grad-cam", "xgrad-cam", "hires-cam")


def view(
    model: str = "shapes_resnet.onnx", layer: str | None = None, target: str = "top-1", inputs: list[str] | None = None
) -> Scene:
    net = read(FIXTURES / model)
    batch = read_inputs(net.inputs, inputs or [STAR, CROSS], metadata=net.metadata)
    return scene(net, batch, layer=layer, target=parse(target, batch.labels)[0])


@pytest.mark.parametrize("method", LINEAR_TAIL)
def test_on_pooling_and_a_linear_layer_it_is_cam_over_the_number_of_positions(method: str) -> None:
    seen = view()
    exact = attribute(seen, "cam").values
    found = attribute(seen, method).values
    cells = exact[0].size
    np.testing.assert_allclose(found * cells, exact, rtol=0, atol=1e-5 * np.abs(exact).max())  # sums in float32


def along(
    gradient: NDArray[np.float32], score: Callable[[NDArray[np.float32]], NDArray[np.float64]], at: NDArray[np.float32]
) -> None:
    """A gradient against central differences in 40 random directions.

    The step is as small as float32 lets it be, since each ReLU that flips between the two points bends the score:
    errors shrink with the step (8e-2 at 1e-3, 2e-2 at 1e-4 of a mean derivative of 1.3), and are of both signs.
    """
    rng, step = np.random.default_rng(0), 1e-4
    directions = rng.normal(size=(40, *at.shape)).astype(np.float32)
    said = np.array([(gradient * d).sum(dtype=np.float64) for d in directions])
    seen = np.array([np.subtract(*score(np.stack([at + step * d, at - step * d]))) / (2 * step) for d in directions])
    assert said @ seen / (said @ said) == pytest.approx(1, abs=3e-3)
    assert np.corrcoef(said, seen)[0, 1] > 0.9995


def test_a_gradient_is_what_central_differences_of_the_tail_say() -> None:
    """At an early layer, where the tail is anything but linear."""
    probe = view(layer="Relu:2").probe()
    of = np.zeros(2, np.intp)
    along(probe.layer_gradients()[0], lambda pair: probe.tail_scores(lambda rows: pair[rows], of), probe.activations[0])


def test_the_gradient_by_the_input_is_what_central_differences_of_the_model_say() -> None:
    probe = view().probe()
    of = np.ones(2, np.intp)
    gradient = probe.input_gradients(lambda rows: probe.inputs[rows], np.arange(2))[1]
    along(gradient, lambda pair: probe.scores(lambda rows: pair[rows], of), probe.inputs[1])


def family(probe: Probe) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return probe.activations.astype(np.float64), probe.layer_gradients().astype(np.float64)


def test_each_method_is_its_definition_at_an_early_layer() -> None:
    seen = view(layer="Relu:2")
    a, g = family(seen.probe())
    n, k = a.shape[:2]
    expected: dict[str, NDArray[np.float64]] = {
        name: np.zeros((n, *a.shape[2:]))
        for name in ("grad-cam", "grad-cam++", "xgrad-cam", "hires-cam", "layer-cam", "grad-cam-elementwise")
    }
    for i in range(n):
        for c in range(k):
            A, G = a[i, c], g[i, c]
            expected["grad-cam"][i] += G.mean() * A
            below = 2 * G**2 + A.sum() * G**3
            alpha = np.where(below != 0, G**2 / np.where(below != 0, below, 1), 0)
            expected["grad-cam++"][i] += (alpha * np.maximum(G, 0)).sum() * A
            expected["xgrad-cam"][i] += ((A * G).sum() / A.sum() if A.sum() else 0) * A
            expected["hires-cam"][i] += A * G
            expected["layer-cam"][i] += np.maximum(G, 0) * A
            expected["grad-cam-elementwise"][i] += np.maximum(A * G, 0)
    for method, maps in expected.items():
        found = attribute(seen, method).values
        np.testing.assert_allclose(found, maps, rtol=1e-4, atol=1e-5 * np.abs(maps).max(), err_msg=method)


def test_xgrad_cam_conserves_what_gradient_and_activations_say() -> None:
    seen = view(layer="Relu:2")
    a, g = family(seen.probe())
    total = attribute(seen, "xgrad-cam").values.sum(axis=(1, 2), dtype=np.float64)
    np.testing.assert_allclose(total, (a * g).sum(axis=(1, 2, 3)), rtol=1e-4)


def test_eigen_grad_cam_is_the_first_component_of_the_products() -> None:
    seen = view(layer="Relu:2")
    a, g = family(seen.probe())
    for found, product in zip(attribute(seen, "eigen-grad-cam").values, a * g, strict=True):
        matrix = product.reshape(len(product), -1).T
        left, sizes, _ = np.linalg.svd(matrix - matrix.mean(axis=0), full_matrices=False)
        expected = left[:, 0] * sizes[0]
        expected *= np.sign(expected @ matrix.sum(axis=1))
        np.testing.assert_allclose(found.ravel(), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_integrated_gradients_add_up_to_the_change_of_the_score() -> None:
    seen = view()
    probe = seen.probe()
    change = probe.base_scores() - probe.scores(lambda rows: np.zeros_like(probe.inputs[rows]), np.arange(2))
    few, many = (
        np.abs(attribute(seen, "integrated-gradients", {"steps": str(steps)}).values.sum(axis=(1, 2)) - change).max()
        for steps in (5, 200)
    )
    assert many < few
    assert many < 0.01 * np.abs(change).max()


def test_on_a_model_linear_in_its_input_all_shares_add_up_exactly() -> None:
    seen = view("linear.onnx", inputs=["random"], target="1")
    probe = seen.probe()
    change = probe.base_scores() - probe.scores(lambda rows: np.zeros_like(probe.inputs[rows]), np.arange(1))
    for method in ("gradient-x-input", "integrated-gradients"):
        shares = attribute(seen, method).values
        np.testing.assert_allclose(shares.sum(axis=(1, 2)), change, rtol=1e-4, atol=1e-5, err_msg=method)


def test_smooth_grad_without_noise_is_saliency() -> None:
    seen = view()
    np.testing.assert_allclose(
        attribute(seen, "smooth-grad", {"noise": "0", "samples": "3"}).values,
        attribute(seen, "saliency").values,
        rtol=1e-5,
        atol=1e-7,
    )


@pytest.mark.parametrize("target", ["2", "0~1,2", "similar:@" + CROSS, "output:logits[1]"])
def test_slopes_of_every_target_are_those_of_its_score(target: str) -> None:
    """A step along the gradient moves the score as the gradient says."""
    seen = view(target=target, inputs=[STAR])
    probe = seen.probe()
    of = np.zeros(2, np.intp)
    gradient = probe.input_gradients(lambda rows: probe.inputs[rows], of[:1])[0]
    step = 1e-4 * float(np.linalg.norm(probe.inputs[0])) / float(np.linalg.norm(gradient))
    pair = np.stack([probe.inputs[0] + step * gradient, probe.inputs[0] - step * gradient])
    scores = probe.scores(lambda rows: pair[rows], of)
    assert (scores[0] - scores[1]) / (2 * step) == pytest.approx(float((gradient**2).sum()), rel=0.01)


def test_only_the_tail_is_run_again() -> None:
    seen = view()
    found = attribute(seen, "grad-cam")
    assert (found.passes, found.tail_passes) == (2, 2)  # one each for the two inputs
