"""A written model is the same model, wherever its weights lie."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_inspect.engine import Engine
from onnx_inspect.errors import OutputError
from onnx_inspect.graph.read import read
from onnx_inspect.graph.surgery import expose
from onnx_inspect.graph.write import write


def test_a_written_model_gives_the_same(fixtures: Path, tmp_path: Path, some: Any, plainly: Any) -> None:
    for path in sorted(fixtures.glob("*.onnx")):
        model = read(path)
        write(expose(model, model.layers[:1]), tmp_path / path.stem / "copy.onnx")
        copied = tmp_path / path.stem / "copy.onnx"
        feeds = some(model, 1)
        for name, values in plainly(path, feeds).items():
            found = plainly(copied, feeds)[name]
            np.testing.assert_allclose(found, values, rtol=0, atol=2e-3 if path.stem == "fp16" else 0)
        assert model.layers[0].output.name in {o.name for o in onnx.load(copied, load_external_data=False).graph.output}


def test_external_data_goes_with_the_model(fixtures: Path, tmp_path: Path) -> None:
    write(read(fixtures / "external.onnx"), tmp_path / "net.onnx")
    assert (tmp_path / "external.data").read_bytes() == (fixtures / "external.data").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["external.data", "net.onnx"]


def test_a_model_is_written_beside_its_own_data(fixtures: Path, tmp_path: Path) -> None:
    for name in ("external.onnx", "external.data"):
        shutil.copyfile(fixtures / name, tmp_path / name)
    model = read(tmp_path / "external.onnx")
    write(expose(model, ["relu"]), tmp_path / "open.onnx")
    found = Engine(read(tmp_path / "open.onnx")).run({"input": np.ones((1, 3, 12, 12), np.float32)})
    assert found["relu"].shape == (1, 6, 12, 12)


def test_other_data_of_the_same_name_is_not_overwritten_nor_taken(fixtures: Path, tmp_path: Path) -> None:
    data = bytearray((fixtures / "external.data").read_bytes())
    data[100] ^= 1  # the same length, other weights
    (tmp_path / "external.data").write_bytes(data)
    with pytest.raises(OutputError, match="exists and is not the data of"):
        write(read(fixtures / "external.onnx"), tmp_path / "net.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["external.data"]


def test_data_behind_links_is_copied_as_a_file(fixtures: Path, tmp_path: Path) -> None:
    cache, snapshot = tmp_path / "blobs", tmp_path / "snapshots"
    cache.mkdir()
    snapshot.mkdir()
    for name in ("external.onnx", "external.data"):
        shutil.copyfile(fixtures / name, cache / f"hash-{name}")
        (snapshot / name).symlink_to(cache / f"hash-{name}")
    write(read(snapshot / "external.onnx"), tmp_path / "out" / "net.onnx")
    assert not (tmp_path / "out" / "external.data").is_symlink()
    feeds = {"input": np.ones((1, 3, 12, 12), np.float32)}
    expected = Engine(read(fixtures / "external.onnx"), exact=True).run(feeds)["logits"]
    np.testing.assert_array_equal(
        Engine(read(tmp_path / "out" / "net.onnx"), exact=True).run(feeds)["logits"], expected
    )


def test_a_place_that_can_not_be_written_is_said(fixtures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't write"):
        write(read(fixtures / "gap.onnx"), tmp_path / "file" / "net.onnx")
    with pytest.raises(OutputError, match="is a folder"):
        write(read(fixtures / "gap.onnx"), tmp_path)
