"""A plug-in's file name is its registration."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from onnx_inspect import discover


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "plugged_in"
    folder.mkdir()
    for name in ("__init__", "_hidden", "one_word", "two"):
        (folder / f"{name}.py").write_text(f"NAME = {name!r}\n")
    (folder / "notes.txt").write_text("no module")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [n for n in sys.modules if n.split(".")[0] == "plugged_in"]:
        monkeypatch.delitem(sys.modules, name)  # another test's
    return "plugged_in"


def test_names_are_the_public_files_with_dashes(package: str) -> None:
    assert discover.names(package) == ["one-word", "two"]
    assert f"{package}.two" not in sys.modules  # looking imports nothing


def test_a_new_file_is_a_new_name(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "three.py").write_text("NAME = 'three'\n")
    assert discover.names(package) == ["one-word", "three", "two"]


def test_a_module_is_loaded_by_either_spelling(package: str) -> None:
    assert discover.load(package, "one-word").NAME == "one_word"


@pytest.mark.parametrize("name", ["none", "_hidden", "__init__", "os", ".two", ""])
def test_an_unknown_name_is_a_key_error(package: str, name: str) -> None:
    with pytest.raises(KeyError, match=f"^'{name}'$"):
        discover.load(package, name)


def test_every_method_and_command_can_be_loaded() -> None:
    for where in ("onnx_inspect.cam", "onnx_inspect.cli"):
        for name in discover.names(where):
            assert discover.load(where, name).__doc__
