from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from PIL import Image

from onnx_inspect.errors import InputError
from onnx_inspect.graph.model import TensorSpec
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.inputs.preprocess import Preprocess
from onnx_inspect.inputs.read import read

RNG = np.random.default_rng(0)
RAW = json.dumps({"scale": 1})


def spec(name, *shape, dtype="float32"):
    return TensorSpec(name, dtype, shape)


IMAGE = spec("image", "N", 3, 8, 10)
TOKENS = [spec(name, "batch", "sequence", dtype="int64") for name in ("ids", "mask")]
AUDIO = [spec("sound", "batch", "sequence"), spec("state", 2, "batch", 4), spec("rate", dtype="int64")]


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(3):
        Image.fromarray(RNG.integers(0, 256, (16 + k, 20, 3), np.uint8)).save(folder / f"{k}.png")
    return folder


def test_pictures_become_a_batch_in_the_order_given(pictures):
    words = [str(pictures / "2.png"), str(pictures / "0.png")]
    batch = read([IMAGE], words, preprocess=RAW)
    assert batch.sources == tuple(words) and batch.n == 2 and batch.primary == "image"
    assert [o.shape for o in batch.originals] == [(18, 20, 3), (16, 20, 3)]
    for array, word in zip(batch.arrays["image"], words, strict=True):
        expected = np.asarray(Image.open(word).resize((10, 8), Image.BILINEAR))
        np.testing.assert_array_equal(array.transpose(1, 2, 0), expected)
    assert batch.placements[0].original == (18, 20) and batch.placements[0].plane == (8, 10)


def test_a_folder_a_glob_and_files_mix(pictures):
    batch = read([IMAGE], [str(pictures / "1.png"), str(pictures), f"{pictures}/[02].png", "random"])
    assert [s.rsplit("/")[-1] for s in batch.sources] == [
        "1.png",
        "0.png",
        "1.png",
        "2.png",
        "0.png",
        "2.png",
        "random",
    ]
    np.testing.assert_array_equal(batch.arrays["image"][0], batch.arrays["image"][2])


def test_the_choice_of_preprocess_is_noted_once(pictures):
    notes = read([IMAGE], [str(pictures)]).notes
    assert len(notes) == 1 and notes[0].startswith("no preprocessing recorded: inferred unit RGB NCHW 8x10 stretch")


def test_a_broken_picture_is_skipped_in_a_folder_and_an_error_by_name(pictures):
    (pictures / "0.png").write_bytes(b"")
    batch = read([IMAGE], [str(pictures)])
    assert batch.n == 2 and any("skipped 1 of 3 pictures" in n and "0.png is empty" in n for n in batch.notes)
    with pytest.raises(InputError, match=r"0.png is empty"):
        read([IMAGE], [str(pictures / "0.png"), str(pictures / "1.png")])
    with pytest.raises(InputError, match=r"0.png is empty"):
        read([IMAGE], [f"{pictures}/*.png"])
    for path in pictures.iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"none of the 3 pictures in .* can be read: .*0.png is empty"):
        read([IMAGE], [str(pictures)])


@pytest.mark.parametrize(
    ("dtype", "preprocess", "expected"),
    [("uint8", None, 200), ("int8", None, 72), ("float16", "raw", 200), ("bfloat16", "unit", 200 / 255)],
)
def test_pictures_arrive_in_the_models_dtype(tmp_path, dtype, preprocess, expected):
    Image.new("RGB", (10, 8), (200, 200, 200)).save(tmp_path / "a.png")
    array = read([replace(IMAGE, dtype=dtype)], [str(tmp_path / "a.png")], preprocess=preprocess).arrays["image"]
    assert array.dtype.name == dtype
    np.testing.assert_allclose(array.astype(float), expected, rtol=4e-3)  # bfloat16 has 8 bits


def test_whole_numbers_are_rounded_and_clipped_not_cut(tmp_path):
    Image.new("RGB", (10, 8), (255, 7, 6)).save(tmp_path / "a.png")
    given = spec("image", 1, 3, 8, 10, dtype="uint8")
    array = read([given], [str(tmp_path / "a.png")], preprocess='{"scale": 0.5, "mean": -128}').arrays["image"]
    assert array[0, :, 0, 0].tolist() == [255, 132, 131]  # 255.5 is clipped; 131.5 goes to the even neighbour


@pytest.mark.parametrize("shape", [(8, 10, 3), (5, 16, 20, 3), (5, 16, 20, 1), (5, 16, 20), (16, 20), (3, 8, 10)])
def test_uint8_arrays_are_pictures(tmp_path, shape):
    array = RNG.integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "a.npy", array)
    batch = read([IMAGE], [str(tmp_path / "a.npy")], preprocess=RAW)
    assert batch.n == (5 if shape[0] == 5 else 1) and batch.preprocess is not None
    assert any("taken as" in note and "put through the preprocess" in note for note in batch.notes)
    assert all(o.shape[:2] in ((8, 10), (16, 20)) for o in batch.originals)
    if shape == (8, 10, 3):
        np.testing.assert_array_equal(batch.arrays["image"][0], array.transpose(2, 0, 1))
    if shape == (3, 8, 10):
        np.testing.assert_array_equal(batch.arrays["image"][0], array)


def test_a_uint8_array_is_the_input_itself_where_the_model_takes_just_that(tmp_path):
    given = spec("image", 1, 8, 10, 3, dtype="uint8")
    array = RNG.integers(0, 256, (4, 8, 10, 3), np.uint8)
    np.save(tmp_path / "a.npy", array)
    batch = read([given], [str(tmp_path / "a.npy")])
    np.testing.assert_array_equal(batch.arrays["image"], array)
    np.testing.assert_array_equal(batch.originals, array)
    np.save(tmp_path / "larger.npy", RNG.integers(0, 256, (30, 40, 3), np.uint8))
    assert read([given], [str(tmp_path / "larger.npy")]).originals[0].shape == (30, 40, 3)


def test_a_float_array_is_taken_as_it_is_and_drawn_by_the_inverse_of_the_preprocess(tmp_path, pictures):
    made = read([IMAGE], [str(pictures)], preprocess="imagenet")
    np.save(tmp_path / "a.npy", made.arrays["image"])
    batch = read([IMAGE], [str(tmp_path / "a.npy")], preprocess="imagenet")
    np.testing.assert_array_equal(batch.arrays["image"], made.arrays["image"])
    raw = read([IMAGE], [str(pictures)], preprocess='{"resize": "crop", "scale": 1}').arrays["image"]
    np.testing.assert_array_equal(np.stack(batch.originals), raw.transpose(0, 2, 3, 1))
    assert batch.sources[1] == f"{tmp_path / 'a.npy'}[1]" and batch.preprocess.resize == "crop"
    assert batch.placements[0].original == batch.placements[0].plane == (8, 10)


def test_a_float_array_without_a_known_preprocess_is_drawn_from_minimum_to_maximum(tmp_path):
    array = RNG.normal(size=(2, 1, 8, 10)).astype(np.float32)
    array[1] = 3
    np.save(tmp_path / "a.npy", array)
    batch = read([spec("image", "N", 1, 8, 10)], [str(tmp_path / "a.npy")])
    assert batch.preprocess is None and any("minimum (black)" in note for note in batch.notes)
    first, constant = batch.originals
    assert first.min() == 0 and first.max() == 255 and first.shape == (8, 10, 3)
    assert np.argmax(first[..., 0]) == np.argmax(array[0, 0]) and (constant == 128).all()


def test_an_array_without_a_batch_axis_gets_one(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 8, 10)))
    assert read([IMAGE], [str(tmp_path / "a.npy")]).arrays["image"].shape == (1, 3, 8, 10)


def test_a_picture_fills_an_input_without_image_axes(pictures):
    said = '{"size": [4, 6], "colour": "GRAY", "scale": 1}'
    batch = read([spec("flat", "N", 24, 1)], [str(pictures)], preprocess=said)
    assert batch.arrays["flat"].shape == (3, 24, 1)
    with Image.open(pictures / "1.png") as picture:
        expected = np.asarray(picture.convert("L").resize((6, 4), Image.BILINEAR))
    np.testing.assert_array_equal(batch.arrays["flat"][1].reshape(4, 6), expected)


def test_an_array_for_an_input_without_image_axes_is_drawn_when_its_size_is_said(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(24, dtype=np.float32)[None])
    said = '{"size": [4, 6], "colour": "GRAY", "scale": 0.1}'
    batch = read([spec("flat", "N", 24)], [str(tmp_path / "a.npy")], preprocess=said)
    np.testing.assert_array_equal(batch.originals[0][..., 0].ravel(), np.arange(24) * 10)
    assert read([spec("flat", "N", 24)], [str(tmp_path / "a.npy")], preprocess="unit").originals == (None,)


def test_npz_is_keyed_by_input_name_and_says_what_it_ignored(tmp_path):
    ids, mask = RNG.integers(0, 9, (4, 6)), np.ones((4, 6), np.int32)
    np.savez(tmp_path / "a.npz", ids=ids, mask=mask, words=np.array(["a", "b"]))
    batch = read(TOKENS, [str(tmp_path / "a.npz")])
    np.testing.assert_array_equal(batch.arrays["ids"], ids)
    assert batch.arrays["mask"].dtype == np.int64 and batch.sources[3].endswith("a.npz[3]")
    assert any("ignored words" in note for note in batch.notes)


def test_npz_of_a_data_set_gives_its_pictures_under_any_name(tmp_path):
    images = RNG.integers(0, 256, (4, 8, 10, 3), np.uint8)
    np.savez(tmp_path / "a.npz", photos=images, masks=images[..., 0], labels=np.arange(4))
    batch = read([IMAGE], [str(tmp_path / "a.npz")], preprocess=RAW)
    np.testing.assert_array_equal(batch.arrays["image"], images.transpose(0, 3, 1, 2))
    assert batch.sources[2].endswith("a.npz:photos[2]")


def test_npz_gives_the_one_array_that_fits(tmp_path):
    rows = RNG.normal(size=(5, 64))
    np.savez(tmp_path / "a.npz", y=np.arange(5), x=rows)
    batch = read([spec("X", None, 64)], [str(tmp_path / "a.npz")])
    np.testing.assert_array_equal(batch.arrays["X"], rows.astype(np.float32))
    np.savez(tmp_path / "two.npz", a=rows, b=rows)
    with pytest.raises(InputError, match=r"a, b all fit input 'X'; name the one meant 'X'"):
        read([spec("X", None, 64)], [str(tmp_path / "two.npz")])
    np.savez(tmp_path / "none.npz", a=rows[:, :3], b=rows[0, 0])
    with pytest.raises(InputError, match=r"holds a float64 \[5, 3\], b float64 \[\]; none is called 'X'"):
        read([spec("X", None, 64)], [str(tmp_path / "none.npz")])


def test_a_test_data_folder_gives_the_inputs_by_order(tmp_path):
    folder = tmp_path / "test_data_set_0"
    folder.mkdir()
    arrays = [RNG.normal(size=(1, 5)).astype(np.float32), np.zeros((2, 1, 4), np.float32), np.array(16000)]
    for k, array in enumerate(arrays):
        (folder / f"input_{k}.pb").write_bytes(onnx.numpy_helper.from_array(array, f"other{k}").SerializeToString())
    batch = read(AUDIO, [str(folder)])
    for name, array in zip(("sound", "state", "rate"), arrays, strict=True):
        np.testing.assert_array_equal(batch.arrays[name], array)
    assert batch.shared == {"state", "rate"} and batch.sources == (str(folder),)
    with pytest.raises(InputError, match="holds 3 inputs, but the model takes 2"):
        read(AUDIO[:2], [str(folder)])


def test_named_values_complete_the_inputs_and_are_repeated(tmp_path, pictures):
    specs = [IMAGE, spec("threshold", 1), spec("prompt", "N", 2, dtype="int64"), spec("k", dtype="int64")]
    np.save(tmp_path / "prompt.npy", np.array([[4, 5]]))
    named = {"threshold": "0.5", "prompt": f"@{tmp_path / 'prompt.npy'}", "k": "7"}
    batch = read(specs, [str(pictures)], named=named)
    np.testing.assert_array_equal(batch.arrays["threshold"], np.full(3, 0.5, np.float32))
    np.testing.assert_array_equal(batch.arrays["prompt"], [[4, 5]] * 3)
    assert batch.arrays["k"].shape == () and batch.shared == {"k"}
    assert "input 'prompt': one sample repeated for all 3" in batch.notes


def test_one_picture_goes_with_many_values(pictures):
    batch = read([IMAGE, spec("text", "N", 2)], [str(pictures / "0.png")], named={"text": "[[1,2],[3,4]]"})
    assert batch.n == 2 and batch.sources[1].endswith("0.png[1]") and batch.originals[1] is not None
    np.testing.assert_array_equal(batch.arrays["image"][0], batch.arrays["image"][1])


def test_values_may_stand_among_the_inputs_and_share_symbols():
    batch = read(TOKENS, ["ids=[[1,2,3],[4,5,6]]", "mask=ones"])
    np.testing.assert_array_equal(batch.arrays["mask"], np.ones((2, 3)))
    batch = read(TOKENS, ["ids:2,7", "mask=zeros"])
    assert batch.arrays["ids"].shape == batch.arrays["mask"].shape == (2, 7)


def test_a_recurrent_state_goes_whole_with_every_sample():
    batch = read(AUDIO, ["sound:3,5", "state=zeros", "rate=16000"])
    assert batch.primary == "sound" and batch.n == 3 and batch.shared == {"state", "rate"}
    assert batch.arrays["state"].shape == (2, 1, 4) and batch.arrays["rate"] == 16000
    with pytest.raises(InputError, match=r"goes whole with every sample: found .2, 3, 4., but 'batch' must be 1 long"):
        read(AUDIO, ["sound:3,5", "state=zeros:2,3,4", "rate=16000"])


def test_a_second_picture_input_takes_a_picture_too(pictures):
    specs = [replace(IMAGE, name="left"), replace(IMAGE, name="right")]
    batch = read(specs, [str(pictures)], named={"right": f"@{pictures / '1.png'}"}, preprocess=RAW, primary="left")
    np.testing.assert_array_equal(batch.arrays["right"][2], batch.arrays["left"][1])


@pytest.mark.parametrize(
    ("specs", "primary"),
    [
        ([spec("mask", "N", 9), IMAGE, spec("other", 1, 3, 4, 4)], "image"),
        ([spec("ids", "N", "T", dtype="int64"), spec("a", "N", 4), spec("b", "N", 4, 5)], "b"),
        ([spec("state", 2, "N", 4), spec("a", "N", 4)], "a"),
        (TOKENS, "ids"),
        ([spec("x", 1, 3, 32, 3)], "x"),
    ],
)
def test_the_primary_input_is_the_picture_else_the_largest_real_one_else_the_first(specs, primary):
    assert read(specs, ["random"]).primary == primary
    assert read(specs, ["random"], primary=specs[0].name).primary == specs[0].name


def test_random_depends_on_the_seed_alone():
    specs = [IMAGE, spec("vector", "N", 5), spec("ids", "N", "T", dtype="int64"), spec("flag", "N", 3, dtype="bool")]
    one, same, other = (read(specs, ["random", "random"], seed=seed) for seed in (1, 1, 2))
    for name in one.arrays:
        np.testing.assert_array_equal(one.arrays[name], same.arrays[name])
        assert not np.array_equal(one.arrays[name], other.arrays[name])
        assert not np.array_equal(*one.arrays[name]) or name == "flag"
    assert one.n == 2 and one.arrays["ids"].min() >= 0 and one.arrays["ids"].max() < 10
    assert any("T free, 16 chosen" in note for note in one.notes) and one.arrays["ids"].shape == (2, 16)


def test_random_pictures_lie_in_the_range_of_the_preprocess():
    batch = read([IMAGE], ["random"], preprocess="signed")
    array = batch.arrays["image"]
    assert -1 <= array.min() < -0.9 and 0.9 < array.max() <= 1
    np.testing.assert_array_equal(batch.preprocess.picture(array[0]), batch.originals[0])
    free = read([spec("image", "N", 3, "H", "W")], ["image:2,3,12,20"])
    assert free.arrays["image"].shape == (2, 3, 12, 20) and free.originals[0].shape == (12, 20, 3)
    assert read([spec("image", "N", 3, "H", "W")], ["image=zeros"]).arrays["image"].shape == (1, 3, 224, 224)
    with pytest.raises(InputError, match="unknown key"):
        read([IMAGE], ["random"], metadata={"onnx_inspect.preprocess": '{"sizes": 3}'})
    numbers = read([spec("vector", "N", 5000)], ["random"]).arrays["vector"]
    assert abs(numbers.mean()) < 0.1 and abs(numbers.std() - 1) < 0.1  # 5 standard errors


def test_text_inputs_take_text(tmp_path):
    given = [spec("words", None, dtype="string")]
    np.save(tmp_path / "a.npy", np.array(["a", "bc"]))
    assert read(given, [str(tmp_path / "a.npy")]).arrays["words"].tolist() == ["a", "bc"]
    assert read(given, ["words=hello"]).arrays["words"].tolist() == ["hello"]
    with pytest.raises(InputError, match="takes text, which can't be made up"):
        read(given, ["random"])


def test_labels_come_from_a_file_else_from_metadata(tmp_path):
    (tmp_path / "a.txt").write_text("cat\ndog")
    metadata = {"onnx_inspect.labels": '["x", "y"]'}
    assert read([IMAGE], ["random"], labels=tmp_path / "a.txt", metadata=metadata).labels == ("cat", "dog")
    assert read([IMAGE], ["random"], metadata=metadata).labels == ("x", "y")
    assert read([IMAGE], ["random"]).labels is None


def test_metadata_decides_the_preprocess_and_a_whole_one_wins(pictures):
    metadata = {"onnx_inspect.preprocess": '{"colour": "BGR"}'}
    assert read([IMAGE], [str(pictures)], metadata=metadata).preprocess.colour == "BGR"
    whole = Preprocess((8, 10), "letterbox", "NCHW", "RGB", 1.0, (0, 0, 0), (1, 1, 1))
    assert read([IMAGE], [str(pictures)], metadata=metadata, preprocess=whole).preprocess == whole


def test_arrays_are_read_only_and_contiguous(pictures):
    batch = read([IMAGE], [str(pictures)])
    assert not batch.arrays["image"].flags.writeable and batch.arrays["image"].flags.c_contiguous
    with pytest.raises(ValueError, match="read-only"):
        batch.originals[0][0] = 0


def test_a_batch_whose_parts_disagree_cannot_be_made():
    with pytest.raises(ValueError, match="holds"):
        Batch({"x": np.zeros((2, 1))}, "x", ("a",), (None,), (None,), None, None, ())


@pytest.mark.parametrize(
    ("specs", "inputs", "named", "message"),
    [
        ([IMAGE], [], {}, r"no input given: name a picture, an array \(.npy, .npz, .pb\), a folder, or 'random'"),
        ([], ["random"], {}, "takes no inputs"),
        ([IMAGE], ["random"], {"imag": "3"}, "no input 'imag'. Its inputs: 'image'"),
        ([IMAGE], ["random"], {"image": "zeros"}, "nothing to make up"),
        ([IMAGE], ["image=zeros"], {"image": "ones"}, "'image' is given twice"),
        ([IMAGE], ["image:1,4,8,10"], {}, r"takes float32 \[N, 3, 8, 10\], found a shape of \[1, 4, 8, 10\]"),
        ([IMAGE], [], {"image": "@nowhere.npy"}, "nowhere.npy: no such file"),
        ([IMAGE], [], {"image": "[1,2,3]"}, r"found int64 \[3\], but input 'image' takes .*; a picture must be uint8"),
        (TOKENS, ["mask=[[1,1]]"], {}, r"takes 2 inputs; missing: 'ids' int64 \[batch, sequence\]; .* -I ids=@FILE"),
        (TOKENS, ["ids:2,3"], {"mask": "ones:3,3"}, "input 'ids' holds 2 samples, but 'mask' holds 3"),
        ([TensorSpec("x", "sequence", None)], ["random"], {}, "is a sequence, not a tensor"),
        ([TensorSpec("x", "float32", None)], ["random"], {}, "doesn't say its shape: give one, like -I x:1,3,224,224"),
    ],
)
def test_what_cannot_be_read_is_one_line(specs, inputs, named, message):
    with pytest.raises(InputError, match=message) as caught:
        read(specs, inputs, named=named)
    assert "\n" not in str(caught.value)


def test_samples_that_do_not_stack_are_refused(tmp_path, pictures):
    np.save(tmp_path / "five.npy", np.zeros((1, 5), np.int64))
    np.save(tmp_path / "six.npy", np.zeros((1, 6), np.int64))
    with pytest.raises(InputError, match=r"five.npy gives \[5\], but .*six.npy gives \[6\]"):
        read(TOKENS[:1], [str(tmp_path / "five.npy"), str(tmp_path / "six.npy")])
    np.savez(tmp_path / "uneven.npz", ids=np.zeros((2, 5), int), mask=np.zeros((3, 5), int))
    with pytest.raises(InputError, match="'ids' holds 2 samples, but 'mask' holds 3"):
        read(TOKENS, [str(tmp_path / "uneven.npz")])
    np.savez(tmp_path / "both.npz", ids=np.zeros((1, 5), int), mask=np.zeros((1, 5), int))
    with pytest.raises(InputError, match="give the same inputs from each"):
        read(TOKENS, [str(tmp_path / "both.npz"), str(tmp_path / "five.npy")])
    with pytest.raises(InputError, match=r"given twice: by .*0.png and by name"):
        read([IMAGE], [str(pictures / "0.png"), "image=zeros"])
