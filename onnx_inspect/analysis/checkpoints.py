"""In which order checkpoints come, and what each is called and counted by, read off their file names."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath
from typing import Literal

Order = Literal["natural", "given"]
FIRST = frozenset("init initial initialised initialized start begin random untrained pretrained scratch".split())
LAST_NAME = "final"  # of the checkpoint whose name is only what all names share


@dataclass(frozen=True)
class Checkpoint:
    """One step of a training run.

    Attributes
    ----------
    path : str
    label : str
        What tells its name from the others'.
    step : int
        The number in its name that grows from one to the next, where there is one; else its place. A name without a
        number counts one more than the one before.
    """

    path: str
    label: str
    step: int


def in_order(paths: Sequence[str], order: Order = "natural") -> tuple[Checkpoint, ...]:
    """Put checkpoints in order and name them.

    Numbers count as numbers: ``epoch3`` comes before ``epoch12``. Names without a number come last, such as ``final``
    and ``best``; before all come ``init``, ``untrained`` and their like.

    Parameters
    ----------
    order : {'natural', 'given'}
        ``given`` keeps the order of `paths`.

    Examples
    --------
    >>> [c.label for c in in_order(["net_epoch12.onnx", "net.onnx", "net_epoch3.onnx"])]
    ['epoch3', 'epoch12', 'final']
    """
    labels = dict(zip(paths, _labels(paths), strict=True))
    chosen = list(paths) if order == "given" else sorted(paths, key=lambda path: _key(labels[path]))
    steps = _steps([labels[path] for path in chosen])
    return tuple(Checkpoint(path, labels[path], step) for path, step in zip(chosen, steps, strict=True))


def _labels(paths: Sequence[str]) -> list[str]:
    """What is left of each name without what all share at either end, whole words and numbers."""
    names = [PurePath(path).stem for path in paths]
    if len(set(names)) < len(names):  # run1/net.onnx, run2/net.onnx
        names = [str(PurePath(path).with_suffix("")).replace(os.sep, "/") for path in paths]
    parts = [re.findall(r"\d+|[^\W\d_]+|[\W_]+", name) for name in names]
    shared = _shared(parts)
    ends = _shared([list(reversed(part[shared:])) for part in parts])
    before = _last_word(parts[0][:shared])  # net_epoch1, net_epoch2: keep `epoch`
    cut = ["".join(part[shared : len(part) - ends]).strip(" _-./=") for part in parts]
    return [f"{before}{text}" if text[:1].isdigit() else text or LAST_NAME for text in cut]


def _last_word(parts: Sequence[str]) -> str:
    """The last word, with what joins it to what follows."""
    end = len(parts)
    while end and not parts[end - 1][0].isalnum():
        end -= 1
    start = end
    while start and parts[start - 1][0].isalnum():
        start -= 1
    return "".join(parts[start:])


def _shared(parts: Sequence[Sequence[str]]) -> int:
    count = 0
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count


def _key(label: str) -> tuple[int, list[tuple[int, int, str]]]:
    words = {word.lower() for word in re.findall(r"[^\W\d_]+", label)}
    numbered = any(c.isdigit() for c in label)
    rank = 0 if words & FIRST and not numbered else 1 if numbered else 2
    pieces = re.findall(r"\d+|\D+", label.lower())
    return rank, [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in pieces]


def _steps(labels: Sequence[str]) -> list[int]:
    """The first number of the labels that grows throughout; their places where none does."""
    numbers = [[int(n) for n in re.findall(r"\d+", label)] for label in labels]
    known = [n for n in numbers if n]
    for column in range(min(map(len, known), default=0)):
        counts = [n[column] for n in known]
        if all(a < b for a, b in pairwise(counts)):
            return _filled(numbers, column)
    return list(range(len(labels)))


def _filled(numbers: Sequence[Sequence[int]], column: int) -> list[int]:
    """Each label's number; one without counts one more than the one before, 0 at the start."""
    found: list[int] = []
    for own in numbers:
        found.append(own[column] if own else found[-1] + 1 if found else 0)
    return found if all(a < b for a, b in pairwise(found)) else list(range(len(numbers)))
