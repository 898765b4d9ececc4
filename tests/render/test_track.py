"""A run's figures show its numbers, keep names apart, and its GIF says which checkpoint a frame is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from onnx_inspect.analysis.checkpoints import in_order
from onnx_inspect.analysis.statistics import LayerStatistics
from onnx_inspect.analysis.strip import Strip, of_channel
from onnx_inspect.analysis.track import Embeddings, LayerTrack, Predictions, Row, Track, WeightTrack, table
from onnx_inspect.render import _save, clouds, strip, track, track_layers
from onnx_inspect.render import _style as style

RNG = np.random.default_rng(0)


def rows(count: int) -> Row:
    return tuple(float(v) for v in RNG.random(count))


def made(steps: int, layers: int, samples: int, name: str = "conv") -> Track:
    statistics = LayerStatistics(
        name, "Relu", (samples, 8), "float32", 0.1, 1.5, 0.0, 2.0, 0.3, 8, (1,), (), None, 0, 0
    )
    return Track(
        steps=in_order([f"run/net_step{1000 * i}.onnx" for i in range(steps)]),
        sources=tuple(map(str, range(samples))),
        weights=tuple(WeightTrack(f"{name}{i}", (3, 3), *(rows(steps) for _ in range(7))) for i in range(layers)),
        layers=tuple(
            LayerTrack(f"{name}{i}", "Relu", (statistics,) * steps, rows(steps), rows(steps)) for i in range(layers)
        ),
        predictions=Predictions(RNG.integers(0, 13, (steps, samples)), RNG.random((steps, samples)), None),
        embeddings=Embeddings("pool", RNG.normal(0, 1, (steps, samples, 2)), *((0.5,) * steps,) * 3),
    )


def strip_of(count: int, size: tuple[int, int] = (4, 6)) -> Strip:
    picture = RNG.integers(0, 255, (20, 30, 3), np.uint8)
    return of_channel(
        "layer", 3, RNG.normal(0, 1, (count, *size)), "a.jpg", [f"epoch{i}" for i in range(count)], picture
    )


def gap(figure: Figure, horizontal: bool) -> float:
    """Smallest distance in inches of texts that stand in one line, by their centres."""
    size = figure.get_figwidth() if horizontal else figure.get_figheight()
    lines: dict[float, list[float]] = {}
    for text in figure.texts:
        x, y = text.get_position()
        lines.setdefault(round(float(y if horizontal else x), 4), []).append(float(x if horizontal else y) * size)
    return min(float(np.diff(sorted(line)).min()) for line in lines.values() if len(line) > 3)


def test_heat_maps_are_the_numbers() -> None:
    run = made(5, 4, 6)
    figure = _save.drawn(track_layers, run)
    expected = style.colourise(table([la.cka_first for la in run.layers]), style.SEQUENTIAL, 0, 1)
    np.testing.assert_array_equal(np.asarray(figure.axes[0].images[0].get_array()), expected)


def test_curves_are_the_numbers_and_legends_lie_outside() -> None:
    run = made(5, 3, 6)
    figure = _save.drawn(track, run)
    canvas: Any = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    drawn = [
        np.asarray(line.get_ydata(), float)
        for line in figure.axes[0].lines
        if len(np.atleast_1d(line.get_ydata())) == 5
    ]
    np.testing.assert_allclose(drawn, table([w.from_first for w in run.weights]))
    for axes in figure.axes:
        if (legend := axes.get_legend()) is not None:
            box = legend.get_window_extent(renderer)
            assert box.x0 >= axes.get_window_extent().x1
            assert box.x1 <= figure.bbox.x1


@pytest.mark.parametrize(("steps", "layers"), [(2, 1), (60, 90), (300, 3)])
def test_names_keep_apart_however_many_there_are(steps: int, layers: int) -> None:
    run = made(steps, layers, 5, name="/encoder/layer/attention/output/dense" if layers > 50 else "conv")
    for renderer in (track, track_layers):
        figure = _save.drawn(renderer, run)
        if steps > 10:
            assert gap(figure, horizontal=True) >= style.line_height(style.SMALL) - 1e-6
        if layers > 50 and renderer is track_layers:
            assert gap(figure, horizontal=False) >= style.line_height(style.SMALL) - 0.01
    assert _save.drawn(clouds, run).axes


def test_a_gif_has_a_legible_banner_and_the_colours_of_its_frames(tmp_path: Path) -> None:
    one = strip_of(3)
    strip.save_gif(one, tmp_path / "a.gif")
    banners, bodies = [], []
    with Image.open(tmp_path / "a.gif") as image:
        for frame in range(3):
            image.seek(frame)
            pixels = np.asarray(image.convert("RGB")).astype(int)
            banners.append(pixels[: strip.BANNER - 4])
            bodies.append(pixels[strip.BANNER :])
    assert all(banner.min() < 80 and (banner == 255).mean() > 0.7 for banner in banners)  # dark letters on white
    assert (banners[0] != banners[1]).any()
    assert (banners[1] != banners[2]).any()
    for body, colours in zip(bodies, strip.frames(one), strict=True):
        cell = body.shape[0] // colours.shape[0], body.shape[1] // colours.shape[1]
        centres = body[cell[0] // 2 :: cell[0], cell[1] // 2 :: cell[1]][: colours.shape[0], : colours.shape[1]]
        assert np.abs(centres - colours).max() <= 16  # a palette of 256 colours for all frames


@pytest.mark.parametrize(("count", "size"), [(1, (4, 6)), (16, (30, 8)), (3, (1, 40))])
def test_strips_of_many_and_of_signals_are_drawn(count: int, size: tuple[int, int], tmp_path: Path) -> None:
    one = strip_of(count, size)
    figure = _save.drawn(strip, one)
    assert {f"epoch{i}" for i in range(count)} <= {text.get_text() for text in figure.texts}
    _save.save(figure, tmp_path / "a.png")
    assert np.asarray(Image.open(tmp_path / "a.png").convert("L")).std() > 5


def test_all_frames_of_a_channel_share_one_scale() -> None:
    maps = np.stack([np.full((2, 2), 1.0), np.full((2, 2), 3.0)]).astype(np.float32)
    maps[0, 0, 0] = 0
    found = strip.frames(of_channel("layer", 0, maps, "a", ["x", "y"], None))
    np.testing.assert_array_equal(found[1][0, 0], style.lut(style.SEQUENTIAL)[255])
    np.testing.assert_array_equal(found[0][0, 0], style.lut(style.SEQUENTIAL)[0])
    assert (found[0][1, 1] == style.lut(style.SEQUENTIAL)[85]).all()
