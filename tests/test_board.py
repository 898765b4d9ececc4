"""What `embed --tensorboard` writes is loaded by a real TensorBoard: points, words, thumbnails, histograms, figures."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_inspect import board, capture, tensorboard
from tests.cli.conftest import run  # noqa: F401  # the fixture
from tests.test_tensorboard import ask, events, picture, serving

pytest.importorskip("tensorboard", reason="the extra `tensorboard` isn't installed")

FIXTURES = Path(__file__).parents[1] / "fixtures"
NET = FIXTURES / "digits_convnet.onnx"
Run = Callable[..., Any]


@dataclass(frozen=True)
class Written:
    folder: Path
    captured: capture.Captured
    points: Any
    said: str
    images: Any


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A run with two layers of 120 digits."""
    from click.testing import CliRunner

    from onnx_inspect.cli.app import group

    root = tmp_path_factory.mktemp("board")
    with np.load(FIXTURES / "inputs" / "digits.npz") as file:
        images = file["images"][:120]
        np.savez(root / "d.npz", images=images, labels=file["labels"][:120])
    words = ["--layer", "Relu:0", "--layer", "Relu:-1"]
    runner = CliRunner()
    kept = ["capture", str(NET), str(root / "d.npz"), *words, "--pool", "mean", "-o", str(root / "c")]
    assert runner.invoke(group, kept).exit_code == 0
    out = ["--save", str(root / "p.npz"), "-o", str(root / "e.png"), "--tensorboard", str(root / "logs" / "run")]
    done = runner.invoke(group, ["embed", str(root / "c"), *out], catch_exceptions=False)
    assert done.exit_code == 0
    with np.load(root / "p.npz") as file:
        points = file["points"]
    return Written(root / "logs" / "run", capture.open(root / "c"), points, done.stderr, images)


@pytest.fixture(scope="module")
def server(written: Written) -> Iterator[str]:
    with serving(written.folder.parent) as address:
        yield address


def test_the_projector_gets_features_and_our_points(server: str, written: Written) -> None:
    config = json.loads(ask(server, "data/plugin/projector/info", run="run"))
    names = [entry["tensorName"] for entry in config["embeddings"]]
    first, last = written.captured.layers
    assert names == [first, f"{first} (pca, 2-D)", last, f"{last} (pca, 2-D)"]
    for name, expected in ((last, np.asarray(written.captured.array(last))), (names[-1], written.points)):
        served = np.frombuffer(ask(server, "data/plugin/projector/tensor", run="run", name=name), np.float32)
        np.testing.assert_allclose(served.reshape(expected.shape), expected, rtol=1e-6)  # seven digits are written


def test_the_projector_gets_words_and_thumbnails_in_the_same_order(server: str, written: Written) -> None:
    layer = written.captured.layers[0]
    rows = ask(server, "data/plugin/projector/metadata", run="run", name=layer).decode().splitlines()
    assert rows[0].split("\t") == ["class", "predicted", "confidence", "right", "source"]
    for n, row in enumerate(rows[1:]):
        cells = row.split("\t")
        assert cells[0] == str(written.captured.labels[n]) and cells[-1] == written.captured.sources[n]
    sheet = picture(io.BytesIO(ask(server, "data/plugin/projector/sprite_image", run="run", name=layer)))
    assert sheet.shape == (11 * 32, 11 * 32, 3)
    for n in (0, 57, 119):
        y, x = (32 * k for k in divmod(n, 11))
        tile = sheet[y : y + 32, x : x + 32, 0]
        np.testing.assert_array_equal(tile, written.images[n].repeat(4, 0).repeat(4, 1))


def test_histograms_curves_and_the_figure_are_served(server: str, written: Written) -> None:
    for depth, layer in enumerate(written.captured.layers):
        route = "data/plugin/histograms/histograms"
        (found,) = json.loads(ask(server, route, run="run", tag=f"features/{layer}"))
        assert found[1] == depth
        assert sum(bucket[2] for bucket in found[2]) == np.asarray(written.captured.array(layer)).size
    curve = json.loads(ask(server, "data/plugin/scalars/scalars", run="run", tag="along depth/knn_features"))
    assert [step for _, step, _ in curve] == [0, 1] and curve[0][2] < curve[1][2]
    assert len(json.loads(ask(server, "data/plugin/images/images", run="run", tag="embedding", sample="0"))) == 1


def test_the_event_file_reads_back_what_is_known(written: Written) -> None:
    found = events(written.folder)
    about = found["about"][2].item().decode()
    assert json.loads(about.removeprefix("```json\n").removesuffix("\n```"))["method"] == "pca"
    assert "tensorboard --logdir" in written.said


def test_more_than_the_projector_loads_is_thinned_and_said(
    written: Written, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from onnx_inspect.embedding import embed

    monkeypatch.setattr(board, "POINTS", 50)
    monkeypatch.setattr(board, "WIDEST", 20)
    found = embed(written.captured, written.captured.layers)
    notes = board.write(tmp_path, found, written.captured, None, figure=np.zeros((4, 4, 3), np.uint8))
    assert (
        "40 of 120 samples, one of every 3" in notes[0] and "has 84 features, 50 components stand for them" in notes[1]
    )
    assert len((tmp_path / "metadata.tsv").read_text().splitlines()) == 41
    np.testing.assert_allclose(np.loadtxt(tmp_path / "points-1.tsv"), found.projections[0].points[::3], rtol=1e-6)


def test_without_tensorboard_nothing_is_run(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # noqa: F811
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    words = ["--tensorboard", tmp_path / "logs", "-o", tmp_path / "e.png"]
    result = run("embed", NET, FIXTURES / "inputs" / "digits.npz", *words)
    assert result.code == 2 and "onnx-inspect[tensorboard]" in result.err
    assert list(tmp_path.iterdir()) == []


def test_limits_are_tensorboards() -> None:
    assert (tensorboard.POINTS, tensorboard.SPRITE) == (100_000, 8192)
