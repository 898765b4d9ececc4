"""`weights` at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from onnx_inspect.cli.weights import command
from onnx_inspect.errors import LayerError, OutputError

ROOT = Path(__file__).parents[2]
NET = str(ROOT / "fixtures/digits_convnet.onnx")


def test_each_layers_main_weight_is_drawn_into_a_folder(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [NET, "-o", str(tmp_path)], catch_exceptions=False)
    paths = result.stdout.splitlines()
    assert len(paths) == 5  # two convolutions, three dense layers
    assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in paths)


def test_a_named_layer_is_drawn_with_its_bias(tmp_path: Path) -> None:
    args = [NET, "--layer", "Conv:0", "-o", str(tmp_path), "--json", "--save", str(tmp_path / "w.npz")]
    found = json.loads(CliRunner().invoke(command, args, catch_exceptions=False).stdout)
    assert found["parameters"] == 62_006
    assert [(w["role"], w["shape"]) for w in found["weights"]] == [("weight", [6, 3, 5, 5]), ("bias", [6])]
    assert all(Path(w["figure"]).is_file() for w in found["weights"])
    with np.load(tmp_path / "w.npz") as saved:
        assert {array.shape for array in saved.values()} == {(6, 3, 5, 5), (6,)}


def test_one_figure_can_be_named(tmp_path: Path) -> None:
    out = tmp_path / "fc.svg"
    result = CliRunner().invoke(command, [str(ROOT / "fixtures/linear.onnx"), "-o", str(out)], catch_exceptions=False)
    assert result.stdout == f"{out}\n"
    assert "<svg" in out.read_text(encoding="utf-8")
    with pytest.raises(OutputError, match="5 figures"):
        CliRunner().invoke(command, [NET, "-o", str(out)], catch_exceptions=False)


def test_a_layer_without_weights_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LayerError, match="no weights in"):
        CliRunner().invoke(command, [NET, "--layer", "Relu:0", "-o", str(tmp_path)], catch_exceptions=False)
    assert not list(tmp_path.iterdir())


def test_the_models_own_channel_order_is_used(tmp_path: Path) -> None:
    proto = onnx.load(NET)
    proto.metadata_props.add(key="onnx_inspect.preprocess", value='{"colour": "BGR"}')
    path = tmp_path / "bgr.onnx"
    onnx.save(proto, path)
    figures = []
    for number, more in enumerate(([], ["--colour", "BGR"], ["--colour", "RGB"])):
        args = [str(path), "--layer", "Conv:0", "-o", str(tmp_path / str(number)), *more]
        result = CliRunner().invoke(command, args, catch_exceptions=False)
        out = Path(result.stdout.splitlines()[0])
        figures.append(out.read_bytes())
    assert figures[0] == figures[1] != figures[2]
