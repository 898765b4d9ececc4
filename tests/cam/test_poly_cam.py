"""Poly-CAM against a slow loop written from its definition, its parts by hand, and the layers that a model gives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.cam import poly_cam
from onnx_inspect.cam._probe import Probe
from onnx_inspect.cam.poly_cam import Params, clipped, refined
from onnx_inspect.graph.read import read
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.methods import attribute, scene
from onnx_inspect.ops import resize, softmax
from onnx_inspect.targets import ClassTarget

MakeProbe = Callable[..., Probe]
Array = NDArray[np.float64]
FIXTURES = Path(__file__).parents[2] / "fixtures"
SIZE, GRIDS = (18, 26), ((3, 4), (6, 7), (9, 13))


def crooked(x: Array) -> Array:
    return np.stack([np.tanh(x[:, 0].mean(axis=(1, 2))), 3 * np.abs(x[:, 1]).mean(axis=(1, 2))], axis=1)


def setting(make_probe: MakeProbe) -> tuple[Probe, list[NDArray[np.float32]]]:
    """Three depths of 5, 4 and 3 channels; one of them constant at each depth."""
    rng = np.random.default_rng(1)
    depths = [rng.uniform(-0.2, 1, (2, 5 - n, *grid)).astype(np.float32) for n, grid in enumerate(GRIDS)]
    for n, activations in enumerate(depths):
        activations[:, n] = 0.4
    probe = make_probe(crooked, rng.normal(size=(2, 3, *SIZE)).astype(np.float32), activations=depths[0], classes=1)
    return replace(probe, finer=lambda: (depths[1], depths[2])), depths


def slow(x: Array, depths: list[Array], variant: str) -> Array:
    def p(picture: Array) -> float:
        return float(softmax(crooked(picture[None]))[0, 1])

    found: Array | None = None
    for activations in depths:
        total = np.zeros(activations.shape[1:])
        for channel in activations:
            flat = np.sort(channel.ravel())
            low, high = np.percentile(flat, 0.1), np.percentile(flat, 99.9)
            mask = np.zeros(SIZE)
            if high > low:
                mask = resize(np.clip((channel - low) / (high - low), 0, 1).astype(np.float32), SIZE)
            plus, minus = p(x * mask), p(x) - p(x * (1 - mask))
            weight = {"plus": plus, "minus": max(minus, 0), "both": max(plus + minus, 0)}[variant]
            total += weight * channel
        total = np.maximum(total, 0)
        if found is None:
            found = total
            continue
        coarse = resize(total.astype(np.float32), found.shape)
        local = total / np.maximum(resize(coarse, total.shape), 1e-12)
        found = local * resize(found.astype(np.float32), total.shape)
    assert found is not None
    return np.minimum(found, np.percentile(found, 99.9))


@pytest.mark.parametrize("variant", ["plus", "minus", "both"])
def test_it_equals_its_definition(make_probe: MakeProbe, variant: str) -> None:
    probe, depths = setting(make_probe)
    found = poly_cam.attribute(probe, Params(variant=variant))
    assert found.shape == (2, *GRIDS[-1])
    for n in range(2):
        expected = slow(probe.inputs[n].astype(float), [d[n].astype(float) for d in depths], variant)
        np.testing.assert_allclose(found[n], expected, rtol=1e-3, atol=1e-5 * expected.max())  # sums in float32


def test_one_depth_alone_is_its_weighted_sum(make_probe: MakeProbe) -> None:
    probe, depths = setting(make_probe)
    found = poly_cam.attribute(replace(probe, finer=tuple), Params())
    for n in range(2):
        np.testing.assert_allclose(found[n], slow(probe.inputs[n].astype(float), [depths[0][n]], "plus"), rtol=1e-4)


def test_local_normalisation_leaves_the_deep_map_where_the_fine_one_is_even() -> None:
    deep = np.random.default_rng(2).uniform(0.1, 1, (1, 4, 5)).astype(np.float32)
    fine = np.full((1, 8, 10), 7.0, np.float32)
    expected = resize(deep, (8, 10))[0]
    expected = np.minimum(expected, np.percentile(expected, 99.9))
    np.testing.assert_allclose(refined([deep, fine])[0], expected, rtol=1e-5)


def test_masks_ignore_a_few_outliers() -> None:
    channel = np.linspace(0, 1, 4000).reshape(1, 50, 80).astype(np.float32)
    channel[0, 0, :2] = 90
    mask = clipped(channel, (50, 80))[0]
    np.testing.assert_allclose(mask[1:], channel[0, 1:], atol=0.01)
    assert mask.max() == 1


def layers(model: str, layer: str | None = None) -> list[tuple[int, ...]]:
    """Shapes of the finer maps that a real graph gives."""
    net = read(FIXTURES / model)
    spec = net.inputs[0]
    shape = [d if isinstance(d, int) else 1 for d in spec.shape or ()]
    x = np.random.default_rng(3).uniform(-1, 1, shape).astype(np.float32)
    batch = Batch({spec.name: x}, spec.name, ("x",), (None,), (None,), None, None, ())
    return [maps.shape for maps in scene(net, batch, layer=layer).probe().finer()]


def test_a_model_gives_its_last_maps_of_each_finer_resolution() -> None:
    assert [shape[2:] for shape in layers("shapes_resnet.onnx")] == [(16, 16), (32, 32)]
    assert all(shape[1] > 3 for shape in layers("digits_convnet.onnx"))  # the input itself is no layer


def test_it_runs_on_a_real_graph_and_points_at_the_finest_maps() -> None:
    net = read(FIXTURES / "shapes_resnet.onnx")
    x = np.random.default_rng(4).uniform(-1, 1, (2, 3, 64, 64)).astype(np.float32)
    name = net.inputs[0].name
    batch = Batch({name: x}, name, ("a", "b"), (None,) * 2, (None,) * 2, None, None, ())
    view = scene(net, batch, target=ClassTarget(1))
    found = attribute(view, "poly-cam")
    finest = view.probe().finer()[-1]
    assert found.values.shape == (2, *finest.shape[2:])
    assert not any(found.flat)
