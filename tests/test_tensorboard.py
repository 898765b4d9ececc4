"""What is written for TensorBoard is read back by TensorBoard itself."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from onnx_inspect import tensorboard as board
from onnx_inspect.errors import InputError, MissingExtra, OutputError

pytest.importorskip("tensorboard", reason="the extra `tensorboard` isn't installed")

VALUES = np.random.default_rng(0).normal(size=500)
PICTURE = np.random.default_rng(1).integers(0, 256, (12, 20, 3), np.uint8)


def events(folder: Path) -> dict[str, Any]:
    """Values by tag, as TensorBoard's own loader reads them."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util import tensor_util

    found = {}
    for path in sorted(folder.glob("events.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                plugin = value.metadata.plugin_data.plugin_name
                found[value.tag] = (plugin, event.step, tensor_util.make_ndarray(value.tensor))
    return found


def picture(file: Path | io.BytesIO) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        return np.asarray(image)


def write(folder: Path) -> None:
    with board.Writer(folder) as writer:
        writer.scalar("accuracy/layer 1", 0.25, 3)
        writer.histogram("features", VALUES, 1)
        writer.image("map", PICTURE, 2)
        writer.text("note", "*what* this is", 0)


def test_event_files_read_back_equal(tmp_path: Path) -> None:
    write(tmp_path)
    found = events(tmp_path)
    assert found["accuracy/layer 1"] == ("scalars", 3, np.float32(0.25))
    plugin, step, table = found["features"]
    counts, edges = np.histogram(VALUES, 30)
    assert (plugin, step) == ("histograms", 1)
    np.testing.assert_array_equal(table, np.stack([edges[:-1], edges[1:], counts], axis=1))
    plugin, step, parts = found["map"]
    assert (plugin, step, parts[0], parts[1]) == ("images", 2, b"20", b"12")
    np.testing.assert_array_equal(picture(io.BytesIO(parts[2])), PICTURE)
    assert found["note"][0] == "text" and found["note"][2].tolist() == [b"*what* this is"]


@pytest.mark.parametrize("values", [[], [np.nan, np.inf], [2.0, 2.0, np.nan]])
def test_histograms_of_nothing_and_of_one_value_are_written(tmp_path: Path, values: list[float]) -> None:
    with board.Writer(tmp_path) as writer:
        writer.histogram("h", np.array(values))
    table = events(tmp_path)["h"][2]
    assert table.shape[1] == 3
    assert table[:, 2].sum() == np.isfinite(values).sum()


def test_projector_files_hold_what_was_given(tmp_path: Path) -> None:
    points = np.random.default_rng(2).normal(size=(7, 3)).astype(np.float32)
    thumbnails = np.random.default_rng(3).integers(0, 256, (7, 4, 6, 3), np.uint8)
    notes = board.projector(tmp_path, {"a/b": points}, {"label": list("abcdefg"), "n": range(7)}, thumbnails)
    assert notes == ()
    np.testing.assert_allclose(np.loadtxt(tmp_path / "points-0.tsv"), points, rtol=1e-6)  # seven digits are written
    lines = (tmp_path / "metadata.tsv").read_text().splitlines()
    assert lines[0] == "label\tn" and lines[3] == "c\t2" and len(lines) == 8
    sprite = picture(tmp_path / "sprite.png")
    assert sprite.shape == (3 * 4, 3 * 6, 3)
    for n in range(7):
        row, column = divmod(n, 3)
        np.testing.assert_array_equal(sprite[4 * row : 4 * row + 4, 6 * column : 6 * column + 6], thumbnails[n])


def test_a_single_column_has_no_header(tmp_path: Path) -> None:
    board.projector(tmp_path, {"a": np.zeros((2, 3))}, {"label": ["two\twords", ""]})
    assert (tmp_path / "metadata.tsv").read_text() == "two words\n-\n"


def test_limits_of_the_projector_are_respected_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "POINTS", 10)
    monkeypatch.setattr(board, "SPRITE", 32)
    points = np.arange(25, dtype=np.float32)[:, None] * [1, 2]
    notes = board.projector(tmp_path, {"a": points}, {"n": range(25)}, np.zeros((25, 40, 20, 3), np.uint8))
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "points-0.tsv"), points[::3])
    assert (tmp_path / "metadata.tsv").read_text().split() == [str(n) for n in range(0, 25, 3)]
    assert max(picture(tmp_path / "sprite.png").shape) <= 32
    assert "9 of 25 points" in notes[0] and "from 20x40 to 5x10" in notes[1]


def test_what_is_not_finite_becomes_0_and_is_said(tmp_path: Path) -> None:
    notes = board.projector(tmp_path, {"a": np.array([[1, np.nan], [np.inf, 2]])}, {})
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "points-0.tsv"), [[1, 0], [0, 2]])
    assert "2 values of 'a'" in notes[0]


def test_parts_of_different_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="as many points as words"):
        board.projector(tmp_path, {"a": np.zeros((2, 3))}, {"label": ["one"]})


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't write"):
        board.Writer(tmp_path / "file")


def test_without_tensorboard_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtra, match=r"onnx-inspect\[tensorboard\]"):
        board.Writer(tmp_path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a TensorBoard that shows one run with everything."""
    folder = tmp_path_factory.mktemp("logs")
    write(folder / "run")
    points = np.random.default_rng(2).normal(size=(7, 3)).astype(np.float32)
    np.save(folder / "points.npy", points)
    names = {"label": list("abcdefg"), "n": list(range(7))}
    board.projector(folder / "run", {"a/b": points}, names, np.zeros((7, 4, 6, 3), np.uint8))
    with serving(folder) as address:
        yield address


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A TensorBoard of the runs in a folder, on a port that was free; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
    log = folder.with_name(f"{folder.name}.log")
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--load_fast", "false", "--reload_interval", "1"],
            stdout=file,
            stderr=file,
        )
    try:
        yield ready(f"http://127.0.0.1:{port}", process, log)
    finally:
        process.terminate()
        process.wait(10)


def ready(address: str, process: subprocess.Popen[bytes], log: Path) -> str:
    """Ask again and again, until the server has read the run's tags."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(urllib.error.URLError, ConnectionError):
            if "run" in json.loads(ask(address, "data/plugin/scalars/tags")):
                return address
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
            break
    raise AssertionError(f"TensorBoard doesn't answer: {log.read_text()}")


def ask(address: str, route: str, **parameters: str) -> bytes:
    query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
    with urllib.request.urlopen(f"{address}/{route}{query}", timeout=20) as answer:
        content: bytes = answer.read()
    return content


def test_a_real_tensorboard_serves_scalars_histograms_and_pictures(server: str) -> None:
    scalars = json.loads(ask(server, "data/plugin/scalars/scalars", run="run", tag="accuracy/layer 1"))
    assert [(step, value) for _, step, value in scalars] == [(3, 0.25)]
    (histogram,) = json.loads(ask(server, "data/plugin/histograms/histograms", run="run", tag="features"))
    assert sum(bucket[2] for bucket in histogram[2]) == len(VALUES)
    (image,) = json.loads(ask(server, "data/plugin/images/images", run="run", tag="map", sample="0"))
    png = ask(server, f"data/plugin/images/individualImage?{image['query']}")
    np.testing.assert_array_equal(picture(io.BytesIO(png)), PICTURE)
    assert "what" in ask(server, "data/plugin/text/text", run="run", tag="note").decode()


def test_a_real_tensorboard_serves_the_projectors_files(server: str) -> None:
    assert json.loads(ask(server, "data/plugin/projector/runs")) == ["run"]
    config = json.loads(ask(server, "data/plugin/projector/info", run="run"))
    (entry,) = config["embeddings"]
    assert entry["tensorShape"] == [7, 3] and entry["sprite"]["singleImageDim"] == [6, 4]
    served = np.frombuffer(ask(server, "data/plugin/projector/tensor", run="run", name="a/b"), np.float32)
    points = np.random.default_rng(2).normal(size=(7, 3)).astype(np.float32)
    np.testing.assert_allclose(served.reshape(7, 3), points, rtol=1e-6)  # seven digits are written
    words = ask(server, "data/plugin/projector/metadata", run="run", name="a/b").decode().splitlines()
    assert words[0] == "label\tn" and len(words) == 8
    sprite = ask(server, "data/plugin/projector/sprite_image", run="run", name="a/b")
    assert picture(io.BytesIO(sprite)).shape == (12, 18, 3)
