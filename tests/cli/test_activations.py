"""Whether `activations` draws, saves and counts what it says, and tells the choices it made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from onnx_inspect.cli.activations import command
from onnx_inspect.errors import LayerError, OutputError

ROOT = Path(__file__).parents[2]
MODEL = str(ROOT / "fixtures" / "digits_convnet.onnx")
PICTURE = str(ROOT / "onnx_inspect" / "assets" / "digit_3.png")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)


def test_figures_are_written_for_each_layer_and_an_overview(tmp_path: Path) -> None:
    result = run(MODEL, PICTURE, "-o", tmp_path)
    assert result.exit_code == 0
    written = sorted(path.name for path in tmp_path.iterdir())
    assert "digit_3-overview.png" in written
    assert 4 <= len(written) <= 9
    for name in written:
        with Image.open(tmp_path / name) as image:
            assert len(image.convert("RGB").getcolors(1 << 24)) > 20
    assert "evenly along depth" in result.stderr
    assert all(str(tmp_path / name) in result.stdout for name in written)


def test_quiet_says_nothing_but_results(tmp_path: Path) -> None:
    assert run(MODEL, PICTURE, "-o", tmp_path, "--quiet").stderr == ""


def test_json_holds_statistics_of_what_was_saved(tmp_path: Path) -> None:
    trace = tmp_path / "trace.npz"
    result = run(MODEL, PICTURE, "--layer", "Relu:0", "--layer", "-1", "-o", tmp_path, "--save", trace, "--json")
    data = json.loads(result.stdout, parse_constant=pytest.fail)
    with np.load(trace) as file:
        arrays = dict(file)
    assert [layer["layer"] for layer in data["layers"]] == list(arrays)
    for layer in data["layers"]:
        array = arrays[layer["layer"]].astype(np.float64)
        assert layer["shape"] == list(array.shape)
        assert layer["mean"] == pytest.approx(array.mean(), rel=1e-9)
        assert layer["max"] == array.max()
    assert data["inputs"] == [{"source": PICTURE}]
    assert data["provider"] == "CPUExecutionProvider"
    assert all(Path(figure).is_file() for figure in data["figures"])


def test_the_batch_axis_is_kept_and_each_input_has_its_figures(tmp_path: Path) -> None:
    other = str(ROOT / "onnx_inspect" / "assets" / "digit_7.png")
    run(MODEL, PICTURE, other, "--layer", "Conv:0", "-o", tmp_path, "--save", tmp_path / "t.npz", "--quiet")
    with np.load(tmp_path / "t.npz") as file:
        assert [array.shape[0] for array in file.values()] == [2]
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert [name.split("-")[0] for name in pictures] == ["digit_3", "digit_7"]


def test_one_layer_may_go_to_one_file_of_any_format(tmp_path: Path) -> None:
    run(MODEL, PICTURE, "--layer", "Conv:0", "-o", tmp_path / "conv.svg")
    assert (tmp_path / "conv.svg").read_text().startswith("<?xml")


def test_several_figures_need_a_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="give a folder"):
        run(MODEL, PICTURE, "-o", tmp_path / "all.png")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_layer_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="closest"):
        run(MODEL, PICTURE, "--layer", "conv99", "-o", tmp_path)


@pytest.mark.parametrize("scale", ["own", "shared"])
def test_channels_and_scale_are_passed_on(tmp_path: Path, scale: str) -> None:
    result = run(MODEL, PICTURE, "--layer", "Conv:0", "--channels", "2", "--scale", scale, "-o", tmp_path / "a.png")
    assert result.exit_code == 0
    assert (tmp_path / "a.png").is_file()


def test_a_dead_layer_is_counted(tmp_path: Path) -> None:
    model = str(ROOT / "fixtures" / "dead.onnx")
    result = run(model, "random", "--layer", "Relu:0", "-o", tmp_path / "a.png", "--json", "--quiet")
    (layer,) = json.loads(result.stdout)["layers"]
    assert layer["zeros"] == 1
    assert layer["dead"] == list(range(layer["channels"]))


@pytest.mark.parametrize(
    "name", ["conv1d", "conv3d", "lstm", "nhwc", "digits_vit", "fp16", "int8_qdq", "if_loop", "skip"]
)
def test_every_kind_of_network_can_be_looked_at(tmp_path: Path, name: str) -> None:
    result = run(ROOT / "fixtures" / f"{name}.onnx", "random", "-o", tmp_path, "--json", "--quiet")
    data = json.loads(result.stdout, parse_constant=pytest.fail)
    assert data["layers"]
    assert len(data["figures"]) == len(data["layers"]) + (len(data["layers"]) > 1)


def test_help_has_an_example() -> None:
    assert "Example:" in run("--help").stdout
