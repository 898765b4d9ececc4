"""Data sets that are files: a folder for each class, a table of paths and labels, a list, or just pictures."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from onnx_inspect.errors import InputError
from onnx_inspect.inputs.dataset_labels import Marks
from onnx_inspect.inputs.files import exists, expand, is_picture, load
from onnx_inspect.inputs.parts import Part, from_content
from onnx_inspect.inputs.samples import Demand

TABLES, LISTS = (".csv", ".tsv"), (".txt", ".lst", ".list")
PATHS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "picture")
LABELS = ("label", "class", "target", "y", "category", "class_name", "label_name", "class_id", "label_id")
PROBED = 20  # rows that tell where relative paths start


@dataclass(frozen=True)
class Files:
    """One sample in each file."""

    paths: tuple[str, ...]
    concurrent: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.paths)

    def source(self, index: int) -> str:
        """A file's path."""
        return self.paths[index]

    def read(self, indices: range, demand: Demand) -> list[Part | InputError]:
        """A part, or what is wrong with it, for each file."""
        return [_sample(Path(self.paths[index]), demand) for index in indices]

    def identity(self) -> str:
        """A digest of all paths."""
        return hashlib.blake2b("\0".join(self.paths).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _sample(path: Path, demand: Demand) -> Part | InputError:
    try:
        part = from_content(load(path), str(path), demand)
    except InputError as error:
        return error
    if len(part.sources) != 1:
        return InputError(f"{path} holds {len(part.sources)} samples: a data set of files has one in each")
    return part


def find(words: Sequence[str], *, table: bool) -> tuple[Files, Marks | None, tuple[str, ...]]:
    """Find files and what is said of their classes; `table` where the one word may be a table or a list.

    Raises
    ------
    InputError
        Nothing there, or a table without paths.
    """
    path = Path(words[0]).expanduser()
    if table and path.suffix.lower() in TABLES:
        return _table(path)
    if table and path.suffix.lower() in LISTS:
        return _list(path)
    folders = [Path(word).expanduser() for word in words]
    if all(exists(folder) and folder.is_dir() for folder in folders):
        found = _classes(folders)
        if found is not None:
            return found
    return Files(tuple(str(found.path) for word in words for found in expand(word))), None, ()


def _classes(folders: Sequence[Path]) -> tuple[Files, Marks, tuple[str, ...]] | None:
    """Pictures in a folder for each class: the folders given, or those in the only one."""
    if len(folders) == 1:
        if any(is_picture(path) for path in folders[0].iterdir()):
            return None  # its own pictures come first
        folders = [path for path in folders[0].iterdir() if path.is_dir() and not path.name.startswith(".")]
    held = {folder.name: _below(folder) for folder in sorted(folders)}
    if len(held) < len(folders) or not any(held.values()):
        return None
    empty = [name for name, paths in held.items() if not paths]
    full = {name: paths for name, paths in held.items() if paths}
    names = ", ".join(list(full)[:5]) + (", ..." if len(full) > 5 else "")
    notes = [f"{len(full)} classes, one for each folder: {names}"]
    notes += [f"{len(empty)} folders without pictures left out: {', '.join(empty[:5])}"] if empty else []
    files = Files(tuple(path for paths in full.values() for path in paths))
    return files, Marks(tuple(name for name, paths in full.items() for _ in paths), folders=True), tuple(notes)


def _below(folder: Path) -> list[str]:
    """Pictures in a folder and in those inside it, sorted."""
    found = [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names if name[0] != "."]  # noqa: PTH118  many
    return sorted(path for path in found if is_picture(path))


def _table(path: Path) -> tuple[Files, Marks | None, tuple[str, ...]]:
    rows = _rows(path)
    header = [cell.strip().casefold() for cell in rows[0]]
    place = next((header.index(name) for name in PATHS if name in header), None)
    if place is not None:
        label = next((header.index(name) for name in LABELS if name in header), None)
        if label is None and len(header) == 2:
            label = 1 - place
        rows = rows[1:]
    else:
        near = [n for n, cell in enumerate(rows[0]) if exists(path.parent / cell) or exists(Path(cell))]
        if not near and not is_picture(rows[0][0]):
            raise InputError(
                f"{path}: its first line names no column {', '.join(PATHS[:4])}, ... and no file: found"
                f" {', '.join(rows[0])[:120]!r}; give a table with a column 'path' and a column 'label'"
            )
        place = near[0] if near else 0
        label = next((n for n in range(len(rows[0])) if n != place), None)
    short = next((n for n, row in enumerate(rows) if len(row) <= max(place, label or 0)), None)
    if short is not None:
        raise InputError(f"{path}: row {short + 1} has {len(rows[short])} cells: {rows[short]!r:.120}")
    files = _resolved(path, [row[place].strip() for row in rows])
    return files, Marks(tuple(row[label].strip() for row in rows)) if label is not None else None, ()


def _rows(path: Path) -> list[list[str]]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read as a table: {error}") from error
    first = text.partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(cell.strip() for cell in row)]
    if not rows:
        raise InputError(f"{path} is empty: give a table with a column 'path' and a column 'label'")
    return rows


def _list(path: Path) -> tuple[Files, Marks | None, tuple[str, ...]]:
    """A path in each line, or a path, a blank and a label, as ImageNet's lists have it."""
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read as a list: {error}") from error
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise InputError(f"{path} is empty: give a path in each line, or a path and a label")
    pairs = [_pair(line, path.parent) for line in lines]
    marks = Marks(tuple(label for _, label in pairs)) if any(label for _, label in pairs) else None
    return _resolved(path, [name for name, _ in pairs]), marks, ()


def _pair(line: str, folder: Path) -> tuple[str, str]:
    """Path and label of a line; a path may hold blanks."""
    if "\t" in line:
        name, _, label = line.rpartition("\t")
        return name.strip(), label.strip()
    name, blank, label = line.rpartition(" ")
    whole = exists(folder / line) or (not is_picture(name) and is_picture(line))
    return (line, "") if not blank or whole else (name.strip(), label)


def _resolved(table: Path, names: Sequence[str]) -> Files:
    """Paths of a table: relative ones start at its folder, or at the current one where only there are files."""
    beside = any(exists(table.parent / name) for name in names[:PROBED])
    here = not beside and any(exists(Path(name)) for name in names[:PROBED])
    folder = Path() if here else table.parent
    return Files(tuple(str(folder / Path(name).expanduser()) for name in names))
