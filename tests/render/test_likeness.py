"""The heat map of CKA shows the matrix, the path through it and every name that has room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from onnx_inspect.analysis import cka as analysis
from onnx_inspect.render import _save, cka
from onnx_inspect.render import _style as style


def view(rows: int, columns: int, *, name: str = "layer", still: bool = False) -> cka.LikenessView:
    rng = np.random.default_rng(0)
    layers = [rng.normal(0, 1, (12, 6)) for _ in range(rows + columns)]
    if still:
        layers[0][:] = 1.0
    sums = analysis.Sums(rows, columns)
    kernels = [analysis.gram(x) for x in layers]
    sums.add(kernels[:rows], kernels[rows:])
    names = [f"{name}_{i}" for i in range(rows + columns)]
    return cka.LikenessView("teacher.onnx", "student.onnx", sums.likeness(names[:rows], names[rows:]))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [t.get_text() for t in figure.texts]


def test_colours_are_the_matrix_and_the_line_is_the_path() -> None:
    shown = view(5, 7)
    figure = _save.drawn(cka, shown)
    image = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_array_equal(image, style.colourise(shown.likeness.values, style.SEQUENTIAL, 0, 1))
    line = figure.axes[0].lines[0].get_xydata()
    assert line is not None
    assert [tuple(p) for p in np.asarray(line).astype(int)] == [(j, i) for i, j in enumerate(shown.likeness.path)]
    assert {"layer_0", "layer_11"} <= set(texts(figure))


def test_many_layers_keep_names_apart_and_long_names_are_shortened() -> None:
    many = _save.drawn(cka, view(120, 90))
    rows = [t for t in many.texts if t.get_horizontalalignment() == "right"]
    places = sorted(t.get_position()[1] * many.get_figheight() for t in rows)
    assert min(np.diff(places)) >= style.line_height(style.SMALL) - 1e-6
    long = _save.drawn(cka, view(3, 3, name="model/encoder/block/attention/projection/output" * 3))
    assert (
        max(
            style.text_width(t.get_text(), size=style.SMALL)
            for t in long.texts
            if t.get_horizontalalignment() == "right"
        )
        < 2.3
    )


def test_layers_without_likeness_are_marked_and_said() -> None:
    figure = _save.drawn(cka, view(3, 2, still=True))
    image = np.asarray(figure.axes[0].images[0].get_array())
    assert (image[0] == style.BAD).all()
    assert any("says the same of every input" in text for text in texts(figure))


def test_the_file_is_not_blank(tmp_path: Path) -> None:
    _save.save(_save.drawn(cka, view(1, 1)), tmp_path / "one.png")
    assert np.asarray(Image.open(tmp_path / "one.png").convert("L")).std() > 10
