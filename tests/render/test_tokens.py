"""Whether coloured text can be read: lines that fit, colours that say the sign, everything on the page."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from onnx_inspect.analysis.token_saliency import TokenMap, TokenPanel
from onnx_inspect.render import _style as style
from onnx_inspect.render import _tokens as setting
from onnx_inspect.render import tokens as render


def panel(pieces: list[str], values: list[float], *, glued: list[bool] | None = None, count: int = 1) -> TokenPanel:
    maps = tuple(
        TokenMap(f"method-{i}", "good", 0.9, np.array(values, np.float32), (("a", 1.0),), (("b", -1.0),))
        for i in range(count)
    )
    many = len(pieces)
    asked = tuple(not piece.startswith("[") for piece in pieces)
    return TokenPanel("a text", tuple(pieces), tuple(glued or [False] * many), asked, maps, ("hidden so",))


def drawn(panels: list[TokenPanel]) -> Figure:
    figure = Figure(figsize=render.figure_size(panels), dpi=style.DPI)
    FigureCanvasAgg(figure)
    render.draw(panels, figure)
    figure.canvas.draw()
    return figure


def assert_inside(figure: Figure) -> None:
    width, height = figure.get_size_inches() * style.DPI
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0, text.get_text()
        assert box.y0 >= 0, text.get_text()
        assert box.x1 <= width, text.get_text()
        assert box.y1 <= height, text.get_text()


WORDS = "the food was not good but we loved the music ##s 😀 東京".split()


@pytest.mark.parametrize("count", [1, 5, 128, 512])
def test_texts_of_any_length_are_wrapped_and_stay_on_the_page(count: int) -> None:
    pieces = ["[CLS]", *(WORDS[i % len(WORDS)] for i in range(count)), "[SEP]"]
    figure = drawn([panel(pieces, np.linspace(-1, 1, len(pieces)).tolist(), count=2)])
    assert_inside(figure)
    places, lines = setting.lay(pieces, [False] * len(pieces), render.LINE)
    assert max(place.left + place.width for place in places) <= render.LINE
    assert lines == places[-1].line + 1
    for one, other in pairwise(places):
        assert other.line > one.line or other.left >= one.left + one.width  # no token lies on another


def test_tokens_of_a_word_stay_together_unless_they_fill_a_line() -> None:
    pieces = ["word"] * 12 + ["un", "believ", "able"]
    glued = [False] * 13 + [True, True]
    for width in np.linspace(2, 7, 26):
        places, _ = setting.lay(pieces, glued, float(width))
        assert len({place.line for place in places[-3:]}) == 1
        assert places[-2].left == pytest.approx(places[-3].left + places[-3].width)
    places, lines = setting.lay(["x" * 20] * 8, [False, *[True] * 7], 2.0)
    assert lines > 1
    assert max(place.left + place.width for place in places) <= 2.0 + 1e-9


def test_a_word_longer_than_a_line_is_shortened() -> None:
    places, lines = setting.lay(["x" * 400], [False], 3.0)
    assert lines == 1
    assert places[0].width <= 3.0
    assert places[0].text.endswith("…")


def test_red_speaks_for_blue_against_and_no_text_gets_no_colour() -> None:
    figure = drawn([panel(["[CLS]", "good", "bad", "so", "[SEP]"], [0, 2.0, -2.0, 0.0, 0])])
    grounds = next(a for a in figure.findobj(PolyCollection) if len(a.get_facecolor()) == 3)
    good, bad, so = (colour[:3] for colour in grounds.get_facecolor())
    assert good[0] > good[2] + 0.2
    assert bad[2] > bad[0] + 0.2
    assert min(so) > 0.95
    faint = {t.get_text(): to_rgb(t.get_color()) for t in figure.texts}
    assert faint["[CLS]"] == to_rgb(style.FAINT)


@pytest.mark.parametrize("name", [style.DIVERGING, render.AMOUNT])
def test_type_can_be_read_on_every_colour(name: str) -> None:
    def luminance(colour: object) -> float:
        rgb = np.asarray(to_rgb(colour) if isinstance(colour, str) else np.asarray(colour) / 255)
        linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    for colour in style.lut(name):
        pair = sorted([luminance(colour), luminance(setting.contrasting(colour))])
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 3.5, colour  # WCAG asks 3 of large type, 4.5 of small


def test_what_moves_nothing_is_said_instead_of_coloured() -> None:
    flat = TokenMap("occlusion", "good", 0.5, np.zeros(2, np.float32), problem="no token moves the score")
    figure = drawn([TokenPanel("t", ("a", "b"), (False, False), (True, True), (flat,))])
    assert any("no token moves the score" in t.get_text() for t in figure.texts)
    assert not figure.findobj(PolyCollection)


def test_amounts_have_one_colour_and_no_against() -> None:
    one = TokenMap("head 0", "", None, np.array([0.9, 0.1], np.float32), pro=(("a", 0.9),))
    figure = drawn([TokenPanel("t", ("a", "b"), (False, False), (True, True), (one,), signed=False)])
    said = [t.get_text() for t in figure.texts]
    assert "most: a 0.9" in said
    assert not any("against" in t for t in said)
    assert_inside(figure)
