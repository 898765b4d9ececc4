"""Figures of weights: every number has its colour at its place, and what is left out is said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from numpy.typing import NDArray

from onnx_inspect.analysis.weights import WeightView, view
from onnx_inspect.graph.model import Layer, TensorSpec
from onnx_inspect.graph.read import read
from onnx_inspect.graph.weights import LayerWeight, layer_weights
from onnx_inspect.render import _style as style
from onnx_inspect.render import weights as render
from onnx_inspect.render._save import save
from onnx_inspect.render._weight_image import GAP, HIGH, SIDE, WIDE, Picture, compose, extremes, reach

ROOT = Path(__file__).parents[2]
REAL = ROOT / "../shared/real/models"
RNG = np.random.default_rng(5)
LAYER = Layer("layer4.1.conv2", "Conv", TensorSpec("y", "float32", None), 3)


def seen(values: Any, kind: str = "conv", role: str = "weight", colour: str = "RGB", **more: Any) -> WeightView:
    array = np.asarray(values, np.float32)
    return view(
        LayerWeight(LAYER, "w", role, kind, array.shape, "float32", False, lambda: array, **more), colour=colour
    )


def normal(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


def drawn(shown: WeightView) -> Figure:
    figure = Figure(figsize=render.figure_size(shown))
    render.draw(shown, figure)
    return figure


def texts(figure: Figure) -> str:
    return "\n".join([t.get_text() for t in figure.texts])


def colour(shown: WeightView, value: float) -> NDArray[np.uint8]:
    limit = reach(shown)
    return style.colourise(np.array([value]), style.DIVERGING, -limit, limit)[0]


def cells(picture: Picture, rows: int, columns: int) -> NDArray[np.uint8]:
    """Middle pixels of `rows` x `columns` equal cells that fill the image without gaps."""
    height, width = picture.image.shape[0] // rows, picture.image.shape[1] // columns
    return picture.image[height // 2 :: height, width // 2 :: width][:rows, :columns]


# Every number at its place


def test_each_tap_of_each_filter_has_its_colour() -> None:
    """Rows are output channels, columns input channels: never a first slice only."""
    shown = seen(normal(5, 4, 3, 2))
    picture = compose(shown)
    down, across = (
        [(b - a) for a, b in zip([p for p, _ in picture.y_ticks], [p for p, _ in picture.y_ticks][1:], strict=False)],
        picture.x_ticks,
    )
    step_y, step_x = down[0], across[1][0] - across[0][0]
    factor = int(min((step_y - 1) // 3, (step_x - 1) // 2))
    for out in range(5):
        for channel in range(4):
            for y in range(3):
                for x in range(2):
                    pixel = picture.image[
                        int(out * step_y + (y + 0.5) * factor), int(channel * step_x + (x + 0.5) * factor)
                    ]
                    np.testing.assert_array_equal(pixel, colour(shown, shown.values[out, channel, y, x]))
    assert picture.says == "all 5 output channels × all 4 input channels"


@pytest.mark.parametrize(
    ("shape", "kind", "more"),
    [
        ((6, 4, 3, 3), "conv", {}),
        ((6, 3, 3, 3), "conv", {}),
        ((6, 1, 3, 3), "conv", {"groups": 6}),
        ((6, 2, 3, 3), "conv", {"groups": 3}),
        ((6, 4, 1, 1), "conv", {}),
        ((6, 4, 5), "conv", {}),
        ((6, 1, 5), "conv", {}),
        ((4, 2, 3, 3, 3), "conv", {}),
        ((6, 9), "matrix", {}),
        ((3, 6, 9), "matrix", {}),
        ((8, 5), "embedding", {}),
        ((4, 5, 3), "recurrent", {"parts": ("input gate", "output gate", "forget gate", "cell gate")}),
    ],
)
def test_changing_any_number_changes_the_picture(shape: tuple[int, ...], kind: str, more: dict[str, Any]) -> None:
    values = RNG.uniform(-1, 1, shape).astype(np.float32)
    values.ravel()[:2] = 1, -1  # the scale stays
    before = compose(seen(values, kind, **more)).image
    for at in range(2, values.size, max(1, values.size // 60)):
        changed = values.copy()
        changed.ravel()[at] = -changed.ravel()[at] - 0.3 * np.sign(changed.ravel()[at])
        changed = changed.clip(-1, 1)
        after = compose(seen(changed, kind, **more)).image
        assert after.shape == before.shape
        assert (after != before).any(), np.unravel_index(at, shape)


def test_matrices_are_heat_maps_with_a_row_per_output() -> None:
    shown = seen(normal(7, 11), "matrix")
    got = cells(compose(shown), 7, 11)
    for row in range(7):
        for column in range(11):
            np.testing.assert_array_equal(got[row, column], colour(shown, shown.values[row, column]))


def test_three_channels_become_red_green_and_blue() -> None:
    values = np.zeros((3, 3, 1, 2), np.float32)
    values[0, 0], values[1, 1], values[2, 2] = 2, -2, 1
    picture = compose(seen(values))
    shown = {tuple(int(c) for c in pixel) for pixel in picture.image.reshape(-1, 3)}
    grey = 128
    assert {(255, grey, grey), (grey, 0, grey), (grey, grey, 191)} <= shown
    assert picture.coloured
    assert "input channels 0, 1, 2 as red, green, blue: mid-grey is 0, full colour ±2" in picture.says


def test_bgr_layers_show_their_last_channel_red() -> None:
    values = np.zeros((1, 3, 2, 2), np.float32)
    values[0, 0] = 1  # blue
    picture = compose(seen(values, colour="BGR"))
    np.testing.assert_array_equal(picture.image[0, 0], (128, 128, 255))
    assert "input channels 2, 1, 0" in picture.says


def test_depthwise_filters_of_uneven_strength_get_scales_of_their_own() -> None:
    values = normal(9, 1, 3, 3)
    values[4] *= 50
    picture = compose(seen(values, groups=9))
    assert picture.own
    assert "all 9 depthwise filters; each on its own scale, largest magnitudes from" in picture.says
    assert not compose(seen(np.ones((9, 1, 3, 3)), groups=9)).own
    bar = drawn(seen(values, groups=9)).axes[1]
    assert [label.get_text() for label in bar.get_yticklabels()] == ["−max", "0", "max"]


def test_gates_stand_apart_under_their_names() -> None:
    parts = ("input gate", "output gate", "forget gate", "cell gate")
    picture = compose(seen(normal(4, 8, 5), "recurrent", parts=parts))
    assert tuple(text for _, _, text in picture.titles) == parts
    assert "all 4 matrices of 8 × 5" in picture.says


def test_recurrent_biases_have_a_named_row_per_gate() -> None:
    picture = compose(seen(normal(3, 8), "recurrent", "bias", parts=("a", "b", "c")))
    assert [text for _, text in picture.y_ticks] == ["a", "b", "c"]


def test_slices_of_a_volume_stand_in_a_row() -> None:
    shown = seen(normal(2, 3, 4, 3, 3))
    picture = compose(shown)
    assert picture.says == "all 2 output channels × all 3 input channels, each as 4 slices along the depth"
    for value in shown.values.ravel()[::7]:
        assert (picture.image == colour(shown, value)).all(-1).any()


# What is left out


def test_of_too_many_filters_the_strongest_are_shown_and_the_others_counted() -> None:
    values = normal(200, 100, 3, 3)
    values[150] *= 3
    values[:, 77] *= 3
    picture = compose(seen(values))
    assert f"the {SIDE} strongest of 200 output channels by L2 norm, {200 - SIDE} hidden" in picture.says
    assert f"the {SIDE} strongest of 100 input channels by L2 norm, {100 - SIDE} hidden" in picture.says
    assert picture.y_ticks[0][1] == "150"
    assert picture.x_ticks[0][1] == "77"


def test_a_large_matrix_shows_the_largest_magnitude_of_each_block() -> None:
    values = np.zeros((2000, 1500), np.float32)
    values[1234, 777] = -5
    shown = seen(values, "matrix")
    picture = compose(shown)
    assert picture.says.endswith("each cell shows the largest magnitude of a block of 3 × 2")
    assert (picture.image == colour(shown, -5)).all(-1).sum() == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_extremes_equal_a_plain_loop(rows: int, columns: int, height: int, width: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    got = extremes(values, height, width)
    y, x = -(-rows // height), -(-columns // width)
    assert got.shape == (-(-rows // y), -(-columns // x))
    for row in range(got.shape[0]):
        for column in range(got.shape[1]):
            block = values[row * y : (row + 1) * y, column * x : (column + 1) * x].ravel()
            assert got[row, column] == block[np.abs(block).argmax()]


def test_a_nan_is_never_hidden_by_its_block() -> None:
    values = np.ones((10, 10), np.float32)
    values[3, 4] = np.nan
    assert np.isnan(extremes(values, 5, 5)).sum() == 1


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        *(((1000, 3, 11, 11), "conv"), ((3, 2000, 3, 3), "conv"), ((2, 3, 900, 5), "conv"), ((2, 4, 5, 900), "conv")),
        *(((4000, 2, 3), "conv"), ((4, 500, 64), "conv"), ((20, 30, 9, 9, 9), "conv"), ((4, 2, 200, 9, 9), "conv")),
        *(((5000, 2), "matrix"), ((100, 30, 40), "matrix"), ((8, 1, 3, 3), "conv"), ((5000, 1, 3, 3), "conv")),
    ],
)
def test_no_picture_outgrows_the_page(shape: tuple[int, ...], kind: str) -> None:
    shown = seen(normal(*shape), kind, groups=shape[0] if shape[1] == 1 else 1)
    height, width = compose(shown).image.shape[:2]
    assert height <= HIGH + 120
    assert width <= WIDE + 120


# Scales


def test_an_outlier_does_not_bleach_the_rest_and_is_said() -> None:
    values = normal(50, 60)
    values[3, 4] = 100
    shown = seen(values, "matrix")
    assert reach(shown) < 5
    assert "the largest is 100" in texts(drawn(shown))


def test_gaussian_weights_are_not_clipped() -> None:
    shown = seen(normal(300, 300), "matrix")
    assert reach(shown) == shown.abs_max


def test_gaps_are_no_colour_of_the_map() -> None:
    assert not (style.lut(style.DIVERGING) == GAP).all(-1).any()


# Figures


def test_the_title_says_what_the_weight_is() -> None:
    found = texts(drawn(seen(normal(6, 4, 3, 3))))
    assert found.startswith("layer4.1.conv2  ·  Conv  ·  weight")
    assert "w · 6 × 4 × 3 × 3 · float32 · 216 parameters" in found
    assert "effective rank" in found
    assert "condition" in found


def test_charts_hold_the_views_numbers() -> None:
    shown = seen(normal(12, 8), "matrix")
    axes = {a.get_position().y0: a for a in drawn(shown).axes[2:]}
    histogram, norms, spectrum = (axes[y] for y in sorted(axes, reverse=True))
    np.testing.assert_array_equal(histogram.patches[0].get_data().values, shown.histogram)
    np.testing.assert_allclose(norms.lines[0].get_ydata(), np.sort(shown.l2)[::-1])
    np.testing.assert_allclose(spectrum.lines[0].get_ydata(), shown.spectrum.values)


def test_the_colour_bar_is_centred_at_zero_and_has_its_unit() -> None:
    shown = seen(np.abs(normal(5, 6)), "matrix")
    bar = drawn(shown).axes[1]
    low, middle, high = (label.get_text() for label in bar.get_yticklabels())
    assert middle == "0"
    assert low == "−" + high
    assert bar.get_ylabel() == "weight"


def test_vectors_are_bars_at_their_heights() -> None:
    shown = seen(normal(20), role="bias")
    heights = [patch.get_height() for patch in drawn(shown).axes[0].patches]
    np.testing.assert_allclose(heights, shown.values, rtol=1e-6)


def test_numbers_that_are_not_finite_are_marked() -> None:
    values = normal(6, 4, 3, 3)
    values[1, 2, 0, 0] = np.inf
    shown = seen(values)
    assert (compose(shown).image == style.BAD).all(-1).any()
    assert "NaN and infinity are drawn in magenta" in texts(drawn(shown))
    coloured = normal(6, 3, 3, 3)
    coloured[2, 1, 1, 1] = np.nan
    assert (compose(seen(coloured)).image == style.BAD).all(-1).any()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((6, 4, 3, 3)), "all zero"),
        (np.full((6, 4), 2.5), "constant: every value is 2.5"),
        (np.full((6, 4), math.nan), "no finite value"),
        (np.zeros((0, 4)), "empty: it holds no number"),
        (np.float32(3), "one number"),
        (np.full(5, math.nan), "no finite value"),
        (np.full((1, 1, 3, 3), -1e-30), "constant"),
    ],
)
def test_degenerate_weights_are_drawn_and_said(values: Any, said: str, tmp_path: Path) -> None:
    shown = seen(values, "conv" if np.ndim(values) == 4 else "matrix", "bias" if np.ndim(values) < 2 else "weight")
    figure = drawn(shown)
    assert said in texts(figure)
    save(figure, tmp_path / "w.png")


@pytest.mark.parametrize("name", ["digits_convnet", "lstm", "conv1d", "conv3d", "int8_qdq"])
def test_every_weight_of_a_fixture_can_be_drawn(name: str, tmp_path: Path) -> None:
    for number, weight in enumerate(layer_weights(read(ROOT / f"fixtures/{name}.onnx"))):
        figure = drawn(view(weight))
        if number == 0:
            save(figure, tmp_path / "w.png")
            assert (tmp_path / "w.png").stat().st_size > 5000


def test_weights_of_real_models_can_be_drawn() -> None:
    if not REAL.is_dir():
        pytest.skip("the real models are not here")
    for name in ("minilm_l6_cutvocab_int8", "silero_vad_16k_op15", "gtsrb_bnn_48_nhwc", "ppocr_v2_cls"):
        weights = layer_weights(read(REAL / f"{name}.onnx"))
        for kind, role in sorted({(w.kind, w.role) for w in weights}):
            drawn(view(next(w for w in weights if (w.kind, w.role) == (kind, role))))
