"""A sheet shows each channel's crops, values and classes; nothing stands beyond the page or on something else."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import numpy as np
import pytest

from onnx_inspect.analysis.channels import Channels, Crop, Tally
from onnx_inspect.analysis.concepts import Concepts
from onnx_inspect.render import channels as render
from onnx_inspect.render._save import drawn

LONG = "/a/very/long/module/path/of/a/transformer/encoder/layer.11/attention/output/Relu_"


def made(count: int = 5, top: int = 4, classes: int = 3, name: str = "layer", pixels: str = "picture") -> Channels:
    rng = np.random.default_rng(0)
    maps = np.maximum(rng.normal(size=(30, count, 6)), 0).astype(np.float32)
    maps[:, -1] = 0
    tally = Tally(count, top)
    labels = np.arange(30) % classes if classes else np.full(30, -1)
    tally.add(maps, labels, np.arange(30))
    crops = {}
    for k in range(count - 1):
        for rank in range(top if pixels != "none" else 0):
            shape = (40, 84, 3) if rank % 2 else (2, 1, 3)
            array = rng.integers(0, 255, shape).astype(np.uint8) if pixels == "picture" else rng.normal(size=50)
            crops[k, rank] = Crop(array, (0.0, 0.0, 5.0, 5.0))
    return tally.result(
        layer=name,
        model="models/net.onnx",
        by="class" if classes else "",
        names=tuple(f"class with a long name {n}" for n in range(classes)) or None,
        labels=labels,
        sources=tuple(f"folder/picture_{n}.png" for n in range(30)),
        fields=np.array([[[0, 5], [0, 5]]], np.int32),
        plane=(32, 32),
        crops=crops,
    )


@pytest.mark.parametrize(
    ("pixels", "count", "top", "classes", "name"),
    [("none", 1, 1, 0, "a"), ("signal", 3, 4, 3, LONG), ("picture", 4, 12, 40, LONG), ("picture", 16, 1, 1, "a")],
)
def test_nothing_stands_beyond_the_page(pixels: str, count: int, top: int, classes: int, name: str) -> None:
    figure = drawn(render, render.Sheet(made(count, top, classes, name, pixels), tuple(range(count))))
    figure.canvas.draw()
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 + 1, text.get_text()
        assert box.y0 >= 0 and box.y1 <= figure.bbox.y1 + 1, text.get_text()
    for axes in figure.axes:
        assert axes.get_window_extent().x1 <= figure.bbox.x1


def test_each_crop_has_its_value_and_class_under_it() -> None:
    found = made()
    words = [t.get_text() for t in drawn(render, render.Sheet(found, (1,))).texts]
    assert "channel 1" in words
    for value in found.values[1]:
        assert any(word == f"{value:.3g}" for word in words)
    assert sum(word.startswith("class with") for word in words) == 4 + 3  # crops and bars


def test_bars_are_the_class_means() -> None:
    found = made()
    axes = drawn(render, render.Sheet(found, (0,))).axes[-1]
    means = np.sort(found.means[:, 0])[::-1]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], means / means[0])


def test_dead_channels_and_duplicates_are_named() -> None:
    words = " ".join(t.get_text() for t in drawn(render, render.Sheet(made(), (0, 4))).texts)
    assert "1 dead, always the same: 4" in words
    assert "dead: always 0" in words


def test_concepts_show_what_they_decide() -> None:
    found = made()
    share = np.full(5, 0.2)
    importance = np.zeros((3, 5))
    importance[2] = 0.75
    concepts = Concepts(np.eye(5, dtype=np.float32), share, 0.9, found, importance, "share in the class score (Sobol)")
    figure = drawn(render, render.Sheet(found, (0,), concepts=concepts))
    words = [t.get_text() for t in figure.texts]
    assert "share in the class score (Sobol)" in words and "0.75" in words and "20.0% of all" in words
    assert any("5 concepts by NMF of 5 channels explain 90%" in word for word in words)


def test_the_table_names_the_preferred_class() -> None:
    out = io.StringIO()
    with redirect_stdout(out):
        render.show(made(), [0, 4])
    assert "class with a long name" in out.getvalue() and "dead" in out.getvalue()
