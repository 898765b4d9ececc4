from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from onnx_inspect.errors import InputError
from onnx_inspect.inputs.preprocess import BAR, PRESETS, Preprocess

PICTURE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)


def make(**changes):
    values = {"size": (20, 30), "resize": "stretch", "layout": "NCHW", "colour": "RGB", "scale": 1, "mean": 0, "std": 1}
    return Preprocess.from_json({**values, **changes})


def test_stretch_is_exactly_pillows_resize():
    expected = np.asarray(Image.fromarray(PICTURE).resize((30, 20), Image.BILINEAR))
    np.testing.assert_array_equal(make(layout="NHWC").apply(PICTURE)[0], expected)


def test_each_number_follows_the_formula_in_the_order_of_colour():
    made = make(colour="BGR", scale=1 / 255, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    array, _ = made.apply(PICTURE)
    pixels = np.asarray(Image.fromarray(PICTURE).resize((30, 20), Image.BILINEAR))
    assert array.shape == (3, 20, 30) and array.dtype == np.float32
    for c, (channel, mean, std) in enumerate([(2, 0.1, 0.5), (1, 0.2, 0.6), (0, 0.3, 0.7)]):
        for row, column in [(0, 0), (7, 29), (19, 11)]:
            expected = (pixels[row, column, channel] / 255 - mean) / std
            assert array[c, row, column] == pytest.approx(expected, abs=1e-6)  # float32


def test_layouts_hold_the_same_numbers():
    first, last = make().apply(PICTURE)[0], make(layout="NHWC").apply(PICTURE)[0]
    np.testing.assert_array_equal(first.transpose(1, 2, 0), last)


def test_grey_is_pillows_luma_before_resizing():
    expected = np.asarray(Image.fromarray(PICTURE).convert("L").resize((30, 20), Image.BILINEAR))
    array, _ = make(colour="GRAY").apply(PICTURE)
    np.testing.assert_array_equal(array, expected[None])


def test_grey_of_a_grey_picture_changes_nothing():
    grey = np.repeat(PICTURE[..., :1], 3, axis=2)
    np.testing.assert_array_equal(make(colour="GRAY", size=(37, 53)).apply(grey)[0][0], grey[..., 0])


def test_letterbox_keeps_the_aspect_ratio_between_grey_bars():
    wide = np.full((10, 40, 3), 200, np.uint8)
    array, placement = make(resize="letterbox", size=(32, 32), layout="NHWC").apply(wide)
    assert placement.resized == (8, 32) and placement.corner == (12, 0)
    np.testing.assert_array_equal(array[12:20], 200)
    np.testing.assert_array_equal(array[:12], BAR)
    np.testing.assert_array_equal(array[20:], BAR)


def test_crop_sees_the_middle():
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:, 40:88] = 255
    array, _ = make(resize="crop", size=(28, 28), layout="NHWC").apply(picture)  # 32 x 64, then the middle 28
    assert array[:, 3:25].min() == 255 and array[:, :1].max() == 0 and array[:, -1:].max() == 0


@pytest.mark.parametrize("colour", ["RGB", "BGR", "GRAY"])
@pytest.mark.parametrize("preset", [n for n in PRESETS if n not in ("imagenet", "caffe")])
def test_picture_undoes_apply(preset, colour):
    made = make(**PRESETS[preset], size=(37, 53), colour=colour, layout="NHWC")
    picture = np.repeat(PICTURE[..., :1], 3, axis=2) if colour == "GRAY" else PICTURE
    np.testing.assert_array_equal(made.picture(made.apply(picture)[0]), picture)


@pytest.mark.parametrize("preset", ["imagenet", "caffe"])
def test_picture_undoes_the_presets_of_three_channels(preset):
    made = make(**{**PRESETS[preset], "size": (37, 53), "resize": "stretch"})
    np.testing.assert_array_equal(made.picture(made.apply(PICTURE)[0]), PICTURE)


def test_apply_leaves_the_picture_alone():
    before = PICTURE.copy()
    make(colour="BGR", resize="crop").apply(PICTURE)
    np.testing.assert_array_equal(PICTURE, before)


def test_json_comes_back_the_same():
    made = make(resize="letterbox", colour="BGR", scale=0.5, mean=[1, 2, 3], std=[4, 5, 6])
    assert Preprocess.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert list(made.to_json()) == ["size", "resize", "layout", "colour", "scale", "mean", "std"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": [224]}, r"size must be \[height, width\], found \[224\]"),
        ({"size": [0, 5]}, r"size must be \[height, width\], whole and positive, found \(0, 5\)"),
        ({"size": [1.5, 5]}, "size must be .* whole"),
        ({"resize": "squash"}, 'resize must be one of stretch, crop, letterbox, found "squash"'),
        ({"layout": "CHW"}, "layout must be one of NCHW, NHWC"),
        ({"colour": "grey"}, "colour must be one of RGB, BGR, GRAY"),
        ({"scale": "1"}, "scale must be a number"),
        ({"scale": True}, "scale must be a number"),
        ({"scale": 0}, "scale must be finite and not 0"),
        ({"mean": [1, 2]}, r"mean must hold one number per channel of RGB \(3\)"),
        ({"mean": []}, "mean must be a list"),
        ({"mean": [1, 2, float("nan")]}, "mean must be finite"),
        ({"std": [1, 0, 1]}, "std must be finite and not 0"),
        ({"colour": "GRAY", "std": [1, 1, 1]}, r"std must hold one number per channel of GRAY \(1\)"),
        ({"color": "RGB"}, r"unknown key 'color' \(did you mean 'colour'\?\)"),
        ({"means": 3}, "unknown key 'means'"),
    ],
)
def test_a_wrong_value_names_its_key(changes, message):
    with pytest.raises(InputError, match=message):
        make(**changes)


def test_missing_keys_are_named():
    with pytest.raises(InputError, match="has no resize, scale, std"):
        Preprocess.from_json({"size": [1, 1], "layout": "NCHW", "colour": "RGB", "mean": 0})


def test_importing_it_loads_nothing_heavy():
    code = (
        "import sys, onnx_inspect.inputs.preprocess, onnx_inspect.inputs.resolve\n"
        "print(*(m for m in ('PIL', 'onnx', 'onnxruntime', 'matplotlib') if m in sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("colour", ["RGB", "BGR", "GRAY"])
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("channels", [1, 3])
def test_many_pictures_at_once_are_each_by_itself_bit_for_bit(layout, colour, resize, channels):
    count = 1 if colour == "GRAY" else 3
    mean, std = (0.485, 0.456, 0.406)[:count], (0.229, 0.224, 0.225)[:count]
    made = Preprocess((9, 14), resize, layout, colour, 1 / 255, mean, std)
    pictures = np.random.default_rng(0).integers(0, 256, (50, 9, 14, channels), np.uint8)
    alone = [made.apply(np.ascontiguousarray(np.broadcast_to(p, (9, 14, 3))))[0] for p in pictures]
    assert made.keeps((9, 14)) and not made.keeps((14, 9))
    np.testing.assert_array_equal(made.apply_all(pictures), np.stack(alone))
