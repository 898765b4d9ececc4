"""Which class each sample of a data set belongs to, and whether the model counts its classes in the same order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST = 5  # names in a message


@dataclass(frozen=True)
class Marks:
    """What a data set says of its samples' classes.

    Attributes
    ----------
    texts : tuple of str
        Each sample's, as it is written; "" where there is none.
    names : tuple of str or None
        Class names by number, where the data set itself holds them.
    folders : bool
        Whether the texts are folders' names: then the alphabet may be the model's order, as torchvision has it.
    """

    texts: tuple[str, ...]
    names: tuple[str, ...] | None = None
    folders: bool = False


@dataclass(frozen=True)
class Resolved:
    """Labels (N,), -1 for none; their names; whether they are the model's class indices; what was chosen."""

    labels: NDArray[np.int64]
    classes: tuple[str, ...] | None
    comparable: bool
    note: str


def resolve(marks: Marks, names: Sequence[str] | None, count: int | None) -> Resolved:
    """Number the classes of a data set: as the model does where its names or numbers tell, else alphabetically.

    Parameters
    ----------
    names : sequence of str or None
        The model's class names.
    count : int or None
        How many classes the model scores; None where it scores none, or nobody knows yet.
    """
    said = sorted({text for text in marks.texts if text})
    if said and all(re.fullmatch(r"\d{1,9}", text) for text in said):
        return _numbered(marks, names, count)
    return _named(marks, said, names, count)


def _numbered(marks: Marks, names: Sequence[str] | None, count: int | None) -> Resolved:
    labels = np.array([int(text) if text else -1 for text in marks.texts], np.int64)
    most = int(labels.max())
    if count is not None and most >= count:
        note = f"labels go up to {most}, but the model scores {count} classes: predictions are not compared with them"
        return Resolved(labels, marks.names, False, note)
    if marks.names is not None and names is not None and not _alike(marks.names, names):
        return _named(_spelt(marks, labels), sorted(set(marks.names)), names, count)
    own = marks.names or (tuple(names) if names is not None and count is not None else None)
    return Resolved(labels, own, count is not None, "")


def _spelt(marks: Marks, labels: NDArray[np.int64]) -> Marks:
    """The same classes by the names that the data set gives their numbers."""
    known = marks.names or ()
    return Marks(tuple(known[n] if 0 <= n < len(known) else (str(n) if n >= 0 else "") for n in labels.tolist()))


def _named(marks: Marks, said: list[str], names: Sequence[str] | None, count: int | None) -> Resolved:
    table = _table(names or ())
    missing = [text for text in said if _plain(text) not in table]
    if names is not None and count is not None and not missing and len(names) <= max(count, 1):
        where = {text: table[_plain(text)] for text in said}
        return Resolved(_by(marks, where), tuple(names), True, "")
    own = {text: n for n, text in enumerate(said)}
    labels = _by(marks, own)
    if count is None:
        return Resolved(labels, tuple(said), False, "")
    if marks.folders and len(said) == count and (names is None or len(missing) == len(said)):
        classes = tuple(said) if names is None else tuple(names)
        note = f"the {count} folders in alphabetical order are taken for classes 0 to {count - 1} of the model"
        return Resolved(labels, classes, True, note)
    if names is None:
        why = "the model names no classes (give --labels)"
    elif missing:
        why = f"the model has no class called {', '.join(map(repr, missing[:MOST]))}{' ...' * (len(missing) > MOST)}"
    else:
        why = f"{len(names)} names are given, but the model scores {count} classes"
    return Resolved(labels, tuple(said), False, f"{why}: predictions are not compared with the data set's classes")


def _by(marks: Marks, where: dict[str, int]) -> NDArray[np.int64]:
    return np.array([where[text] if text else -1 for text in marks.texts], np.int64)


def _table(names: Sequence[str]) -> dict[str, int]:
    """Index by name and, where that is free, by each of its synonyms ("tench, Tinca tinca")."""
    table: dict[str, int] = {}
    for index, name in enumerate(names):
        table.setdefault(_plain(name), index)
    for index, name in enumerate(names):
        for part in name.split(","):
            table.setdefault(_plain(part), index)
    return table


def _plain(text: str) -> str:
    return re.sub(r"[\s_-]+", " ", text).strip().casefold()


def _alike(one: Sequence[str], other: Sequence[str]) -> bool:
    return len(one) <= len(other) and all(_plain(a) == _plain(b) for a, b in zip(one, other, strict=False))
