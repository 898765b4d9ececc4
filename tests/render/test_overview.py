"""Whether an overview has a thumbnail for the input and for each layer, in order, each saying what it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from onnx_inspect.analysis.activations import ActivationView, view
from onnx_inspect.graph.model import Layer, TensorSpec
from onnx_inspect.graph.spatial import Spatial
from onnx_inspect.render import _style as style
from onnx_inspect.render._save import save
from onnx_inspect.render.overview import draw, figure_size
from onnx_inspect.trace import Trace

RNG = np.random.default_rng(4)
ARRAYS = {
    "conv1": np.maximum(RNG.standard_normal((1, 8, 12, 16)), 0),
    "a/layer/whose/name/is/far/too/long/for/a/thumbnail/of/it/conv2": RNG.standard_normal((1, 8, 6, 8)),
    "dead": np.zeros((1, 8, 6, 8)),
    "tokens": RNG.standard_normal((1, 5, 8)),
    "loose tokens": RNG.standard_normal((1, 5, 8)),
    "volume": RNG.random((1, 2, 3, 4, 5)),
    "series": RNG.standard_normal((1, 4, 30)),
    "logits": RNG.standard_normal((1, 10)),
}
READINGS = {"tokens": Spatial("tokens", (2, 2), 1), "series": Spatial("channels-first", (30,))}


def views(original: bool = True) -> list[ActivationView]:
    layers = tuple(Layer(name, "Op", TensorSpec(name, "float32", None), n) for n, name in enumerate(ARRAYS))
    arrays = {name: array.astype(np.float32) for name, array in ARRAYS.items()}
    trace = Trace("digest", layers, arrays, {}, ("pictures/cat.jpg",), "cpu")
    picture = RNG.integers(0, 255, (30, 40, 3)).astype(np.uint8) if original else None
    return [view(trace, layer, readings=READINGS, original=picture) for layer in layers]


def drawn(seen: list[ActivationView]) -> Figure:
    figure = Figure(figsize=figure_size(seen), dpi=style.DPI)
    draw(seen, figure)
    return figure


@pytest.mark.parametrize("original", [True, False])
def test_the_input_comes_first_and_then_every_layer_in_order(original: bool) -> None:
    figure = drawn(views(original))
    assert len(figure.axes) == len(ARRAYS) + original
    titles = [text.get_text() for text in figure.texts]
    assert titles[0] == "cat.jpg  ·  8 layers along depth"
    places = [titles.index(name) for name in ("conv1", "dead", "tokens", "volume", "series", "logits")]
    assert places == sorted(places)
    assert ("input" in titles) == original
    assert "Op · 8 × 12 × 16" in titles


def test_maps_are_the_mean_magnitude_of_all_channels() -> None:
    figure = drawn(views())
    mean = np.abs(ARRAYS["conv1"][0].astype(np.float32).astype(np.float64)).mean(axis=0)
    expected = style.colourise(mean, style.SEQUENTIAL, mean.min(), mean.max())
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), expected)


def test_a_dead_layer_is_said_and_not_drawn() -> None:
    figure = drawn(views())
    assert not figure.axes[3].images
    assert any(text.get_text().startswith("all zero") for text in figure.texts)


def test_tokens_with_a_grid_are_a_map_those_without_a_matrix() -> None:
    figure = drawn(views())
    assert figure.axes[4].images[0].get_size() == (2, 2)
    assert figure.axes[5].images[0].get_size() == (5, 8)


def test_nothing_written_leaves_the_page() -> None:
    figure = drawn(views())
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    page = figure.bbox.padded(0.5)
    for text in figure.findobj(Text):
        if text.get_text():
            box = text.get_window_extent(canvas.get_renderer())
            assert page.contains(box.x0, box.y0), text.get_text()
            assert page.contains(box.x1, box.y1), text.get_text()


def test_it_can_be_saved(tmp_path: Path) -> None:
    save(drawn(views()), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert len(image.convert("RGB").getcolors(1 << 24)) > 100
