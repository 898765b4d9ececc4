"""Whether views of attention fit their page, show every head, and put what is strong where it belongs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from onnx_inspect.analysis.attention_views import HeadMatrix, ModelHeads, Thumbnail, TokenHeads, distinct
from onnx_inspect.render import _style as style
from onnx_inspect.render import attention_heads as heads
from onnx_inspect.render import attention_matrix as matrix
from onnx_inspect.render import attention_model as model
from onnx_inspect.render import attention_table as table

WORDS = ("the", "cat", "sat", "##ting", "extraordinarily-long-token-that-never-ends", "東京", "😀", "$x_1$")
RNG = np.random.default_rng(0)


def probabilities(*shape: int) -> Any:
    raw = RNG.exponential(1, shape) ** 3
    return (raw / raw.sum(axis=-1, keepdims=True)).astype(np.float32)


def view(tokens: int, count: int, query: int | None = None, keys: int | None = None) -> TokenHeads:
    rows = tuple(WORDS[i % len(WORDS)] for i in range(tokens))
    columns = rows if keys is None else tuple(map(str, range(keys)))
    values = probabilities(count, tokens, len(columns))
    own = [HeadMatrix(f"head {i}", v, "diagonal" if i == 0 else "") for i, v in enumerate(values)]
    if count > 1:
        own.append(HeadMatrix(f"mean of {count} heads", values.mean(axis=0)))
    return TokenHeads(
        "a sentence", "/bert/layer.5/attention/Softmax", tuple(own), rows, columns, (True,) * len(columns), query
    )


def drawn(renderer: Any, seen: Sequence[Any]) -> Figure:
    figure = Figure(figsize=renderer.figure_size(seen), dpi=style.DPI)
    FigureCanvasAgg(figure)
    renderer.draw(seen, figure)
    figure.canvas.draw()
    return figure


def texts(figure: Figure) -> list[Text]:
    found = [*figure.texts, *(t for axes in figure.axes for t in axes.findobj(Text))]
    return [t for t in found if isinstance(t, Text) and t.get_visible() and t.get_text().strip()]


def assert_inside(figure: Figure) -> None:
    width, height = figure.get_size_inches() * style.DPI
    for text in texts(figure):
        box = text.get_window_extent()
        assert box.x0 >= -1 and box.y0 >= -1, text.get_text()
        assert box.x1 <= width + 1 and box.y1 <= height + 1, text.get_text()


SHAPES = [(1, 1, None), (5, 1, None), (5, 12, None), (24, 2, 3), (6, 3, None), (60, 1, None)]


@pytest.mark.parametrize(("tokens", "count", "query"), SHAPES)
@pytest.mark.parametrize("renderer", [matrix, heads])
def test_every_head_is_drawn_and_all_type_stays_on_the_page(
    renderer: Any, tokens: int, count: int, query: int | None
) -> None:
    figure = drawn(renderer, [view(tokens, count, query)])
    said = [t.get_text() for t in figure.texts]
    for number in range(count):
        assert any(t.startswith(f"head {number}") for t in said)
    assert any("diagonal" in t for t in said)
    assert_inside(figure)


@pytest.mark.parametrize("keys", [3, 40])
def test_attention_across_two_sequences_has_both_lengths(keys: int) -> None:
    for renderer in (matrix, heads):
        assert_inside(drawn(renderer, [view(6, 2, keys=keys)]))


def test_labels_thin_out_before_they_overlap() -> None:
    for tokens in (10, 90, 500):
        axes = drawn(matrix, [view(tokens, 1)]).axes[0]
        boxes = sorted(label.get_window_extent().y0 for label in axes.get_yticklabels())
        assert min(np.diff(boxes)) > style.SMALL * 0.9  # pixels of paper at 120 dpi against points: lines don't touch
    assert len(axes.get_yticklabels()) <= 90


def lines(figure: Figure) -> LineCollection:
    return next(c for axes in figure.axes for c in axes.collections if isinstance(c, LineCollection))


def test_a_line_is_as_strong_as_its_attention_and_runs_from_query_to_key() -> None:
    values = np.array([[0.98, 0.01, 0.01], [0.3, 0.3, 0.4], [0.0, 0.0, 1.0]], np.float32)
    seen = TokenHeads("s", "l", (HeadMatrix("head 0", values),), ("a", "b", "c"), ("a", "b", "c"), (False,) * 3)
    found = lines(drawn(heads, [seen]))
    ends = [(round(s[0][1] - 0.5), round(s[1][1] - 0.5)) for s in found.get_segments()]
    assert sorted(ends) == [(0, 0), (1, 0), (1, 1), (1, 2), (2, 2)]  # below 0.03 there is none
    strength = dict(zip(ends, np.asarray(found.get_alpha()), strict=True))
    assert strength[2, 2] == 1
    assert strength[1, 2] > strength[1, 0]
    asked = lines(drawn(heads, [replace(seen, query=1)]))
    assert len(asked.get_segments()) == 3


def test_long_texts_leave_lines_to_a_few_heads() -> None:
    few = view(12, 12)
    assert heads.shortened(few) is few
    short = heads.shortened(view(100, 12))
    assert short is not None
    assert [h.head for h in short.heads] == ["mean of 12 heads"]
    assert "choose some with --head" in short.notes[-1]
    assert heads.shortened(view(400, 1)) is None


@pytest.mark.parametrize("shape", [(30, 30), (4, 14), (400, 400), (8, 3)])
@pytest.mark.parametrize(("layers", "count"), [(1, 2), (12, 12), (3, 1)])
def test_the_whole_model_has_a_thumbnail_for_each_head(shape: tuple[int, int], layers: int, count: int) -> None:
    names = ("", "even", "diagonal", "previous")
    rows = tuple(
        tuple(Thumbnail(v, str(i), names[i % 4]) for i, v in enumerate(probabilities(count, *shape)))
        for _ in range(layers)
    )
    seen = ModelHeads("photo", tuple(f"layer.{i}" for i in range(layers)), rows, "from each token", ("own scale",))
    figure = drawn(model, [seen])
    assert len(figure.axes) == layers
    assert sum(t.get_text().startswith("0") and "layer" not in t.get_text() for t in figure.texts) == layers
    assert_inside(figure)
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
    assert pixels.std() > 20  # not blank


def test_what_no_key_tells_is_grey_and_not_an_alarm() -> None:
    values = np.full((4, 4), np.nan, np.float32)
    values[0, 0] = 0.5
    picture = model._picture(Thumbnail(values, "0", ""), (8, 8))
    assert picture[-1, -1].tolist() == list(model.UNKNOWN)
    assert picture[0, 0].tolist() == style.lut(style.SEQUENTIAL)[255].tolist()


def test_layers_are_told_apart_by_what_differs() -> None:
    assert distinct(["/a/0/attn/Softmax", "/a/1/attn/Softmax"]) == ("0", "1")
    assert distinct(["softmax", "softmax_1"]) == ("softmax", "softmax_1")
    assert distinct(["/a/Softmax", "/b/c/Softmax"]) == ("/a/Softmax", "/b/c/Softmax")
    assert distinct(["only/one"]) == ("only/one",)


def test_ranges_in_the_table_leave_nan_out() -> None:
    assert table._range([0.5]) == "0.50"
    assert table._range([0.25, float("nan"), 1.0]) == "0.25–1.00"
    assert table._range([float("nan")]) == "-"


@pytest.mark.parametrize("renderer", [matrix, heads])
def test_two_texts_share_a_page(renderer: Callable[..., Any]) -> None:
    assert_inside(drawn(renderer, [view(5, 2), view(9, 1)]))
