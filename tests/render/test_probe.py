"""The curve shows each layer's accuracy, chance, and the model's own; names stay on the page."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from itertools import pairwise

import numpy as np
import pytest

from onnx_inspect.analysis.probe import LayerProbe, Probes
from onnx_inspect.render import probe as render
from onnx_inspect.render._save import drawn


def made(count: int = 5, own: float = 0.93, name: str = "layer") -> Probes:
    layers = tuple(
        LayerProbe(f"{name}{n}", 64, 64, (0.2 + 0.7 * n / count, 0.25 + 0.7 * n / count)) for n in range(count)
    )
    return Probes(layers, 0.1, own, "logistic", "mean", "models/net.onnx", 500, 10, 5, 0, ())


def test_the_curve_is_the_accuracies() -> None:
    result = made()
    line = drawn(render, result).axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), [one.accuracy for one in result.layers])


def test_chance_and_the_models_own_are_lines() -> None:
    flat = [line.get_ydata()[0] for line in drawn(render, made()).axes[0].lines if len(set(line.get_ydata())) == 1]
    assert {0.1, 0.93} <= set(flat)
    without = drawn(render, made(own=float("nan")))
    assert not any("model itself" in text.get_text() for text in without.axes[0].texts)


@pytest.mark.parametrize("count", [1, 2, 30])
@pytest.mark.parametrize(
    "name", ["a", "/a/very/long/module/path/of/a/transformer/encoder/layer.11/attention/output/Add_"]
)
def test_nothing_stands_beyond_the_page(count: int, name: str) -> None:
    figure = drawn(render, made(count, name=name))
    figure.canvas.draw()
    for text in (*figure.texts, *figure.axes[0].texts):
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, text.get_text()
        assert box.y0 >= 0 and box.y1 <= figure.bbox.y1, text.get_text()


def test_levels_that_meet_are_named_apart() -> None:
    figure = drawn(render, made(own=0.9))
    figure.canvas.draw()
    boxes = sorted((t.get_window_extent() for t in figure.axes[0].texts if t.get_text()[-1] == "%"), key=lambda b: b.y0)
    beside = [box for box in boxes if box.x0 > figure.axes[0].get_window_extent().x1]
    assert len(beside) == 3
    assert all(low.y1 <= high.y0 + 2 for low, high in pairwise(beside))


def test_the_table_says_the_same() -> None:
    out = io.StringIO()
    with redirect_stdout(out):
        render.show(made())
    assert "layer4" in out.getvalue() and "chance" in out.getvalue() and "93.0%" in out.getvalue()
