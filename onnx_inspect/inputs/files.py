"""Which files the user's words mean, and what each one holds."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from onnx_inspect import discover
from onnx_inspect.errors import InputError

READERS = "onnx_inspect.inputs.readers"


@dataclass(frozen=True)
class Found:
    """A file or a test-data folder; `listed` when a folder's listing gave it, so that a broken one may be skipped."""

    path: Path
    listed: bool = False


@dataclass(frozen=True)
class Content:
    """What a file holds: arrays by their names in it, "" where it names none; or one uint8 picture (H, W, 3)."""

    arrays: dict[str, NDArray[Any]]
    picture: bool


def expand(text: str) -> tuple[Found, ...]:
    """Find what a word means: a file, a folder's pictures, a folder of ``input_*.pb``, or a glob's files.

    Folders and globs are sorted by name; hidden files in folders are left out.

    Raises
    ------
    InputError
        Nothing there; the nearest names in the folder are given.
    """
    path = Path(text).expanduser()
    if exists(path):
        return _folder(path) if path.is_dir() else (Found(path),)
    if any(c in text for c in "*?["):
        return _glob(path)
    raise _missing(path)


def exists(path: Path) -> bool:
    """Whether there is something at a path; text that can't be one (too long, for instance) is none."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def load(path: Path) -> Content:
    """Read a file with the reader for its suffix.

    Raises
    ------
    InputError
        No reader for the suffix, or the reader can't read it.
    """
    if not exists(path):
        raise _missing(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it")
    table = _readers()
    module = table.get(path.suffix.lower())
    if module is None:
        raise InputError(
            f"{path} is of a kind that isn't read ({path.suffix or 'no suffix'}); these are: {_known(table)}"
        )
    return Content(module.read(path), module.PICTURES)


def is_picture(path: str | Path) -> bool:
    """Whether a file's suffix is a picture's."""
    reader = _readers().get(os.path.splitext(path)[1].lower())  # noqa: PTH122  far faster than a Path for many files
    return reader is not None and bool(reader.PICTURES)


def test_set(folder: Path) -> tuple[Path, ...]:
    """Return ``input_0.pb``, ``input_1.pb``, ... of an ONNX test-data folder by number; empty if it isn't one."""
    numbered = {int(m[1]): p for p in folder.glob("input_*.pb") if (m := re.fullmatch(r"input_(\d+)\.pb", p.name))}
    return tuple(numbered[k] for k in sorted(numbered))


@cache
def _readers() -> dict[str, ModuleType]:
    modules = [discover.load(READERS, name) for name in discover.names(READERS)]
    return {suffix: module for module in modules for suffix in module.SUFFIXES}


def _known(table: dict[str, ModuleType]) -> str:
    return ", ".join(sorted(table))


def _folder(folder: Path) -> tuple[Found, ...]:
    if test_set(folder):
        return (Found(folder),)
    table = _readers()
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    pictures = [p for p in files if (reader := table.get(p.suffix.lower())) and reader.PICTURES]
    if pictures:
        return tuple(Found(p, listed=True) for p in pictures)
    other = sorted({p.suffix.lower() for p in files} & table.keys())
    below = next((s for s in table if table[s].PICTURES and next(folder.glob(f"*/*{s}"), None)), "")
    if other:
        advice = f"; name its arrays themselves, like '{folder}/*{other[0]}'"
    elif below:
        advice = f"; look below it, like '{folder}/*/*{below}'"
    else:
        advice = f"; pictures end in {', '.join(s for s in sorted(table) if table[s].PICTURES)}"
    raise InputError(f"folder {folder} holds no pictures ({len(files)} other files){advice}")


def _glob(pattern: Path) -> tuple[Found, ...]:
    root = Path(pattern.anchor)
    files = sorted(p for p in root.glob(str(pattern.relative_to(pattern.anchor))) if p.is_file())
    if not files:
        raise InputError(f"no file matches {pattern}")
    return tuple(Found(p) for p in files)


def _missing(path: Path) -> InputError:
    if not exists(path.parent):
        return InputError(f"{path}: no such file; its folder {path.parent} doesn't exist either")
    names = [p.name for p in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    where = f"in {path.parent}" if path.parent != Path() else "here"
    hint = f"; closest {where}: {', '.join(map(repr, near))}" if near else ""
    return InputError(f"{path}: no such file{hint}")
