"""Whether a figure's file is whole, in the format its name says, and the same bytes each time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from onnx_inspect.errors import OutputError
from onnx_inspect.render._save import check, save

STARTS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


def figure() -> Figure:
    made = Figure(figsize=(2, 1))
    axes = made.add_axes((0.2, 0.2, 0.7, 0.7))
    axes.imshow([[0, 1], [2, 3]])
    axes.set_title("a title")
    return made


@pytest.mark.parametrize("suffix", STARTS)
def test_the_suffix_names_the_format(tmp_path: Path, suffix: str) -> None:
    for name in (f"a{suffix}", f"b{suffix.upper()}"):
        save(figure(), tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(STARTS[suffix])


@pytest.mark.parametrize("suffix", STARTS)
def test_the_same_figure_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("one", "two"):
        save(figure(), tmp_path / f"{name}{suffix}")
    first, second = (tmp_path / f"{name}{suffix}" for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("suffix", STARTS)
def test_nothing_of_the_clock_or_the_program_is_written(tmp_path: Path, suffix: str) -> None:
    save(figure(), tmp_path / f"a{suffix}")
    text = (tmp_path / f"a{suffix}").read_bytes().decode("latin-1")
    assert not re.search(r"CreationDate|ModDate|<dc:date>|Software|20\d\d-\d\d-\d\d", text)


@pytest.mark.parametrize("name", ["figure.jpg", "figure", "figure.png.txt"])
def test_another_suffix_is_an_error_that_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"\.png, \.svg, \.pdf"):
        save(figure(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_drawing_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save(figure(), path)
    before = path.read_bytes()
    broken = figure()
    broken.axes[0].images[0].draw = None  # type: ignore[method-assign, assignment]
    with pytest.raises(TypeError):
        save(broken, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_figure_is_left_as_it_was(tmp_path: Path) -> None:
    made = figure()
    canvas, dpi, size = made.canvas, made.dpi, tuple(made.get_size_inches())
    save(made, tmp_path / "a.svg")
    save(made, tmp_path / "a.png", dpi=200)
    assert (made.canvas, made.dpi, tuple(made.get_size_inches())) == (canvas, dpi, size)


def test_missing_folders_are_made(tmp_path: Path) -> None:
    save(figure(), tmp_path / "new" / "folder" / "a.png")
    assert (tmp_path / "new" / "folder" / "a.png").is_file()


def test_a_suffix_can_be_checked_before_the_work() -> None:
    assert check("A.PNG") == ".png"
    with pytest.raises(OutputError):
        check("a.gif")
