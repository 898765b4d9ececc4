"""A data set's samples and classes are found as people lay them out; broken ones are told, the others read."""

from __future__ import annotations

import csv
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from onnx_inspect.errors import InputError
from onnx_inspect.graph.model import TensorSpec
from onnx_inspect.inputs.dataset import Dataset, find
from onnx_inspect.inputs.dataset_batches import Reader, reader
from onnx_inspect.inputs.dataset_pictures import squares

SPECS = {"x": TensorSpec("x", "float32", ("N", 3, 8, 12))}
GREY = {"x": TensorSpec("x", "float32", (1, 1, 8, 8))}
ROW = {"x": TensorSpec("x", "float32", ("N", 64))}
RNG = np.random.default_rng(0)


def picture(path: Path, value: int = 0, size: tuple[int, int] = (12, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def found(*words: object, specs: dict[str, TensorSpec] = SPECS) -> Dataset:
    return find([str(word) for word in words], specs, "x")


def reading(*words: object, specs: dict[str, TensorSpec] = SPECS, **options: Any) -> Reader:
    return reader(found(*words, specs=specs), specs, "x", **options)


def values(read: Reader, places: range) -> list[float]:
    """The grey that each sample of a batch has, undone to 0..255."""
    batch = read.read(places).batch
    assert batch is not None
    return [round(float(sample.flat[0]) * 255) for sample in batch.arrays["x"]]


def folders(root: Path, names: Sequence[str], each: int = 3) -> Path:
    for n, name in enumerate(names):
        for m in range(each):
            picture(root / name / f"{m}.png", 10 * n + m)
    return root


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    folders(tmp_path / "d", ["zebra", "ant", "cat"])
    picture(tmp_path / "d" / "cat" / "deeper" / "a.png", 77)
    (tmp_path / "d" / "empty").mkdir()
    data = found(tmp_path / "d")
    assert data.classes == ("ant", "cat", "zebra") and len(data) == 10
    assert data.labels.tolist() == [0] * 3 + [1] * 4 + [2] * 3
    assert values(reading(tmp_path / "d"), range(10)) == [10, 11, 12, 20, 21, 22, 77, 0, 1, 2]
    assert "3 classes" in data.notes[0] and "left out: empty" in data.notes[1]


def test_several_folders_are_a_class_each(tmp_path: Path) -> None:
    folders(tmp_path, ["cats", "dogs"])
    data = found(tmp_path / "dogs", tmp_path / "cats")
    assert data.classes == ("cats", "dogs") and data.labels.tolist() == [0] * 3 + [1] * 3


def test_pictures_in_one_folder_have_no_class(tmp_path: Path) -> None:
    folders(tmp_path, ["cats"])
    data = found(tmp_path / "cats")
    assert data.classes is None and not data.labelled and len(data) == 3


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [(["path", "label"], ","), (["label", "image"], ";"), (None, ","), (["file", "x", "y"], "\t")],
)
def test_a_table_of_paths_and_labels(tmp_path: Path, header: list[str] | None, delimiter: str) -> None:
    rows = [{"path": f"p/{n}.png", "label": "ab"[n % 2]} for n in range(4)]
    for n in range(4):
        picture(tmp_path / "p" / f"{n}.png", n)
    columns = header or ["path", "label"]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        if header:
            writer.writerow(header)
        for row in rows:
            cells = {"x": "0", "label": row["label"], "y": row["label"]}
            writer.writerow([cells.get(column, row["path"]) for column in columns])
    data = found(tmp_path / "t.csv")
    assert data.classes == ("a", "b") and data.labels.tolist() == [0, 1, 0, 1]
    assert values(reading(tmp_path / "t.csv"), range(4)) == [0, 1, 2, 3]


def test_a_table_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "p" / "0.png")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "t.csv").write_text("path,label\np/0.png,a\n")
    monkeypatch.chdir(tmp_path)
    assert len(reading(tmp_path / "tables" / "t.csv")) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "is empty"), ("a,b\n1,2\n", "no column path"), ("path,label\np.png\n", "row 1 has 1 cells")],
)
def test_a_table_that_says_nothing_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=said):
        found(tmp_path / "t.csv")


def test_a_list_of_paths_with_and_without_labels(tmp_path: Path) -> None:
    for n, name in enumerate(("a.png", "b c.png", "d.png")):
        picture(tmp_path / name, n)
    (tmp_path / "plain.txt").write_text("# a comment\na.png\nb c.png\n\nd.png\n")
    (tmp_path / "labelled.txt").write_text("a.png 3\nb c.png 1\nd.png 3\n")
    (tmp_path / "tabs.lst").write_text("a.png\tred fox\nd.png\tcat\n")
    assert values(reading(tmp_path / "plain.txt"), range(3)) == [0, 1, 2]
    assert not found(tmp_path / "plain.txt").labelled
    assert found(tmp_path / "labelled.txt").labels.tolist() == [3, 1, 3]
    assert values(reading(tmp_path / "labelled.txt"), range(3)) == [0, 1, 2]
    assert found(tmp_path / "tabs.lst").classes == ("cat", "red fox")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("names", [("x", "y"), ("images", "labels"), ("X", "target"), ("x_test", "y_test")])
def test_an_npz_of_samples_and_labels(tmp_path: Path, save: Any, names: tuple[str, str]) -> None:
    pictures = RNG.integers(0, 256, (40, 8, 12, 3), np.uint8)
    save(tmp_path / "d.npz", **{names[0]: pictures, names[1]: np.arange(40) % 7, "other": np.zeros(3)})
    read = reading(tmp_path / "d.npz")
    assert read.dataset.labels.tolist() == [n % 7 for n in range(40)]
    for places in (range(0, 10), range(30, 40), range(5, 6), range(0, 40)):  # forwards, and back again
        batch = read.read(places).batch
        assert batch is not None
        expected = pictures[places.start : places.stop].transpose(0, 3, 1, 2) / np.float32(255)
        # the formula in float32, in another order
        np.testing.assert_allclose(batch.arrays["x"], expected, rtol=1e-6)
        assert batch.sources[0] == f"{tmp_path / 'd.npz'}[{places.start}]"


@pytest.mark.parametrize(
    ("array", "specs"),
    [
        (RNG.integers(0, 256, (3, 8, 8), np.uint8), GREY),  # three grey pictures, not one with three channels
        (RNG.integers(0, 256, (1, 8, 8), np.uint8), GREY),
        (RNG.normal(size=(5, 8, 8)).astype(np.float32), GREY),
        (RNG.normal(size=(5, 64)).astype(np.float32), GREY),
        (RNG.normal(size=(5, 8, 8)).astype(np.float64), ROW | {}),
        (RNG.normal(size=(1, 64)).astype(np.float32), ROW),
    ],
)
def test_axis_0_of_an_array_counts_its_samples(
    tmp_path: Path, array: NDArray[Any], specs: dict[str, TensorSpec]
) -> None:
    np.save(tmp_path / "d.npy", array)
    if specs is not GREY and array.ndim == 3:
        with pytest.raises(InputError, match=r"takes float32 \[N, 64\]"):
            reading(tmp_path / "d.npy", specs=specs)
        return
    batch = reading(tmp_path / "d.npy", specs=specs).read(range(len(array))).batch
    assert batch is not None and batch.n == len(array)
    expected = array.reshape(batch.arrays["x"].shape) / (255 if array.dtype == np.uint8 else 1)
    np.testing.assert_allclose(batch.arrays["x"], expected, rtol=1e-6)  # float32


def test_an_npz_by_the_inputs_names_with_words_and_class_names(tmp_path: Path) -> None:
    specs = {"ids": TensorSpec("ids", "int64", ("N", "T")), "mask": TensorSpec("mask", "int64", ("N", "T"))}
    ids = RNG.integers(0, 9, (4, 5))
    words = np.array(["one", "two", "three", "four"])
    names = np.array(["good", "bad"])
    np.savez(tmp_path / "d.npz", ids=ids, mask=np.ones((1, 5), int), y=[0, 1, 1, 0], sentences=words, class_names=names)
    data = find([str(tmp_path / "d.npz")], specs, "ids")
    assert data.classes == ("good", "bad") and data.entries.source(2) == "three"
    batch = reader(data, specs, "ids").read(range(1, 3)).batch
    assert batch is not None
    np.testing.assert_array_equal(batch.arrays["ids"], ids[1:3])
    np.testing.assert_array_equal(batch.arrays["mask"], np.ones((2, 5)))


def test_one_hot_labels_are_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 64), np.float32), y=np.eye(4)[[2, 0, 3]])
    assert found(tmp_path / "d.npz", specs=ROW).labels.tolist() == [2, 0, 3]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"a": np.zeros((3, 64)), "b": np.zeros((3, 64))}, "call the samples 'x'"),
        ({"x": np.zeros((3, 64)), "y": np.zeros((3, 2))}, "one class for each sample"),
        ({"x": np.zeros((0, 64))}, "no samples"),
    ],
)
def test_arrays_that_do_not_tell_are_refused(tmp_path: Path, arrays: dict[str, NDArray[Any]], said: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(InputError, match=said):
        found(tmp_path / "d.npz", specs=ROW)


def test_a_file_that_is_cut_short_is_one_clear_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((300, 64), np.float32))
    content = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(content[:2000])
    with pytest.raises(InputError, match="can't be read"):
        found(tmp_path / "d.npz", specs=ROW)


def test_broken_files_are_skipped_with_their_reason(tmp_path: Path) -> None:
    folders(tmp_path, ["a"], each=5)
    (tmp_path / "a" / "1.png").write_bytes(b"")
    (tmp_path / "a" / "3.png").write_bytes(b"<html>")
    done = reading(tmp_path / "a").read(range(5))
    assert done.places == (0, 2, 4)
    assert done.batch is not None and len(done.batch.arrays["x"]) == 3
    assert [one.source for one in done.skipped] == [str(tmp_path / "a" / f"{n}.png") for n in (1, 3)]
    assert "empty" in done.skipped[0].reason and "HTML" in done.skipped[1].reason


def test_files_of_another_shape_are_skipped(tmp_path: Path) -> None:
    for n, width in enumerate((64, 64, 63, 64)):
        np.save(tmp_path / f"{n}.npy", np.full(width, n, np.float32))
    specs = {"x": TensorSpec("x", "float32", ("N", "D"))}
    read = reading(*(tmp_path / f"{n}.npy" for n in range(4)), specs=specs)
    done = read.read(range(4))
    assert done.places == (0, 1, 3) and "has shape [63], but the first sample [64]" in done.skipped[0].reason


def test_a_file_with_several_samples_is_no_sample(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.zeros((1, 64), np.float32))
    np.save(tmp_path / "1.npy", np.zeros((2, 64), np.float32))
    done = reading(tmp_path / "0.npy", tmp_path / "1.npy", specs=ROW).read(range(2))
    assert done.places == (0,) and "holds 2 samples" in done.skipped[0].reason


def test_readers_can_be_sent_to_other_processes(tmp_path: Path) -> None:
    folders(tmp_path, ["a", "b"])
    np.savez_compressed(tmp_path / "d.npz", x=np.arange(640, dtype=np.float32).reshape(10, 64))
    for read in (reading(tmp_path), reading(tmp_path / "d.npz", specs=ROW)):
        again = pickle.loads(pickle.dumps(read))
        one, two = read.read(range(2)).batch, again.read(range(2)).batch
        assert one is not None and two is not None
        np.testing.assert_array_equal(one.arrays["x"], two.arrays["x"])


def test_inputs_given_by_name_are_one_for_all_or_one_for_each(tmp_path: Path) -> None:
    specs = {**ROW, "rate": TensorSpec("rate", "float32", ("N", 1))}
    np.save(tmp_path / "x.npy", np.zeros((6, 64), np.float32))
    np.save(tmp_path / "rate.npy", np.arange(6, dtype=np.float32)[:, None])
    for value, expected in (("3.5", [3.5, 3.5]), (f"@{tmp_path / 'rate.npy'}", [2, 3])):
        batch = reading(tmp_path / "x.npy", specs=specs, named={"rate": value}).read(range(2, 4)).batch
        assert batch is not None and batch.arrays["rate"].ravel().tolist() == expected
    np.save(tmp_path / "rate.npy", np.zeros((5, 1), np.float32))
    with pytest.raises(InputError, match="holds 5 samples, but the data set 6"):
        reading(tmp_path / "x.npy", specs=specs, named={"rate": f"@{tmp_path / 'rate.npy'}"})


@pytest.mark.parametrize(
    ("folder_names", "names", "count", "labels", "comparable"),
    [
        (["cat", "dog"], ["dog", "Cat", "fox"], 3, [1, 0], True),  # by name, in the model's order
        (["great_white_shark", "tench"], ["tench, Tinca tinca", "x", "Great White Shark"], 3, [2, 0], True),
        (["0", "2"], None, 3, [0, 2], True),  # by number
        (["0", "7"], None, 3, [0, 7], False),  # a number the model doesn't have
        (["ant", "bee"], None, 2, [0, 1], True),  # as many as the model's: alphabetically, as torchvision has it
        (["ant", "bee"], ["x", "y"], 2, [0, 1], True),
        (["ant", "bee"], ["bee", "cow"], 2, [0, 1], False),  # one is known, one isn't
        (["ant", "bee"], None, 5, [0, 1], False),
        (["ant", "bee"], None, None, [0, 1], False),  # the model scores no classes
    ],
)
def test_classes_are_put_into_the_models_order_where_that_can_be_told(
    tmp_path: Path,
    folder_names: list[str],
    names: list[str] | None,
    count: int | None,
    labels: list[int],
    comparable: bool,
) -> None:
    data = found(folders(tmp_path, folder_names, each=1)).aligned(names, count)
    assert data.comparable is comparable
    assert data.labels.tolist() == labels
    if not comparable and count is not None:
        assert "not compared" in data.notes[-1]


def test_names_in_the_file_put_its_numbers_into_the_models_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 64), np.float32), y=[0, 1, 1], classes=np.array(["dog", "cat"]))
    data = found(tmp_path / "d.npz", specs=ROW)
    assert data.classes == ("dog", "cat")
    assert data.aligned(["cat", "dog"], 2).labels.tolist() == [1, 0, 0]


def test_the_digest_tells_data_sets_apart(tmp_path: Path) -> None:
    data = found(folders(tmp_path, ["a", "b"]))
    assert data.digest == found(tmp_path).digest
    assert data.digest != replace(data, labels=data.labels + 1).digest
    picture(tmp_path / "b" / "new.png")
    assert data.digest != found(tmp_path).digest


def test_thumbnails_keep_their_places_and_proportions(tmp_path: Path) -> None:
    for n in range(5):
        picture(tmp_path / f"{n}.png", 40 * n, size=(40, 20))
    (tmp_path / "2.png").write_bytes(b"")
    small = squares(reading(tmp_path), [0, 1, 2, 4], 16)
    assert sorted(small) == [0, 1, 4]
    for place, tile in small.items():
        assert tile.shape == (16, 16, 3)
        assert (tile[:4] == 255).all() and (tile[12:] == 255).all()  # 16 x 8 in the middle of 16 x 16
        assert (tile[4:12] == 40 * place).all()


@pytest.mark.parametrize("word", ["/nowhere/at/all", "random"])
def test_what_is_not_there_is_said(word: str) -> None:
    with pytest.raises(InputError, match="no such file"):
        found(word)
