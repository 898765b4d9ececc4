"""Whether colours, tiles and type come out as asked, and a figure has nothing of the user's matplotlibrc."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from onnx_inspect.render import _style as style

RNG = np.random.default_rng(5)


def drawn(figure: Figure, dpi: float = style.DPI) -> NDArray[np.uint8]:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    return np.asarray(Image.open(stream).convert("RGB"))


@pytest.mark.parametrize("name", [style.SEQUENTIAL, style.DIVERGING, style.OVERLAY])
def test_tables_are_matplotlibs_maps_and_read_only(name: str) -> None:
    table = style.lut(name)
    assert (table.shape, table.dtype) == ((256, 3), np.uint8)
    for index in (0, 100, 255):
        expected = np.array(colormaps[name](index / 255)[:3]) * 255
        assert np.abs(table[index] - expected).max() <= 0.5
    assert not table.flags.writeable


@pytest.mark.parametrize("name", [style.SEQUENTIAL, style.DIVERGING, style.OVERLAY])
def test_no_map_comes_near_the_colour_of_nan(name: str) -> None:
    distance = np.linalg.norm(style.lut(name).astype(float) - style.BAD, axis=1)
    assert distance.min() > 100


def test_magnitudes_get_steadily_lighter_and_signs_are_white_at_0() -> None:
    lightness = style.lut(style.SEQUENTIAL).astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(lightness) > -1).all()
    assert style.lut(style.DIVERGING)[127:129].min() > 240


def test_colours_are_the_tables_by_a_plain_loop() -> None:
    values = RNG.standard_normal((5, 6))
    table = style.lut("viridis")
    found = style.colourise(values, "viridis", -1, 2)
    for y, x in np.ndindex(5, 6):
        unit = min(max((values[y, x] + 1) / 3, 0), 1)
        assert found[y, x].tolist() == table[int(unit * 255 + 0.5)].tolist()


def test_each_tile_may_have_its_own_range() -> None:
    values = np.array([[[0.0, 1.0]], [[0.0, 10.0]]])
    found = style.colourise(values, "viridis", 0, np.array([1, 10]).reshape(2, 1, 1))
    np.testing.assert_array_equal(found[0], found[1])


def test_nan_and_infinity_are_magenta() -> None:
    found = style.colourise([0.0, np.nan, np.inf, -np.inf], "viridis", 0, 1)
    assert (found[1:] == style.BAD).all()
    assert (found[0] == style.lut("viridis")[0]).all()


def test_no_range_gives_the_middle_colour() -> None:
    assert style.colourise([3.0], "RdBu_r", 3, 3)[0].tolist() == style.lut("RdBu_r")[128].tolist()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 3.0], (1, 3, style.SEQUENTIAL)),
        ([-1.0, 3.0], (-3, 3, style.DIVERGING)),
        ([-5.0, np.inf, 3.0], (-5, 5, style.DIVERGING)),
        ([np.nan], (0, 0, style.SEQUENTIAL)),
        ([], (0, 0, style.SEQUENTIAL)),
    ],
)
def test_signed_values_get_a_range_about_0(values: list[float], expected: tuple[float, float, str]) -> None:
    assert style.limits(values) == expected


@given(
    count=st.integers(1, 9),
    columns=st.integers(1, 5),
    gap=st.integers(0, 3),
    header=st.integers(0, 4),
    grey=st.booleans(),
)
def test_tiles_lie_where_a_plain_loop_puts_them(count: int, columns: int, gap: int, header: int, grey: bool) -> None:
    stack = np.random.default_rng(count).integers(0, 255, (count, 3, 2) if grey else (count, 3, 2, 3)).astype(np.uint8)
    found = style.tiles(stack, columns, gap=gap, header=header, background=(1, 2, 3))
    rows = -(-count // columns)
    expected = np.full((rows * (3 + header + gap) - gap, columns * (2 + gap) - gap, 3), (1, 2, 3), np.uint8)
    for number, (x, y) in enumerate(style.corners(count, columns, (3, 2), gap=gap, header=header)):
        expected[y : y + 3, x : x + 2] = stack[number][..., None] if grey else stack[number]
    np.testing.assert_array_equal(found, expected)


def test_enlarging_repeats_cells() -> None:
    assert style.enlarge(np.array([[[1, 2]]]), 2).tolist() == [[[1, 1, 2, 2], [1, 1, 2, 2]]]


@pytest.mark.parametrize(("shape", "most"), [((2, 9, 12), 4), ((3, 100, 1), 10), ((1, 7, 5), 6), ((1, 2, 301), 100)])
def test_reducing_averages_blocks(shape: tuple[int, ...], most: int) -> None:
    image = RNG.random(shape)
    found = style.reduce(image, most)
    height, width = style.reduced((shape[1], shape[2]), most)
    assert found.shape == (shape[0], height, width)
    assert max(height, width) <= most
    step_y, step_x = shape[1] // height, shape[2] // width
    for y, x in np.ndindex(height, width):
        block = image[:, y * step_y : (y + 1) * step_y, x * step_x : (x + 1) * step_x]
        np.testing.assert_allclose(found[:, y, x], block.mean(axis=(1, 2)), rtol=1e-12)


def test_reducing_keeps_small_images_whole_numbers_and_nan() -> None:
    small = RNG.random((2, 4, 4))
    assert style.reduce(small, 4) is small
    assert style.reduce(np.full((1, 4, 4), 200, np.uint8), 2).tolist() == [[[200, 200], [200, 200]]]
    hurt = np.ones((1, 4, 4))
    hurt[0, 0, 0] = np.nan
    assert np.isnan(style.reduce(hurt, 2)).tolist() == [[[True, False], [False, False]]]


@given(text=st.text(max_size=80), width=st.floats(0.3, 4))
def test_text_is_made_to_fit(text: str, width: float) -> None:
    found = style.fit(text, width)
    assert style.text_width(found) <= width
    assert found == style.clean(text) or "…" in found


def test_a_layers_name_keeps_both_ends_and_a_label_its_start() -> None:
    name = "/model/features/features.17/conv/conv.2/Conv_output"
    assert style.fit(name, 1.5).startswith("/model")
    assert style.fit(name, 1.5).endswith("_output")
    assert style.fit("golden retriever, a dog", 1.0, keep="start").startswith("golden")


@given(text=st.text(st.characters(codec="utf-8"), max_size=200), width=st.floats(1, 5))
def test_broken_lines_fit_and_keep_their_colour(text: str, width: float) -> None:
    lines = style.wrap_lines([(text, "red"), ("b", "blue")], width)
    assert all(style.text_width(line) <= width for line, _ in lines)
    assert lines[-1] == ("b", "blue")
    assert {colour for _, colour in lines[:-1]} == {"red"}


def test_breaking_loses_no_word() -> None:
    text = "64 of 256 channels, most active first; each on its own scale"
    assert " ".join(line for line, _ in style.wrap_lines([(text, "")], 1.6)).split() == text.split()


def test_text_width_is_what_matplotlib_draws() -> None:
    figure = Figure(figsize=(8, 1), dpi=style.DPI)
    for weight in ("normal", "bold"):
        artist = figure.text(0, 0, "layer4.1.conv2", fontsize=9, family="DejaVu Sans", weight=weight)
        drawn_width = artist.get_window_extent().width / style.DPI  # whole pixels, so two of them off at most
        assert style.text_width("layer4.1.conv2", size=9, weight=weight) == pytest.approx(
            drawn_width, abs=2.5 / style.DPI
        )


def test_any_name_can_be_drawn_without_a_warning() -> None:
    figure = Figure(figsize=(4, 1))
    page = style.Page(figure, 4, 1)
    with matplotlib.rc_context({"text.parse_math": False}):
        page.text(0.1, 0.1, "$x^2$ \x01\n 漢字 \U0001f40e {}")
    assert (drawn(figure) < 100).any()


@pytest.mark.parametrize("dpi", [style.DPI, 77])
def test_an_image_is_drawn_the_right_way_up(dpi: float) -> None:
    image = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 0, 0]]], np.uint8)
    figure = Figure(figsize=(2, 2))
    page = style.Page(figure, 2, 2)
    style.show(page.axes(0.5, 0.5, 1, 1), image)
    pixels = drawn(figure, dpi)
    places = {(0.75, 0.75): [255, 0, 0], (0.75, 1.25): [0, 255, 0], (1.25, 0.75): [0, 0, 255], (1.25, 1.25): [0, 0, 0]}
    for (y, x), colour in places.items():
        assert pixels[int(y * dpi), int(x * dpi)].tolist() == colour


def test_exact_pixels_are_those_of_the_image() -> None:
    image = RNG.integers(0, 255, (10, 15, 3)).astype(np.uint8)
    figure = Figure(figsize=(1, 1))
    style.show(style.Page(figure, 1, 1).axes(12 / style.DPI, 24 / style.DPI, 45 / style.DPI, 30 / style.DPI), image)
    found = drawn(figure)[24:54, 12:57]
    np.testing.assert_array_equal(found, image.repeat(3, axis=0).repeat(3, axis=1))


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_labels_stand_where_they_are_put(kind: str) -> None:
    figure = Figure(figsize=(2, 1), dpi=100)
    axes = style.Page(figure, 2, 1).axes(0, 0, 2, 1)
    axes.set_xlim(0, 200)
    axes.set_ylim(0, 100)
    style.label(axes, [(100, 50)], ["88888"], size=20)
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, dpi=100)
    if kind == "png":
        rows, columns = np.nonzero(np.asarray(Image.open(stream).convert("L")) < 128)
        assert rows.max() in range(46, 51)  # the baseline, 50 pixels from the top
        assert columns.min() in range(99, 106)
    else:
        assert len(stream.getvalue()) > 1500


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (-0.5, "−0.5"), (1234.5, "1.23e+03"), (8.5e-4, "0.00085"), (np.nan, "nan")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert style.number(value) == text


def test_a_heading_ends_where_its_height_says() -> None:
    figure = Figure(figsize=(4, 2))
    lines = [("one", style.INK), ("two", style.FAINT)]
    assert style.Page(figure, 4, 2).heading("title", lines) == pytest.approx(style.heading_height(2))
    assert [text.get_text() for text in figure.texts] == ["title", "one", "two"]


def test_the_users_settings_neither_change_a_figure_nor_are_changed() -> None:
    @style.styled
    def draw(figure: Figure) -> Any:
        return figure.text(0, 0, "$a$").get_fontfamily()

    with matplotlib.rc_context({"font.family": ["monospace"], "text.parse_math": True}):
        assert draw(Figure())[0] == "DejaVu Sans"
        assert matplotlib.rcParams["font.family"] == ["monospace"]
        assert matplotlib.rcParams["text.parse_math"] is True
