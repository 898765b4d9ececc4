"""What the figures of a comparison show is what was found, for maps, vectors, tokens and what isn't finite."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from io import StringIO

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from onnx_inspect.analysis.closeup import Closeup, closeup
from onnx_inspect.analysis.comparison import Comparison, Limits, Pair, Suspect
from onnx_inspect.analysis.differences import OutputAgreement, difference
from onnx_inspect.graph.spatial import Spatial
from onnx_inspect.render import comparison as render
from onnx_inspect.render._save import drawn, png

RNG = np.random.default_rng(0)


def pair(name: str, noise: float, own: float) -> Pair:
    a = np.ones(100)
    apart, local = (difference(a, a + math.sqrt(share)) for share in (noise, own))
    return Pair(
        name, f"{name}_b", f"n_{name}", f"n_{name}_b", "Conv", "Conv", 0.98, "values", (1, 4, 5, 5), (), apart, local
    )


def comparison(pairs: tuple[Pair, ...], **more: object) -> Comparison:
    outputs = (OutputAgreement("y", "y", difference(np.ones(3), np.ones(3) * 1.1), 1.0, 0.8, 5, 0.9),)
    found = Comparison("some/a.onnx", "b.onnx", ("cat.png",), False, outputs, pairs, ("gone",), ("new",))
    return replace(found, **more)  # type: ignore[arg-type]


def test_the_table_names_layers_numbers_and_the_verdict() -> None:
    text = StringIO()
    guilty = Suspect("c2", "c2_b", "its weight differs", 0.01, 0.02)
    found = comparison((pair("c1", 0, 0), pair("c2", 0.01, 0.01)), suspects=(guilty,), offence="output 'y': far off")
    render.show(found, Console(file=text, width=100))
    out = text.getvalue()
    for words in ("c1_b", "equal", "20.0 dB", "of A only, or in doubt: gone", "culprit: c2 / c2_b: its weight differs"):
        assert words in out
    assert "they don't agree: output 'y': far off" in out


@pytest.mark.parametrize("count", [1, 27, 200])
def test_errors_are_drawn_along_depth_at_any_count(count: int) -> None:
    pairs = tuple(
        pair(f"a_rather_long_name_of_a_layer/conv{k}/output", 10.0**-k if k else 0, 1e-4) for k in range(count)
    )
    view = render.ComparisonView(comparison(pairs))
    figure = drawn(render, view)
    axes = figure.axes[0]
    whole = axes.lines[0].get_ydata()
    assert len(whole) == count
    if count > 3:
        assert whole[0] < whole[3]  # what is equal lies at the bottom
        assert whole[3] == pytest.approx(10**-1.5)
    names = [t.get_text() for t in figure.texts if t.get_rotation() == 90]
    assert 1 <= len(names) <= 70


def test_the_culprit_s_column_is_marked() -> None:
    pairs = tuple(pair(f"c{k}", 1e-3, 1e-3) for k in range(5))
    found = comparison(pairs, suspects=(Suspect("c3", "c3_b", "why", 1e-3, 1e-3),))
    figure = drawn(render, render.ComparisonView(found))
    (span,) = figure.axes[0].patches
    assert span.get_x() == 2.5 and span.get_width() == 1


look = partial(closeup, names=("a", "b"), what="worst", source="folder/cat.png", reading=None)


def looks() -> dict[str, Closeup]:
    maps = RNG.normal(size=(1, 6, 7, 11))
    broken = maps.copy()
    broken[0, 2, 0, 0] = np.nan
    tokens, row, pooled = maps.reshape(1, 66, 7), maps.reshape(1, -1), maps.reshape(1, 462, 1, 1)
    return {
        "maps": look(maps, maps + 0.1, what="culprit"),
        "one map": look(maps[:, :1], maps[:, :1] * 2),
        "NaN": look(maps, broken),
        "tokens": look(tokens, tokens * 1.1),
        "vector": look(row, row * 1.1),
        "pooled": look(pooled, pooled),
        "number": look(np.ones(1), np.zeros(1)),
        "volume": look(RNG.normal(size=(1, 2, 3, 4, 5)), np.zeros((1, 2, 3, 4, 5))),
    }


@pytest.mark.parametrize("kind", looks())
def test_close_ups_of_every_kind_are_drawn_whole(kind: str) -> None:
    view = render.ComparisonView(comparison((pair("c1", 1e-3, 1e-3),)), (looks()[kind],))
    figure = drawn(render, view)
    assert len(png(figure)) > 3000
    width, height = figure.get_size_inches()
    for axes in figure.axes:
        box = axes.get_position()
        assert box.x0 >= 0 and box.x1 <= 1.0001 and box.y0 >= -1e-6 and box.y1 <= 1, (width, height)


def test_the_worst_channel_comes_first_and_rows_keep_their_order() -> None:
    a = np.zeros((1, 5, 2, 2))
    b = a.copy()
    b[0, 3], b[0, 1, 0, 0] = 1, 5
    found = look(a, b)
    assert found.numbers[:2] == (1, 3) and found.total == 5
    last = look(a.transpose(0, 2, 3, 1), b.transpose(0, 2, 3, 1), reading=Spatial("channels-last", (2, 2)))
    assert last.numbers[:2] == (1, 3)


def test_two_close_ups_stand_side_by_side_where_there_is_room() -> None:
    few = render.ComparisonView(comparison((pair("c1", 1e-3, 1e-3),)), (looks()["maps"], looks()["one map"]))
    many = render.ComparisonView(
        comparison(tuple(pair(f"c{k}", 1e-3, 1e-3) for k in range(80))), (looks()["maps"], looks()["one map"])
    )
    assert render.figure_size(few)[1] > render.figure_size(many)[1]
    assert isinstance(drawn(render, many), Figure)


def test_a_comparison_without_a_matched_layer_still_has_a_figure() -> None:
    figure = drawn(render, render.ComparisonView(comparison(())))
    assert any("0 tensors matched" in t.get_text() for t in figure.texts)
    assert render.verdict(comparison((), limits=Limits(max_flips=0))) == "they agree within the limits"
