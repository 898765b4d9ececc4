"""Whether a drawn layer shows the values it holds, says what it hides, and never draws nothing as something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from onnx_inspect.analysis.activations import ActivationView, view
from onnx_inspect.graph.model import Layer, TensorSpec
from onnx_inspect.graph.spatial import Spatial
from onnx_inspect.render import _grid as grids
from onnx_inspect.render import _style as style
from onnx_inspect.render._artists import Labels
from onnx_inspect.render._save import save
from onnx_inspect.render.activations import draw, figure_size, problem
from onnx_inspect.trace import Trace

RNG = np.random.default_rng(2)
LONG = "/model/features/" + "/".join(f"features.{n}/conv/conv.{n}" for n in range(12)) + "/Relu_output"


def seen(
    array: NDArray[Any], *, reading: Spatial | None = None, name: str = "relu1", source: str = "cat.jpg", **options: Any
) -> ActivationView:
    layer = Layer(name, "Relu", TensorSpec("tensor", str(array.dtype), None), 0)
    trace = Trace("digest", (layer,), {name: array}, {}, (source,), "cpu")
    return view(trace, name, readings={"tensor": reading} if reading else None, **options)


def drawn(result: ActivationView) -> Figure:
    figure = Figure(figsize=figure_size(result), dpi=style.DPI)
    draw(result, figure)
    return figure


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def labels(figure: Figure) -> list[str]:
    return [text for artist in figure.findobj(Labels) for text in artist.texts]


MAPS = np.maximum(RNG.standard_normal((1, 100, 6, 5)), 0).astype(np.float32)
CASES: dict[str, tuple[NDArray[Any], Spatial | None]] = {
    "maps": (MAPS, None),
    "signed maps": (RNG.standard_normal((1, 12, 7, 7)).astype(np.float32), None),
    "wide maps": (RNG.random((1, 20, 3, 100)).astype(np.float32), None),
    "tall maps": (RNG.random((1, 20, 100, 3)).astype(np.float32), None),
    "one map": (RNG.random((1, 1, 28, 28)).astype(np.float32), None),
    "two cells": (RNG.random((1, 70, 1, 2)).astype(np.float32), None),
    "volume": (RNG.random((1, 20, 12, 5, 6)).astype(np.float32), None),
    "series": (RNG.standard_normal((1, 20, 60)).astype(np.float32), Spatial("channels-first", (60,))),
    "long series": (RNG.random((1, 3, 5000)).astype(np.float32), Spatial("channels-first", (5000,))),
    "tokens": (RNG.standard_normal((1, 197, 64)).astype(np.float32), Spatial("tokens", (14, 14), 1)),
    "few tokens": (RNG.standard_normal((1, 2, 48)).astype(np.float32), None),
    "vector": (RNG.standard_normal((1, 1000)).astype(np.float32), None),
    "short vector": (RNG.standard_normal((1, 6)).astype(np.float32), None),
    "number": (np.array([3.5], np.float32), None),
    "bytes": (RNG.integers(100, 200, (1, 8, 6, 6)).astype(np.uint8), None),
    "truths": (RNG.random((1, 4, 6, 6)) > 0.5, None),
    "dead": (np.zeros((1, 4, 6, 6), np.float32), None),
    "no number": (np.full((1, 4, 6, 6), np.nan, np.float32), None),
    "empty": (np.zeros((1, 0, 4), np.float32), None),
    "no batch": (RNG.random((16, 9, 8)).astype(np.float32), None),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scale", ["own", "shared"])
def test_nothing_written_leaves_the_page(case: str, scale: Any) -> None:
    array, reading = CASES[case]
    original = RNG.integers(0, 255, (30, 40, 3)).astype(np.uint8)
    result = seen(array, reading=reading, name=LONG, source="/a/folder/" + "x" * 150, scale=scale, original=original)
    figure = drawn(result)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # which puts the axes' labels in their place
    renderer = canvas.get_renderer()
    page = figure.bbox.padded(0.5)
    for text in figure.findobj(Text):
        if text.get_text() and text.get_visible():
            box = text.get_window_extent(renderer)
            assert page.contains(box.x0, box.y0), text.get_text()
            assert page.contains(box.x1, box.y1), text.get_text()


@pytest.mark.parametrize("case", CASES)
def test_every_kind_can_be_saved_and_has_something_on_it(tmp_path: Path, case: str) -> None:
    array, reading = CASES[case]
    result = seen(array, reading=reading)
    save(drawn(result), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == tuple(round(inches * style.DPI) for inches in figure_size(result))
        assert len(image.convert("RGB").getcolors(1 << 24)) > 20


@pytest.mark.parametrize("suffix", [".svg", ".pdf"])
def test_figures_can_be_drawn_with_lines_instead_of_pixels(tmp_path: Path, suffix: str) -> None:
    save(drawn(seen(MAPS)), tmp_path / f"a{suffix}")
    assert (tmp_path / f"a{suffix}").stat().st_size > 10_000


def grid_image(figure: Figure) -> NDArray[np.uint8]:
    axes = figure.findobj(Labels)[0].axes
    assert axes is not None
    return np.asarray(axes.images[0].get_array())


def test_tiles_hold_the_channels_colours_most_active_first() -> None:
    result = seen(MAPS)
    figure = drawn(result)
    assert labels(figure) == [str(channel) for channel in result.channels]
    grid = grids.plan(64, (6, 5))
    image = grid_image(figure)
    for (x, y), channel in zip(grid.corners, result.channels, strict=True):
        plane = MAPS[0, channel]
        tile = image[y : y + 6 * grid.factor : grid.factor, x : x + 5 * grid.factor : grid.factor]
        np.testing.assert_array_equal(tile, style.colourise(plane, style.SEQUENTIAL, 0, plane.max()))


def test_the_hidden_channels_are_counted_in_words() -> None:
    words = texts(drawn(seen(MAPS)))
    assert "64 of 100 channels (36 hidden), most active first by mean |a|" in words
    assert "all 12 channels" in texts(drawn(seen(CASES["signed maps"][0])))


def test_the_heading_says_layer_operator_shape_type_and_source() -> None:
    words = texts(drawn(seen(MAPS, source="/some/folder/cat.jpg")))
    assert "relu1  ·  Relu" in words
    assert "tensor · 100 × 6 × 5 float32 · cat.jpg" in words


def test_a_shared_scale_has_a_colour_bar_with_its_range() -> None:
    result = seen(MAPS, scale="shared")
    words = texts(drawn(result)).split("\n")
    assert style.number(result.high) in words
    assert "one scale for all" in "".join(words)


def test_signed_maps_use_the_diverging_map_about_0() -> None:
    array = np.zeros((1, 2, 4, 4), np.float32)
    array[0, 0, 0, 0], array[0, 0, 3, 3] = -2, 1
    array[0, 1] = 0.5
    figure = drawn(seen(array, scale="shared"))
    colours = {tuple(c) for c in grid_image(figure).reshape(-1, 3)}
    table = style.lut(style.DIVERGING)
    assert tuple(table[0]) in colours
    assert tuple(table[int(0.75 * 255 + 0.5)]) in colours  # 1 of ±2
    assert {"−2", "0", "2"} <= set(texts(figure).split("\n"))


def test_a_dead_channel_is_labelled_and_hatched() -> None:
    array = RNG.random((1, 3, 5, 5)).astype(np.float32) + 1
    array[0, 1] = 0
    figure = drawn(seen(array))
    assert labels(figure)[-1] == "1 dead"
    assert "1 channel all zero (dead) on this input" in texts(figure)
    assert (grid_image(figure) == 196).all(axis=2).any()


def test_a_constant_channel_is_labelled() -> None:
    array = RNG.random((1, 3, 5, 5)).astype(np.float32)
    array[0, 2] = 5
    assert labels(drawn(seen(array)))[0] == "2 constant"


def test_a_negligible_channel_is_not_blown_up() -> None:
    array = RNG.random((1, 2, 5, 5)).astype(np.float32)
    array[0, 0, 0, 0] = 0
    array[0, 1] = RNG.random((5, 5)) * 1e-12
    image = grid_image(drawn(seen(array)))
    darkest = style.lut(style.SEQUENTIAL)[0]
    assert (image == darkest).all(axis=2).sum() >= image.shape[0] * image.shape[1] * 0.2


def test_nan_is_magenta_and_said() -> None:
    array = RNG.random((1, 3, 5, 5)).astype(np.float32)
    array[0, 1, 2, 2], array[0, 1, 2, 3] = np.nan, np.inf
    figure = drawn(seen(array))
    assert (grid_image(figure) == style.BAD).all(axis=2).any()
    assert "1 NaN and 1 infinite (magenta where shown)" in texts(figure)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((1, 3, 4, 4)), "all zero: dead on this input"),
        (np.full((1, 3, 4, 4), -1.5), "constant: every value is −1.5"),
        (np.full((1, 3, 4, 4), np.inf), "no finite value"),
        (np.zeros((1, 0, 4)), "empty: its shape is 0 × 4"),
        (np.zeros((1, 12)), "all zero: dead on this input"),
    ],
)
def test_a_layer_with_nothing_to_see_is_said_and_not_drawn(array: NDArray[Any], words: str) -> None:
    result = seen(array.astype(np.float32), original=np.zeros((8, 8, 3), np.uint8))
    figure = drawn(result)
    assert words in texts(figure)
    assert len(figure.axes) == 1  # the original, nothing else
    assert problem(seen(MAPS)) == ""


def test_the_original_and_the_mean_stand_at_the_left() -> None:
    original = RNG.integers(0, 255, (20, 30, 3)).astype(np.uint8)
    result = seen(MAPS, original=original)
    figure = drawn(result)
    first, second = figure.axes[:2]
    np.testing.assert_array_equal(first.images[0].get_array(), original)
    assert result.mean is not None
    low, high = result.mean.min(), result.mean.max()
    expected = style.colourise(result.mean, style.SEQUENTIAL, low, high)
    np.testing.assert_array_equal(second.images[0].get_array(), expected)
    assert f"mean |a|, {style.number(low)} to {style.number(high)}" in texts(figure)


def test_bars_are_as_long_as_the_values_with_their_labels() -> None:
    values = np.array([[0.5, -2.0, 0.25]], np.float32)
    figure = drawn(seen(values, labels=("cat", "dog", "horse")))
    axes = next(axes for axes in figure.axes if axes.patches)
    assert [bar.get_width() for bar in axes.patches] == [0.5, -2.0, 0.25]  # type: ignore[attr-defined]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["0  cat", "1  dog", "2  horse"]
    assert {"0.5", "−2", "0.25"} <= {text.get_text() for text in axes.texts}


def test_long_vectors_show_all_values_as_lines_and_the_largest_as_bars() -> None:
    result = seen(CASES["vector"][0])
    figure = drawn(result)
    lines, bars = figure.axes
    heights = [segment[1, 1] for segment in lines.collections[0].get_segments()]  # type: ignore[attr-defined]
    pairs = CASES["vector"][0][0].reshape(500, 2)  # two to a line: the larger |a|
    expected = pairs[np.arange(500), np.abs(pairs).argmax(axis=1)]
    np.testing.assert_allclose(heights, expected, rtol=1e-6)
    assert len(bars.patches) == 24
    assert "24 of 1,000 values (976 hidden), the largest |a| first" in texts(figure)


def test_tokens_are_a_matrix_with_both_axes_named() -> None:
    array = RNG.standard_normal((1, 9, 16)).astype(np.float32)
    figure = drawn(seen(array))
    axes = figure.axes[0]
    low, high, name = style.limits(array)
    np.testing.assert_array_equal(axes.images[0].get_array(), style.colourise(array[0], name, low, high))
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("token", "feature")
    assert "9 tokens × 16 features" in texts(figure)


def test_a_few_giants_do_not_take_the_colour_from_the_rest_and_it_is_said() -> None:
    array = RNG.standard_normal((1, 50, 40)).astype(np.float32)
    array[0, 3, 3] = 500
    words = texts(drawn(seen(array)))
    assert "the 99.5th percentile of |a|; the largest is 500" in words
    assert "percentile" not in texts(drawn(seen(array[:, 10:])))


def test_series_are_channels_against_positions_most_active_first() -> None:
    array = RNG.random((1, 4, 30)).astype(np.float32) * np.array([1, 4, 2, 3])[None, :, None]
    result = seen(array.astype(np.float32), reading=Spatial("channels-first", (30,)))
    figure = drawn(result)
    axes = next(axes for axes in figure.axes if axes.get_ylabel() == "channel")
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["1", "3", "2", "0"]
    assert axes.get_xlabel() == "position"


def test_volumes_say_which_slices_are_shown() -> None:
    figure = drawn(seen(CASES["volume"][0]))
    assert "8 of 20 channels (12 hidden)" in texts(figure)
    assert "at depths 0, 2, 3, 5, 6, 8, 9, 11 of 12" in texts(figure)
    assert len(labels(figure)) == 64
    assert labels(figure)[1].endswith(" z2")


def test_notes_of_the_view_are_passed_on() -> None:
    assert "its first axis isn't the batch of 1" in texts(drawn(seen(CASES["no batch"][0])))


def test_the_same_view_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save(drawn(seen(MAPS)), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_figure_of_another_size_is_filled_alike() -> None:
    result = seen(MAPS)
    width, height = figure_size(result)
    figure = Figure(figsize=(width / 2, height * 1.5))
    draw(result, figure)
    for axes, usual in zip(figure.axes, drawn(result).axes, strict=True):
        np.testing.assert_allclose(axes.get_position(original=True).bounds, usual.get_position(original=True).bounds)


def test_rounding_in_a_constant_mean_is_no_pattern() -> None:
    array = np.where(RNG.random((1, 8, 6, 6)) > 0.5, 0.1, -0.1).astype(np.float64)
    array[0, :, 0, 0] *= 1 + 1e-12
    figure = drawn(seen(array))
    assert "mean |a|, 0.1 everywhere" in texts(figure)
    assert len(np.unique(np.asarray(figure.axes[0].images[0].get_array()).reshape(-1, 3), axis=0)) == 1


def test_a_label_that_is_the_number_itself_is_written_once() -> None:
    figure = drawn(seen(np.array([[1.0, 2.0]], np.float32), labels=("0", "nine")))
    assert {"0", "1  nine"} <= set(texts(figure).split("\n"))
    assert "0  0" not in texts(figure)
