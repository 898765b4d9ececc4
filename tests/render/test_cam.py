"""Whether an overlay is the mixture it says, and a figure names methods, targets and what there was no evidence for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from onnx_inspect.analysis.saliency import CamMap, CamPanel, Segments
from onnx_inspect.render import _segments
from onnx_inspect.render import _style as style
from onnx_inspect.render._save import save
from onnx_inspect.render.cam import ROW, draw, figure_size, overlay, overlay_segments

RNG = np.random.default_rng(6)
PICTURE = RNG.integers(0, 255, (20, 30, 3)).astype(np.uint8)


def cam_map(values: NDArray[Any] | None = None, **fields: Any) -> CamMap:
    found = RNG.random((20, 30)) if values is None else values
    usual = {"method": "score-cam", "layer": "layer4", "target": "golden retriever", "score": 0.75}
    return CamMap(values=found.astype(np.float32), **(usual | fields))


def cam_panel(*maps: CamMap, **fields: Any) -> CamPanel:
    return CamPanel(**({"source": "dog.jpg", "maps": maps, "picture": PICTURE} | fields))


def drawn(*panels: CamPanel, **options: Any) -> Figure:
    figure = Figure(figsize=figure_size(panels), dpi=style.DPI)
    draw(panels, figure, **options)
    return figure


def pictures(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.images and axes.images[0].get_size()[1] > 1]


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_an_overlay_is_the_mixture_of_colour_and_picture(alpha: float) -> None:
    values = RNG.random((20, 30)).astype(np.float32)
    before = PICTURE.copy(), values.copy()
    found = overlay(PICTURE, values, alpha=alpha, colormap="viridis")
    table = style.lut("viridis").astype(np.float64)
    for y, x in np.ndindex(20, 30):
        colour = table[int(float(values[y, x]) * 255 + 0.5)]
        expected = alpha * colour + (1 - alpha) * PICTURE[y, x]
        assert np.abs(found[y, x] - expected).max() <= 0.51  # rounding to whole numbers
    np.testing.assert_array_equal(PICTURE, before[0])
    np.testing.assert_array_equal(values, before[1])


def test_the_default_is_half_of_turbo() -> None:
    values = RNG.random((20, 30)).astype(np.float32)
    np.testing.assert_array_equal(overlay(PICTURE, values), overlay(PICTURE, values, alpha=0.5, colormap="turbo"))


def segments(shape: tuple[int, ...]) -> Segments:
    return Segments(RNG.integers(0, 3, shape), ("tabby · tiger cat", "", "a very long name " * 9), (0.5, 0.3, 0.2))


def test_parts_have_the_legends_colours_over_the_grey_picture() -> None:
    values, parts = np.ones((20, 30), np.float32), segments((20, 30))
    found = overlay_segments(PICTURE, values, parts, alpha=0.5)
    legend = drawn(cam_panel(cam_map(values, segments=parts)))
    squares = [p for p in legend.findobj(Rectangle) if p.get_width() == _segments.SQUARE]
    assert len(squares) == 3
    for y, x in np.ndindex(20, 30):
        colour = np.array(squares[parts.number[y, x]].get_facecolor()[:3]) * 255
        expected = 0.9 * colour + 0.1 * PICTURE[y, x].mean()
        assert np.abs(found[y, x] - expected).max() <= 0.51
    none = overlay_segments(PICTURE, np.full((20, 30), np.nan, np.float32), parts)
    np.testing.assert_array_equal(none, overlay(PICTURE, np.full((20, 30), np.nan, np.float32)))


def test_a_legend_says_each_parts_share_and_name_and_keeps_to_its_column() -> None:
    figure = drawn(cam_panel(cam_map(segments=segments((20, 30)), method="dff"), cam_map()))
    found = words(figure)
    assert "50%  tabby · tiger cat" in found
    assert "30%  part 2" in found
    assert any(word.startswith("20%  a very") and word.endswith(("…", "...")) for word in found)
    stays_on_the_page(figure)


def stays_on_the_page(figure: Figure) -> None:
    """No text leaves the page."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    for text in figure.findobj(Text):
        if text.get_text():
            box = text.get_window_extent()
            assert box.x0 >= -1 and box.x1 <= width + 1 and box.y0 >= -1 and box.y1 <= height + 1, text.get_text()


def test_a_figure_of_parts_alone_has_no_colour_scale() -> None:
    both = drawn(cam_panel(cam_map(segments=segments((20, 30))), cam_map()))
    alone = drawn(cam_panel(cam_map(segments=segments((20, 30)))))
    assert "relative evidence" in words(both)
    assert "relative evidence" not in words(alone)


def test_a_signals_parts_are_drawn_behind_it_with_their_legend() -> None:
    signal = np.sin(np.arange(90) / 9)[None]
    result = cam_map(RNG.random(90), segments=segments((90,)))
    figure = drawn(CamPanel("wave", (result, cam_map(RNG.random(90))), signal=signal))
    assert "50%  tabby · tiger cat" in words(figure)
    stays_on_the_page(figure)


def test_an_estimate_is_said_under_its_map() -> None:
    said = "estimate: 20 of 400 passes, stability 0.91"
    figure = drawn(cam_panel(cam_map(estimate=said), cam_map()))
    assert said in words(figure)
    signal = CamPanel("wave", (cam_map(RNG.random(90), estimate=said),), signal=np.zeros((1, 90)))
    assert any(said in word for word in words(drawn(signal)))


def test_what_the_network_never_saw_is_grey_pale_and_hatched() -> None:
    values = np.full((40, 40), 0.5, np.float32)
    values[:, 20:] = np.nan
    picture = np.full((40, 40, 3), (200, 20, 20), np.uint8)
    found = overlay(picture, values)
    unseen = found[:, 20:]
    assert (unseen[..., 0] == unseen[..., 2]).all()
    assert len(np.unique(unseen)) == 2
    assert unseen.min() > 120
    np.testing.assert_array_equal(found[:, :20], overlay(picture, np.full((40, 40), 0.5, np.float32))[:, :20])


def test_the_signed_view_is_red_for_blue_against_and_grey_at_0() -> None:
    values = np.array([[1, 0, -1]], np.float32)
    red, grey, blue = overlay(np.full((1, 3, 3), 128, np.uint8), values, colormap="RdBu_r", signed=True)[0].astype(int)
    assert red[0] > red[2] + 30
    assert blue[2] > blue[0] + 30
    assert np.ptp(grey) <= 2


def test_the_original_stands_left_of_each_methods_overlay() -> None:
    figure = drawn(cam_panel(cam_map(method="cam"), cam_map(method="eigen-cam")))
    first, *rest = pictures(figure)
    assert len(rest) == 2
    factor = first.images[0].get_size()[0] // 20
    np.testing.assert_array_equal(np.asarray(first.images[0].get_array())[::factor, ::factor], PICTURE)
    lefts = [axes.get_position().x0 for axes in (first, *rest)]
    assert lefts == sorted(lefts)
    assert [word for word in words(figure) if word.endswith("cam")] == ["cam", "eigen-cam"]


def test_each_map_says_method_target_score_and_layer() -> None:
    found = words(drawn(cam_panel(cam_map())))
    assert {"dog.jpg", "score-cam", "golden retriever  0.75", "layer4", "relative evidence"} <= set(found)
    assert "looks at no class" in words(drawn(cam_panel(cam_map(target="looks at no class", score=None))))


def test_a_long_label_is_cut_and_its_score_kept() -> None:
    found = words(drawn(cam_panel(cam_map(target="bald eagle, American eagle, Haliaeetus leucocephalus, a bird"))))
    line = next(word for word in found if word.startswith("bald eagle"))
    assert line.endswith("…  0.75")


def test_a_flat_map_is_the_plain_picture_with_words_on_it() -> None:
    problem = "flat map: no evidence"
    figure = drawn(cam_panel(cam_map(np.zeros((20, 30)), problem=problem)))
    original, flat = pictures(figure)
    np.testing.assert_array_equal(original.images[0].get_array(), flat.images[0].get_array())
    assert [text.get_text().replace("\n", " ") for text in flat.texts] == [problem]


def test_the_strongest_cell_is_marked_unless_it_lies_outside() -> None:
    inside = pictures(drawn(cam_panel(cam_map(peak=(12.0, 4.0)))))[1]
    assert [line.get_xydata().tolist() for line in inside.lines] == [[[12.0, 4.0]]]
    assert (inside.get_xlim(), inside.get_ylim()) == ((0, 30), (20, 0))
    assert not pictures(drawn(cam_panel(cam_map(peak=(12.0, -4.0)))))[1].lines


def test_boxes_are_outlined_on_every_picture() -> None:
    for axes in pictures(drawn(cam_panel(cam_map(), cam_map(), boxes=((3, 4, 13, 14),)))):
        (box,) = (patch for patch in axes.patches if isinstance(patch, Rectangle))
        assert box.get_bbox().extents.tolist() == [3, 4, 13, 14]


@pytest.mark.parametrize(("methods", "rows"), [(1, [1]), (4, [4]), (5, [3, 2]), (8, [4, 4]), (9, [3, 3, 3])])
def test_many_methods_take_rows_of_about_equal_length(methods: int, rows: list[int]) -> None:
    figure = drawn(cam_panel(*[cam_map() for _ in range(methods)]))
    tops = [round(axes.get_position().y1, 3) for axes in pictures(figure)[1:]]
    assert [tops.count(top) for top in sorted(set(tops), reverse=True)] == rows
    assert max(rows) <= ROW


def test_samples_stand_one_below_the_other() -> None:
    figure = drawn(cam_panel(cam_map(), source="a.jpg"), cam_panel(cam_map(), source="b.jpg"))
    first, _, second, _ = pictures(figure)
    assert first.get_position().y0 > second.get_position().y1
    assert {"a.jpg", "b.jpg"} <= set(words(figure))


def test_the_map_is_drawn_where_its_values_are() -> None:
    values = np.zeros((20, 30))
    values[4:8, 20:26] = 1
    image = np.asarray(pictures(drawn(cam_panel(cam_map(values)), alpha=1.0))[1].images[0].get_array())
    factor = image.shape[0] // 20
    table = style.lut(style.OVERLAY)
    assert image[int(6 * factor), int(23 * factor)].tolist() == table[255].tolist()
    assert image[int(16 * factor), int(5 * factor)].tolist() == table[0].tolist()


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (600, 400), (50, 400)])
def test_small_pictures_grow_and_large_ones_shrink(size: tuple[int, int]) -> None:
    picture = RNG.integers(0, 255, (*size, 3)).astype(np.uint8)
    figure = drawn(cam_panel(cam_map(RNG.random(size)), picture=picture))
    shown = pictures(figure)[0].images[0].get_size()
    assert 250 <= max(shown) <= 300
    assert shown[0] / shown[1] == pytest.approx(size[0] / size[1], rel=0.05)


def test_a_signal_is_a_line_on_a_strip_of_evidence() -> None:
    signal = RNG.standard_normal((2, 50))
    strip = cam_map(np.linspace(0, 1, 50))
    flat = cam_map(np.zeros(50), problem="flat map: no evidence")
    figure = drawn(cam_panel(strip, flat, picture=None, signal=signal))
    first, _, second = figure.axes
    np.testing.assert_array_equal(first.lines[1].get_ydata(), signal[1])
    colours = style.colourise(np.linspace(0, 1, 50), style.OVERLAY, 0, 1)
    shown = np.asarray(first.images[0].get_array())[0].astype(float)
    np.testing.assert_allclose(shown, colours / 2 + 127.5, atol=1)
    assert not second.images
    assert any(word.startswith("flat map") for word in words(figure))


@pytest.mark.parametrize("signed", [False, True])
def test_nothing_written_leaves_the_page(signed: bool) -> None:
    narrow = RNG.integers(0, 255, (300, 40, 3)).astype(np.uint8)
    long = cam_map(RNG.random((300, 40)), layer="/model/" + "x" * 200, target="y" * 200, method="z" * 60)
    flat = cam_map(np.zeros((300, 40)), problem="all-negative: no positive evidence; the signed view shows the rest")
    signal = cam_panel(cam_map(RNG.random(50)), picture=None, signal=RNG.standard_normal((1, 50)))
    note = "strongest outside the picture, in the letterbox bars: " + "method, " * 30
    figure = drawn(cam_panel(long, flat, picture=narrow, signed=signed, notes=(note,), source="s" * 300), signal)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    page = figure.bbox.padded(0.5)
    for text in figure.findobj(Text):
        if text.get_text():
            box = text.get_window_extent(canvas.get_renderer())
            assert page.contains(box.x0, box.y0), text.get_text()
            assert page.contains(box.x1, box.y1), text.get_text()


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_same_panel_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    panel = cam_panel(cam_map(peak=(3.0, 4.0)), cam_map(np.zeros((20, 30)), problem="flat map"), boxes=((1, 2, 3, 4),))
    for name in ("a", "b"):
        save(drawn(panel), tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    if suffix == ".png":
        with Image.open(tmp_path / "a.png") as image:
            assert len(image.convert("RGB").getcolors(1 << 24)) > 500
