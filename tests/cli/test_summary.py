"""`summary` at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from onnx_inspect.cli.summary import command
from onnx_inspect.errors import InputError

ROOT = Path(__file__).parents[2]
NET = str(ROOT / "fixtures/digits_convnet.onnx")


def test_json_keeps_the_contract_and_ranks_the_layers() -> None:
    result = CliRunner().invoke(command, [NET, "--json"], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert found["parameters"] == 62_006
    ranks = [row["cam_rank"] for row in found["layers"] if row["cam_rank"]]
    assert sorted(ranks) == list(range(1, len(ranks) + 1))


def test_text_lists_every_layer() -> None:
    result = CliRunner().invoke(command, [NET], catch_exceptions=False)
    assert result.exit_code == 0
    assert "★" in result.stdout
    assert result.stdout.count("Conv") >= 3


def test_out_writes_the_json_to_a_file(tmp_path: Path) -> None:
    out = tmp_path / "deep/summary.json"
    CliRunner().invoke(command, [NET, "-o", str(out)], catch_exceptions=False)
    assert json.loads(out.read_text(encoding="utf-8"))["model"] == NET


def test_shape_sets_the_costs() -> None:
    one, two = (
        json.loads(CliRunner().invoke(command, [NET, "--json", *more], catch_exceptions=False).stdout)
        for more in ([], ["--shape", "input=2,3,32,32"])
    )
    assert two["macs"] == 2 * one["macs"]


@pytest.mark.parametrize("text", ["1,3,32,32", "input=", "input=1,x", "input=1,0,3", "=1,2"])
def test_a_shape_that_cannot_be_read_is_a_usage_error(text: str) -> None:
    result = CliRunner().invoke(command, [NET, "--shape", text])
    assert result.exit_code == 2
    assert "is not NAME=1,3,224,224" in result.stderr


def test_a_shape_that_does_not_fit_is_an_input_error() -> None:
    with pytest.raises(InputError, match="give a shape that fits"):
        CliRunner().invoke(command, [NET, "--shape", "input=1,4,32,32"], catch_exceptions=False)
