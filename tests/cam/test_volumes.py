"""Volumes are explained as pictures are: methods find a planted cube, and hold to their definitions in space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from onnx_inspect import discover, methods, ops
from onnx_inspect.analysis.montage import Montage
from onnx_inspect.analysis.saliency import of_batch
from onnx_inspect.cam._grids import draw
from onnx_inspect.cam._superpixels import grid
from onnx_inspect.errors import MethodError
from onnx_inspect.graph.model import Model
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.targets import ClassTarget

SIZE, EDGE = (8, 12, 16), 4
BRIGHT, DARK = (1, 6, 2), (3, 1, 10)  # corners of the cubes: depth, row, column
MODULES = {name: discover.load("onnx_inspect.cam", name) for name in discover.names("onnx_inspect.cam")}
SOLID = [n for n, m in MODULES.items() if not getattr(m, "PLANES_ONLY", False)]
CLASS_AWARE = [n for n in SOLID if MODULES[n].CLASS_AWARE]
Volume = NDArray[np.float32]


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=outputs.split()[0], **attributes)


@pytest.fixture(scope="module")
def model(make: Callable[..., Model]) -> Model:
    """Says of which brightness the cubes of 3 x 3 x 3 voxels in a volume are: bright, dark."""
    average = np.full((1, 1, 3, 3, 3), 1 / 27, np.float32)
    nodes = [
        node("Conv", "x w b", "means", pads=[1] * 6),
        node("Relu", "means", "found"),
        node("MaxPool", "found", "maps", kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
        node("GlobalAveragePool", "maps", "pooled"),
        node("Flatten", "pooled", "flat"),
        node("Gemm", "flat head", "logits", transB=1),
    ]
    constants = {
        "w": np.concatenate([average, -average, 0.5 * average]),
        "b": np.array([-0.4, -0.4, 0.0], np.float32),
        "head": np.array([[400, -20, 0], [-20, 400, 0]], np.float32),
    }
    return make(nodes, {"x": ("float32", ["N", 1, *SIZE])}, ["logits"], constants)


def planted(count: int = 1) -> Volume:
    x = np.random.default_rng(0).normal(0, 0.05, (count, 1, *SIZE)).astype(np.float32)
    for corner, value in ((BRIGHT, 1.0), (DARK, -1.0)):
        x[:, :, *(slice(at, at + EDGE) for at in corner)] += value
    return x


def scene(model: Model, x: Volume, target: int = 0) -> methods.Scene:
    count = len(x)
    batch = Batch({"x": x}, "x", tuple(map(str, range(count))), (None,) * count, (None,) * count, None, None, ())
    return methods.scene(model, batch, target=ClassTarget(target))


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("method", CLASS_AWARE)
def test_a_class_is_found_in_its_cube(model: Model, method: str, target: int) -> None:
    """A cell of the layer is 2 x 2 x 2 voxels, a window of occlusion 3 x 3 x 5, one of LIME as much."""
    params = {"rise": {"masks": "600", "cells": "4", "score": "logit"}}.get(method, {})
    found = methods.attribute(scene(model, planted(), target), method, params)
    assert found.values.shape in ((1, *SIZE), (1, 4, 6, 8))
    voxel = np.array(found.peak(0))[::-1] * SIZE
    assert (np.abs(voxel - (np.array((BRIGHT, DARK)[target]) + EDGE / 2)) <= EDGE / 2 + 2).all(), voxel


@pytest.mark.parametrize("method", sorted(set(SOLID) - set(CLASS_AWARE)))
def test_methods_without_a_class_make_maps_of_the_layers_grid(model: Model, method: str) -> None:
    found = methods.attribute(scene(model, planted(2)), method)
    assert found.values.shape == (2, 4, 6, 8)
    assert np.isfinite(found.values).all()


@pytest.mark.parametrize("method", sorted(set(MODULES) - set(SOLID)))
def test_methods_for_planes_say_so(model: Model, method: str) -> None:
    with pytest.raises(MethodError, match=f"{method} explains pictures and signals, not volumes"):
        methods.attribute(scene(model, planted()), method)


def test_recipro_cam_of_logits_is_cam_over_the_number_of_cells(model: Model) -> None:
    view = scene(model, planted())
    cam = methods.attribute(view, "cam").values
    for params in ({"window": "1"}, {"gaussian": "true"}):
        alone = methods.attribute(view, "recipro-cam", params).values * cam[0].size
        inside = np.s_[:, 1:-1, 1:-1, 1:-1] if "gaussian" in params else np.s_[:]  # nothing is lost at the border
        np.testing.assert_allclose(alone[inside], cam[inside], atol=1e-5 * np.abs(cam).max())  # float32's rounding


@pytest.mark.parametrize("params", [{}, {"gaussian": "true"}, {"window": "1", "score": "probability"}])
def test_recipro_cam_by_runs_of_the_tail_equals_channel_means(
    model: Model, monkeypatch: pytest.MonkeyPatch, params: dict[str, str]
) -> None:
    view = scene(model, planted())
    closed = methods.attribute(view, "recipro-cam", params).values
    monkeypatch.setattr("onnx_inspect.cam._probe.Probe.pooled_scores", lambda self, pooled, of, probability: None)
    monkeypatch.setattr("onnx_inspect.cam._probe.Probe.linear_weights", lambda self: None)
    found = methods.attribute(view, "recipro-cam", params)
    assert found.tail_passes >= 4 * 6 * 8
    np.testing.assert_allclose(found.values, closed, atol=1e-5 * np.abs(closed).max())  # float32's rounding


def test_occlusion_is_the_mean_loss_of_the_windows_that_hold_a_voxel(model: Model) -> None:
    """Against a loop over windows of 4 x 6 x 8 voxels, every 2, 3 and 4."""
    x = planted()
    view = scene(model, x)
    found = methods.attribute(view, "occlusion", {"window": "0.5", "stride": "0.25"}).values[0]
    losses, counts = np.zeros(SIZE), np.zeros(SIZE)
    for d in range(0, 5, 2):
        for h in range(0, 7, 3):
            for w in range(0, 9, 4):
                window = np.s_[d : d + 4, h : h + 6, w : w + 8]
                covered = x.copy()
                covered[:, :, *window] = 0
                losses[window] += view.base[0, 0] - view.whole.run({"x": covered}, ["logits"])["logits"][0, 0]
                counts[window] += 1
    np.testing.assert_allclose(found, losses / counts, atol=1e-4)


def test_score_cam_masks_a_volume_with_its_own_enlarged_channels(model: Model) -> None:
    """Against a loop over channels, their masks enlarged axis by axis."""
    x = planted()
    view = scene(model, x)
    activations = view.probe().activations[0]
    scores = []
    for channel in activations:
        mask = channel
        for axis, side in enumerate(SIZE):
            centres = (np.arange(side) + 0.5) * channel.shape[axis] / side - 0.5
            mask = np.apply_along_axis(lambda line, at=centres: np.interp(at, np.arange(len(line)), line), axis, mask)
        mask = (mask - mask.min()) / (mask.max() - mask.min() + 1e-8)
        masked = (x * mask).astype(np.float32)
        scores.append(float(view.whole.run({"x": masked}, ["logits"])["logits"][0, 0]))
    weights = ops.softmax(np.array(scores))
    found = methods.attribute(view, "score-cam").values[0]
    np.testing.assert_allclose(found, np.tensordot(weights, activations, 1), atol=1e-4)


def test_volumes_with_the_channels_last_are_explained_the_same(make: Callable[..., Model], model: Model) -> None:
    nodes = [node("Transpose", "film", "x", perm=[0, 4, 1, 2, 3]), *model.proto.graph.node]
    weights = {name: onnx.numpy_helper.to_array(tensor) for name, tensor in model.constants.items()}
    other = make(nodes, {"film": ("float32", ["N", *SIZE, 1])}, ["logits"], weights)
    x = planted(3)
    first = scene(model, x)
    batch = replace(first.batch, arrays={"film": np.moveaxis(x, 1, -1)}, primary="film")
    last = methods.scene(other, batch, target=ClassTarget(0))
    for method in ("recipro-cam", "score-cam", "occlusion"):
        expected = methods.attribute(first, method).values
        np.testing.assert_allclose(methods.attribute(last, method).values, expected, rtol=1e-4, atol=1e-5)


def test_rise_masks_of_volumes_are_cropped_from_enlarged_grids() -> None:
    masks = draw(np.random.default_rng(0), 5, 3, 0.5, SIZE)
    made = masks.make(np.arange(5))
    assert made.shape == (5, *SIZE)
    sides = [4 * -(-side // 3) for side in SIZE]
    for mask, cells, place in zip(made, masks.grids, masks.places, strict=True):
        large = ops.resize(cells, tuple(sides))
        crop = large[tuple(slice(at, at + side) for at, side in zip(place, SIZE, strict=True))]
        np.testing.assert_allclose(mask, crop, atol=1e-6)
    weights = np.random.default_rng(1).normal(size=(2, 5))
    np.testing.assert_allclose(masks.weighted_sum(weights), np.tensordot(weights, made, 1), atol=1e-5)
    assert masks.coarse.shape == (5, *SIZE)


@pytest.mark.parametrize("size", [(5, 9), (1, 40), (6, 8, 10), (2, 30, 30)])
@pytest.mark.parametrize("count", [1, 7, 30])
def test_a_grid_has_about_as_many_cells_as_asked_for(size: tuple[int, ...], count: int) -> None:
    labels = grid(size, count)
    assert labels.shape == size
    assert sorted(set(labels.ravel().tolist())) == list(range(labels.max() + 1))
    assert labels.max() + 1 in range(max(1, count // 2), 2 * count + 1)


# Drawing


@pytest.mark.parametrize(("size", "slices"), [((1, 9, 9), 1), ((6, 8, 10), 6), ((16, 5, 20), 16), ((64, 32, 32), 16)])
def test_slices_are_laid_out_in_order_and_points_found_among_them(size: tuple[int, int, int], slices: int) -> None:
    montage = Montage.of(size)
    depth, height, width = size
    volume = np.arange(depth)[:, None, None] + np.zeros(size)
    picture = montage.lay(volume)
    assert len(montage.shown) == len(montage.tiles) == slices
    assert max(picture.shape) / min(picture.shape) <= max(5, width / height)
    for (x0, y0, x1, y1, number), shown in zip(montage.tiles, montage.shown, strict=True):
        assert (picture[int(y0) : int(y1), int(x0) : int(x1)] == shown).all()
        x, y = montage.point(0.5, 0.25, (shown + 0.5) / depth)
        assert (x, y) == (x0 + width / 2, y0 + height / 4)
        assert number == str(shown)
    assert montage.note.startswith(("all", str(slices)))


def test_a_panel_shows_the_slices_of_a_volume_and_marks_the_peak_in_its_slice(model: Model) -> None:
    view = scene(model, planted())
    shown = of_batch([methods.attribute(view, "recipro-cam")], 0, view.batch)
    (drawn,) = shown.maps
    assert shown.picture is not None
    assert drawn.peak is not None
    assert shown.picture.shape[:2] == drawn.values.shape
    assert len(shown.tiles) == SIZE[0]
    x, y = drawn.peak
    (slice_,) = (int(n) for x0, y0, x1, y1, n in shown.tiles if x0 <= x < x1 and y0 <= y < y1)
    assert BRIGHT[0] <= slice_ < BRIGHT[0] + EDGE
    assert drawn.values[int(y), int(x)] > 0.6 * drawn.values.max()  # the middle of a cell lies between voxels
