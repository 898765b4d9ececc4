"""Whether `channels` finds the pieces that excite channels, says where they lie, and weighs concepts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_inspect.errors import LayerError
from tests.conftest import run_plainly

FIXTURES = Path(__file__).parents[2] / "fixtures"
NET = FIXTURES / "digits_convnet.onnx"
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every twelfth digit, enlarged to what the model takes."""
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    with np.load(FIXTURES / "inputs" / "digits.npz") as file:
        np.savez(path, images=file["images"][::12].repeat(4, 1).repeat(4, 2), labels=file["labels"][::12])
    return path


def test_a_crop_is_the_piece_of_the_picture_that_alone_makes_its_value(run: Run, data: Path, tmp_path: Path) -> None:
    result = run("channels", NET, data, "--layer", "Relu:1", "--top", 3, "-o", tmp_path / "c.png", "--json")
    assert result.code == 0
    (layer,) = result.json["layers"]
    assert layer["receptive_field"] == [14, 14] and layer["channels_in_all"] == 16 and layer["by"] == "class"
    with np.load(data) as stored:
        pictures = stored["images"]
    for one in layer["channels"][:4]:
        for crop in one["top"]:
            left, top, right, bottom = (round(n) for n in crop["box"])
            assert (right - left, bottom - top) == (14, 14)
            seen = np.full((1, 3, 32, 32), 1.0, np.float32)  # all white but the crop
            pixels = pictures[crop["place"], top:bottom, left:right]
            seen[:, :, top:bottom, left:right] = pixels / 127.5 - 1
            values = run_plainly(_opened("relu_1"), {"input": seen}, ["relu_1"])["relu_1"][0, one["channel"]]
            assert values.reshape(-1)[crop["position"]] == pytest.approx(crop["value"], abs=1e-4)  # float32 sums


def test_a_capture_gives_what_the_model_gives(run: Run, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "captured"
    assert run("capture", NET, data, "--layer", "Relu:1", "-o", folder, "-q").code == 0
    words = ("--channels", "3,0-1", "--json", "-q", "-o", tmp_path / "c.png")
    direct = run("channels", NET, data, "--layer", "Relu:1", *words).json["layers"]
    again = run("channels", folder, *words).json["layers"]
    assert [one["channel"] for one in direct[0]["channels"]] == [3, 0, 1]
    for one, other in zip(direct[0]["channels"], again[0]["channels"], strict=True):
        assert one["top"] == other["top"] and one["preferred"] == other["preferred"]
        assert one["class_means"] == pytest.approx(
            other["class_means"], rel=1e-12
        )  # sums of other portions, in float64


def test_a_global_layer_shows_whole_pictures(run: Run, data: Path, tmp_path: Path) -> None:
    result = run("channels", NET, data, "--layer", "Relu:-1", "--top", 2, "-o", tmp_path / "c.png", "--json")
    (layer,) = result.json["layers"]
    assert layer["whole_input"] is True
    assert all(crop["box"] == [0, 0, 32, 32] for one in layer["channels"] for crop in one["top"])


def test_pages_and_saved_numbers(run: Run, data: Path, tmp_path: Path) -> None:
    saved = tmp_path / "c.npz"
    words = ("--layer", "Relu:2", "--channels", "0-19", "--top", "1", "--save", saved, "-o", tmp_path)
    result = run("channels", NET, data, *words)
    assert len(list(tmp_path.glob("*.png"))) == 2 and result.out.count(".png") == 2
    with np.load(saved) as file:
        assert file["values"].shape == (120, 1)
        assert file["means"].shape == (10, 120)
        np.testing.assert_array_equal(file["dead"], file["low"] == file["high"])


def test_concepts_say_what_they_decide_and_are_seeded(run: Run, data: Path, tmp_path: Path) -> None:
    words = ("channels", NET, data, "--layer", "Relu:1", "--concepts", 4, "--top", 2, "--json", "-q")
    saved = tmp_path / "c.npz"
    first = run(*words, "-o", tmp_path / "a.png", "--save", saved).json["layers"][0]
    again = run(*words, "-o", tmp_path / "b.png").json["layers"][0]
    assert first == again
    assert first["measure"] == "share in the class score (Sobol)"
    table = np.array(list(first["importance"].values()))
    assert table.shape == (10, 4) and (table >= 0).all() and table.max() > 0.3
    assert sum(first["shares"]) == pytest.approx(1)
    assert 0.3 < first["explained"] <= 1
    with np.load(saved) as file:
        assert file["basis"].shape == (4, 16) and (file["basis"] >= 0).all()


def test_without_a_way_to_the_scores_concepts_are_weighed_by_correlation(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_way(*given: Any) -> None:
        raise LayerError("the model can't be cut there")

    monkeypatch.setattr("onnx_inspect.concepts._Tail", no_way)
    words = ("--layer", "Relu:1", "--concepts", 4, "--top", 2, "--json", "-q", "-o", tmp_path / "a.png")
    (layer,) = run("channels", NET, data, *words).json["layers"]
    assert layer["measure"] == "correlation with the class score"
    table = np.array(list(layer["importance"].values()))
    assert table.shape == (10, 4) and np.abs(table).max() <= 1 and np.abs(table).max() > 0.3


def test_signals_show_the_stretch_that_was_seen(run: Run, tmp_path: Path) -> None:
    signals = np.random.default_rng(0).normal(size=(12, 2, 32)).astype(np.float32)
    np.save(tmp_path / "signals.npy", signals)
    words = ("--layer", "Relu:1", "--top", 2, "--json", "-q", "-o", tmp_path / "a.png")
    (layer,) = run("channels", FIXTURES / "conv1d.onnx", tmp_path / "signals.npy", *words).json["layers"]
    assert layer["receptive_field"] == [7]
    boxes = [crop["box"] for one in layer["channels"] for crop in one["top"]]
    assert boxes and all(0 <= start < stop <= 32 and stop - start <= 7 for start, stop in boxes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layer", "Relu:1", "--channels", "0-99"), "not among the layer's 16 channels"),
        (("--layer", "Relu:1", "--channels", "x"), "no number and no range"),
        (("--layer", "Conv:1", "--concepts", "3"), "negative values"),
        (("--layer", "Relu:1", "--concepts", "99"), "no 99 concepts"),
        (("--layer", "Relu:1", "--concepts", "3", "--channels", "0"), "leave out --channels"),
        (("--layer", "Relu:0", "--layer", "Relu:1", "--save", "x.npz"), "--save holds one layer"),
    ],
)
def test_what_cannot_be_shown_is_said(
    run: Run, data: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    result = run("channels", NET, data, *words, "-o", tmp_path)
    assert result.code == 2 and message in result.err and result.err.strip().count("\n") <= 2


def test_a_pooled_capture_says_no_positions(run: Run, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "captured"
    assert run("capture", NET, data, "--layer", "Relu:1", "--pool", "mean", "-o", folder, "-q").code == 0
    result = run("channels", folder, "-o", tmp_path / "c.png")
    assert result.code == 2 and "--pool none" in result.err


def _opened(tensor: str) -> Any:
    from onnx_inspect.graph.read import read
    from onnx_inspect.graph.surgery import expose

    return expose(read(NET), [tensor])
