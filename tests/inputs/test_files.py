from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnx_inspect.errors import InputError
from onnx_inspect.inputs.files import expand, load


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("b.png", "a.JPG", "c.webp", ".hidden.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "sub").mkdir()
    np.save(tmp_path / "sub" / "z.npy", np.zeros(3))
    return tmp_path


def names(found):
    return [f.path.name for f in found]


def test_a_folder_means_its_pictures_in_order(folder):
    found = expand(str(folder))
    assert names(found) == ["a.JPG", "b.png", "c.webp"] and all(f.listed for f in found)


def test_a_glob_means_its_files_in_order(folder, monkeypatch):
    assert names(expand(f"{folder}/[ab].*")) == ["a.JPG", "b.png"]
    assert names(expand(f"{folder}/**/*.npy")) == ["z.npy"]
    monkeypatch.chdir(folder / "sub")
    assert names(expand("../*.web?")) == ["c.webp"]
    assert names(expand("*.npy")) == ["z.npy"]


def test_a_file_with_brackets_in_its_name_is_that_file(folder):
    (folder / "b[1].png").write_bytes((folder / "b.png").read_bytes())
    assert names(expand(str(folder / "b[1].png"))) == ["b[1].png"]


def test_a_test_data_folder_is_kept_whole(tmp_path):
    for k in (10, 2, 0):
        (tmp_path / f"input_{k}.pb").write_bytes(b"")
    (found,) = expand(str(tmp_path))
    assert found.path == tmp_path and not found.listed


def test_a_missing_file_suggests_its_neighbours(folder):
    with pytest.raises(InputError, match=r"b.pgn: no such file; closest in .*'b.png'"):
        expand(str(folder / "b.pgn"))
    with pytest.raises(InputError, match=r"its folder .*nowhere doesn't exist either"):
        expand(str(folder / "nowhere" / "a.png"))
    with pytest.raises(InputError, match="no file matches"):
        expand(f"{folder}/*.bmp")
    with pytest.raises(InputError, match="no such file"):
        expand("x" * 5000)


def test_a_folder_without_pictures_says_what_else_there_is(folder):
    with pytest.raises(InputError, match=r"holds no pictures \(1 other files\); name its arrays .*/\*.npy'"):
        expand(str(folder / "sub"))
    (folder / "deep" / "class").mkdir(parents=True)
    with pytest.raises(InputError, match=r"pictures end in .bmp, .gif"):
        expand(str(folder / "deep"))
    (folder / "b.png").rename(folder / "deep" / "class" / "b.png")
    with pytest.raises(InputError, match=r"look below it, like '.*/deep/\*/\*.png'"):
        expand(str(folder / "deep"))


def test_an_unknown_kind_lists_the_known_ones(folder):
    with pytest.raises(InputError, match=r"isn't read \(.txt\); these are: .bmp, .*.webp"):
        load(folder / "notes.txt")
    with pytest.raises(InputError, match="is a folder"):
        load(folder)
