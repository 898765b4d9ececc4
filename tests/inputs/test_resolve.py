from __future__ import annotations

import json

import numpy as np
import pytest

from onnx_inspect.errors import InputError
from onnx_inspect.graph.model import TensorSpec
from onnx_inspect.inputs.preprocess import PRESETS, Preprocess
from onnx_inspect.inputs.resolve import METADATA_KEY, resolve


def spec(*shape, dtype="float32"):
    return TensorSpec("x", dtype, shape)


@pytest.mark.parametrize(
    ("given", "described", "formula"),
    [
        (spec(1, 3, 224, 224), "RGB NCHW 224x224 stretch", "unit"),
        (spec("N", 32, 48, 3), "RGB NHWC 32x48 stretch", "unit"),
        (spec(1, 1, 28, 28), "GRAY NCHW 28x28 stretch", "unit"),
        (spec(None, 64, 64, 1, dtype="float16"), "GRAY NHWC 64x64 stretch", "unit"),
        (spec(1, 128, 128, 3, dtype="uint8"), "RGB NHWC 128x128 stretch", "raw"),
        (spec(1, 32, 32, 3, dtype="int8"), "RGB NHWC 32x32 stretch", "(pixel - 128)"),
        (spec("N", 3, "H", "W"), "RGB NCHW 224x224 stretch", "unit"),
        (spec("N", 3, 48, "W"), "RGB NCHW 48x224 stretch", "unit"),
    ],
)
def test_shape_and_dtype_tell_the_preprocess_and_the_reason_says_so(given, described, formula):
    made, reason = resolve(None, given, {})
    assert (made.describe(), made.formula()) == (described, formula)
    assert reason.startswith(f"no preprocessing recorded: inferred {formula} {described} from {given.describe()}")
    assert "override with --preprocess" in reason
    assert ("leaves the size free" in reason) == ("W" in (given.shape or ()))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_take_layout_and_size_from_the_model(name):
    made, reason = resolve(name, spec("N", 30, 40, 3), {})
    assert (made.size, made.layout) == ((30, 40), "NHWC") and f"preset {name}" in reason
    assert made.resize == ("crop" if name == "imagenet" else "stretch")
    assert made.colour == ("BGR" if name == "caffe" else "RGB")


@pytest.mark.parametrize(
    ("name", "black", "white"),
    [
        ("unit", [0, 0, 0], [1, 1, 1]),
        ("signed", [-1, -1, -1], [1, 1, 1]),
        ("raw", [0, 0, 0], [255, 255, 255]),
        ("caffe", [-104, -117, -123], [151, 138, 132]),
        ("imagenet", [-2.1179, -2.0357, -1.8044], [2.2489, 2.4286, 2.64]),
    ],
)
def test_presets_send_black_and_white_where_they_promise(name, black, white):
    made, _ = resolve(name, spec(1, 3, 8, 8), {})
    for value, expected in ((0, black), (255, white)):
        array, _ = made.apply(np.full((16, 16, 3), value, np.uint8))
        np.testing.assert_allclose(array[:, 4, 4], expected, atol=1e-4)


def test_a_file_wins_over_metadata_which_wins_over_inference(tmp_path):
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"scale": 2}))
    metadata = {METADATA_KEY: json.dumps({"scale": 3})}
    assert resolve(str(file), spec(1, 3, 8, 8), metadata)[0].scale == 2
    made, reason = resolve(None, spec(1, 3, 8, 8), metadata)
    assert made.scale == 3 and "metadata" in reason and "size, resize, layout, colour, mean, std inferred" in reason


def test_a_whole_preprocess_is_checked_against_the_input():
    made = Preprocess((8, 8), "crop", "NCHW", "RGB", 1.0, (0, 0, 0), (1, 1, 1))
    assert resolve(made, spec(1, 3, 8, 8), {})[0] == made
    with pytest.raises(InputError, match="doesn't fit"):
        resolve(made, spec(1, 3, 9, 8), {})


@pytest.mark.parametrize(
    ("said", "layout", "size"),
    [
        ({"layout": "NHWC"}, "NHWC", (3, 32)),
        ({"layout": "NCHW"}, "NCHW", (32, 3)),
        ({"size": [32, 3]}, "NCHW", (32, 3)),
    ],
)
def test_saying_the_layout_settles_an_ambiguous_shape(said, layout, size):
    made, _ = resolve(json.dumps(said), spec(1, 3, 32, 3), {})
    assert (made.layout, made.size) == (layout, size)


def test_the_colour_settles_a_shape_with_one_and_three():
    assert resolve('{"colour": "GRAY"}', spec(1, 3, 32, 1), {})[0].layout == "NHWC"
    assert resolve('{"colour": "BGR"}', spec(1, 3, 32, 1), {})[0].layout == "NCHW"


@pytest.mark.parametrize(("said", "colour"), [({}, "GRAY"), ({"colour": "GRAY"}, "GRAY")])
def test_an_input_without_image_axes_takes_a_picture_whose_elements_fit(said, colour):
    made, _ = resolve(json.dumps({"size": [28, 28], **said}), spec(1, 784, 1), {})
    assert made.colour == colour
    assert resolve('{"size": [16, 16]}', spec("N", 768), {})[0].colour == "RGB"


@pytest.mark.parametrize(
    ("said", "given", "message"),
    [
        ("imgnet", spec(1, 3, 8, 8), "neither a preset nor a file .did you mean 'imagenet'.*unit, signed, raw, caffe"),
        ("{bad", spec(1, 3, 8, 8), "not JSON"),
        ("[1]", spec(1, 3, 8, 8), "neither a preset nor a file"),
        (None, spec(1, 3, 32, 3), "doesn't tell which axis holds the channels; say --preprocess"),
        (None, spec("N", "C", "H", "W"), "doesn't tell which axis"),
        (None, spec("N", "C", 32, 32), "number of channels is free; say it with"),
        (None, spec(1, 4, 32, 32), r"neither axis 1 \(4\) nor axis 3 \(32\).*feed an array"),
        (None, spec(1, 784, 1), 'no image axes; feed an array.*"size": .28, 28., "colour": "GRAY"'),
        (None, spec("N", 3072), 'no image axes.*"size": .32, 32., "colour": "RGB"'),
        ('{"size": [20, 28]}', spec(1, 784, 1), "784 elements, but size 20x28 RGB or GRAY gives 1680 or 560"),
        (None, spec("batch", "sequence", dtype="int64"), "no image axes; feed an array"),
        (None, spec(1, 3, 8, 8, dtype="string"), "doesn't say how a picture goes in"),
        (None, TensorSpec("x", "float32", None), "doesn't say how a picture goes in"),
        ('{"size": [9, 9]}', spec(1, 3, 8, 8), r"takes float32 \[1, 3, 8, 8\].*size \[9, 9\]"),
        ("imagenet", spec(1, 1, 8, 8), "doesn't fit the preprocess given: colour RGB"),
        (
            "unit",
            spec(1, 8, 8, 3, dtype="uint8"),
            r"values 0..1, but .* takes uint8 \(0..255\); leave --preprocess out",
        ),
        ("raw", spec(1, 8, 8, 3, dtype="int8"), r"values 0..255, but .* takes int8 \(-128..127\)"),
    ],
)
def test_what_does_not_fit_is_one_line_that_says_how_to_say_it(said, given, message):
    with pytest.raises(InputError, match=message) as caught:
        resolve(said, given, {})
    assert "\n" not in str(caught.value)


def test_broken_metadata_says_how_to_override_it():
    with pytest.raises(InputError, match=r"metadata .*not JSON.*override it with --preprocess"):
        resolve(None, spec(1, 3, 8, 8), {METADATA_KEY: "?"})
    assert resolve("unit", spec(1, 3, 8, 8), {METADATA_KEY: "?"})[0].formula() == "unit"


def test_a_rank_that_nobody_knows_takes_a_layout_and_a_colour():
    made, _ = resolve('{"layout": "NHWC", "colour": "GRAY"}', TensorSpec("x", "float32", None), {})
    assert made.describe() == "GRAY NHWC 224x224 stretch"


def test_a_file_that_is_no_json_is_said(tmp_path):
    file = tmp_path / "picture.png"
    file.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match="it isn't text"):
        resolve(str(file), spec(1, 3, 8, 8), {})
    with pytest.raises(InputError, match="can't be read"):
        resolve(str(tmp_path), spec(1, 3, 8, 8), {})
