"""Windows of a transformer are put back on their grid: partition, cyclic shift and merged patches undone."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect import methods
from onnx_inspect.engine import Engine
from onnx_inspect.forms import present, restore
from onnx_inspect.graph.bind import bind
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read
from onnx_inspect.graph.spatial import Spatial, candidates, spatial
from onnx_inspect.graph.surgery import expose
from onnx_inspect.graph.window_samples import regrouped
from onnx_inspect.inputs.batch import Batch

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from fixtures.swin import Swin  # noqa: E402  it needs torch

Export = Callable[[str], Model]
HEIGHT, WIDTH, PATCH = 32, 48, 6
WAYS = ["dynamo", "dynamo, batch of one", "script", "script, batch of one"]


def pictures(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Noise with a patch in one of three colours: pictures, colours, the patches' upper left corners."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 0.5, (count, 3, HEIGHT, WIDTH)).astype(np.float32)
    colours = rng.integers(0, 3, count)
    corners = np.stack([rng.integers(0, HEIGHT - PATCH, count), rng.integers(0, WIDTH - PATCH, count)], axis=1)
    for picture, colour, (row, column) in zip(x, colours, corners, strict=True):
        place = np.s_[row : row + PATCH, column : column + PATCH]
        picture[:, *place] *= 0.3
        picture[colour, *place] += 0.9
    return x, colours, corners


def network(way: str) -> Any:
    """Random weights, tokens that attend to themselves, so that all stays in place, and a head fitted to colours."""
    torch.manual_seed(0)
    net = Swin(way="axes" if "script" in way else "slices").eval()
    with torch.no_grad():
        for block in (*net.stage1, *net.stage2):
            block.attention.bias[len(block.attention.bias) // 2] = 30.0  # no displacement
        x, colours, _ = pictures(300, 1)
        features = net.features(torch.from_numpy(x))
        shown = torch.nn.functional.one_hot(torch.from_numpy(colours), 3).float() - 1 / 3
        net.head.weight.copy_((20 * torch.linalg.lstsq(features - features.mean(0), shown).solution).T)
        net.head.bias.copy_(-net.head.weight @ features.mean(0))
    return net


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Exports, each made once."""
    made: dict[str, Model] = {}

    def get(way: str) -> Model:
        if way not in made:
            path = tmp_path_factory.mktemp("swin") / "swin.onnx"
            _export(network(way), way, path)
            made[way] = read(path)
        return made[way]

    return get


def _export(net: Any, way: str, path: Path) -> None:
    single, x = "one" in way, torch.zeros(2, 3, HEIGHT, WIDTH)
    given: dict[str, Any] = {"dynamo": "dynamo" in way}
    if given["dynamo"]:
        given |= {"external_data": False, "verbose": False}
        given |= {} if single else {"dynamic_shapes": {"x": {0: torch.export.Dim("batch")}}}
    else:
        given |= {"input_names": ["x"]} | ({} if single else {"dynamic_axes": {"x": {0: "batch"}}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations, and its tracer's doubts
        torch.onnx.export(net, (x[:1] if single else x,), path, **given)


def batch_of(model: Model, x: NDArray[np.float32]) -> Batch:
    name, count = model.inputs[0].name, len(x)
    return Batch({name: x}, name, tuple(map(str, range(count))), (None,) * count, (None,) * count, None, None, ())


@pytest.mark.parametrize("way", WAYS)
def test_every_layer_over_the_plane_is_read(export: Export, way: str) -> None:
    """All of each block but what attention takes apart into heads."""
    model = export(way)
    shapes = bind(model)
    found = spatial(model, shapes)
    forms = [(reading.form, reading.grid) for reading in found.values()]
    assert {grid for _, grid in forms} == {(16, 24), (8, 12)}
    for grid, tokens in (((16, 24), (24, 16)), ((8, 12), (6, 16))):
        windows = [n for n, r in found.items() if r.form == "windows" and r.grid == grid and shapes[n][:2] == tokens]
        assert len(windows) >= 8  # of two blocks: the partition, queries with their bias, the projection with its own
        assert ("tokens", grid) in forms
    assert candidates(model, shapes)[0].spatial == Spatial("tokens", (8, 12))


@pytest.mark.parametrize("way", WAYS)
def test_what_changes_with_a_patch_is_found_in_its_place_in_every_layer(export: Export, way: str) -> None:
    """The change lies in the cell of the changed pixels, before and after shifts, partitions and merging."""
    model = export(way)
    shapes = bind(model)
    found = spatial(model, shapes)
    x, _, _ = pictures(3, 2)
    changed = x.copy()
    cells = [(0, 6), (3, 3), (7, 11)]  # of 4 x 4 pixels; at the borders too, where shifted windows wrap around
    for n, (row, column) in enumerate(cells):
        changed[n, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 2
    names = [n for n in found if n in model.producers and found[n].form != "flat"]
    engine = Engine(expose(model, names))
    for n in range(3):  # singly: what is laid out in windows has no axis of samples
        before, after = (engine.run({model.inputs[0].name: a[n : n + 1]}, names) for a in (x, changed))
        for name in names:
            form = found[name]
            maps = [_grouped(values[name], form) for values in (before, after)]
            change = np.abs(present(maps[1], form) - present(maps[0], form))[0].sum(axis=0)
            side = HEIGHT // form.grid[0] // 2  # cells of 2 x 2 pixels, or 4 x 4 after the merging
            rows, columns = np.nonzero(change > 1e-3 * change.max())
            assert set(zip(rows * side // 2, columns * side // 2, strict=True)) == {cells[n]}, name


def _grouped(value: NDArray[Any], form: Spatial) -> NDArray[Any]:
    """One sample's tensor with an axis for it."""
    return value.reshape(1, *value.shape) if form.form == "windows" and len(value) != 1 else value


@pytest.mark.parametrize("way", ["dynamo", "script, batch of one"])
def test_a_model_cut_at_windows_says_what_the_whole_says(export: Export, way: str) -> None:
    """Activations shown on the grid and put back change nothing; three samples at once."""
    model = export(way)
    shapes = bind(model)
    x, _, _ = pictures(3, 3)
    found = spatial(model, shapes)
    layers = [la for la in model.layers if la.output.name in found and found[la.output.name].form == "windows"]
    chosen = [la for la in layers if la.op_type == "Add" and shapes[la.output.name][0] in (24, 6)][::3]
    assert len(chosen) >= 2
    for layer in chosen:
        view = methods.scene(model, batch_of(model, x), layer=layer)
        probe = view.probe()
        assert probe.activations.shape == (3, shapes[layer.output.name][-1], *found[layer.output.name].grid)
        of = np.arange(3)
        again = probe.tail_scores(lambda rows, a=probe.activations: a[rows], of)
        np.testing.assert_allclose(again, probe.base_scores(), rtol=1e-4, atol=1e-4)  # sums in another order
        assert methods.attribute(view, "ablation-cam").layer == layer.name


@pytest.mark.parametrize("way", ["dynamo", "script"])
def test_a_map_lands_on_the_planted_patch(export: Export, way: str) -> None:
    """At the default layer, whose cells are 4 x 4 pixels: inside the patch, or a cell beside it."""
    model = export(way)
    x, colours, corners = pictures(24, 4)
    view = methods.scene(model, batch_of(model, x))
    assert (view.fixed.classes == colours).mean() > 0.9
    found = methods.attribute(view, "cam")
    peaks = np.array([found.peak(n) for n in range(24)]) * (WIDTH, HEIGHT)
    inside = (np.abs(peaks[:, ::-1] - (corners + PATCH / 2)) <= PATCH / 2 + 4).all(axis=1)
    assert inside[view.fixed.classes == colours].mean() >= 0.9  # by chance 1 in 8


def test_regrouping_keeps_what_the_model_gives(export: Export) -> None:
    model = export("dynamo")
    shapes = bind(model)
    found = spatial(model, shapes)
    layer = next(la for la in model.layers if found.get(la.output.name, Spatial("flat", ())).form == "windows")
    layer = next(la for la in model.layers[layer.index :] if found.get(la.output.name) == found[layer.output.name])
    digest = model.proto.SerializeToString()
    tensor = next(n for n in found if found[n].form == "windows" and shapes[n] == (24, 16, 48))
    again, grouped = regrouped(model, model.layer(tensor), shapes[tensor])
    x, _, _ = pictures(3, 5)
    feeds = {model.inputs[0].name: x}
    values = Engine(expose(again, [grouped])).run(feeds)
    assert values[grouped.output.name].shape == (3, 24, 16, 48)
    assert grouped.output.shape == ("batch", 24, 16, 48)
    output = model.outputs[0].name
    np.testing.assert_allclose(values[output], Engine(model).run(feeds)[output], rtol=1e-5, atol=1e-5)
    assert model.proto.SerializeToString() == digest


def test_windows_with_padding_keep_what_lies_beside_the_grid() -> None:
    form = Spatial("windows", (2, 2), places=(5, 0, 3, 1))
    tensor = np.arange(2 * 6 * 3, dtype=np.float32).reshape(2, 2, 3, 3)
    maps = present(tensor, form)
    assert maps[0, 0].tolist() == [[15.0, 0.0], [9.0, 3.0]]
    again = restore(maps + 1, tensor, np.array([0, 1]), form)
    expected = tensor.reshape(2, 6, 3).copy()
    expected[:, [5, 0, 3, 1]] += 1
    np.testing.assert_array_equal(again, expected.reshape(tensor.shape))
