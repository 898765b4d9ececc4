"""Which patch of the picture each token stands for, and what the tokens are called that stand for none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.graph.dependence import ancestors
from onnx_inspect.graph.factors import Axis, Base, pieces, resolve, size
from onnx_inspect.graph.model import Model

WORDS = (
    ("cls", ("cls", "class")),
    ("dist", ("dist",)),
    ("reg", ("reg", "storage")),
    ("det", ("det",)),
    ("mask", ("mask",)),
)


@dataclass(frozen=True)
class Placed:
    """Where tokens lie.

    Attributes
    ----------
    grid : (int, int)
        Rows and columns of patches.
    cells : ndarray, (windows, tokens), int
        ``row * columns + column`` of each token; -1 where it stands for no patch.
    names : tuple of str
        What those that stand for no patch are called, in their order; none inside windows, where they are padding.
    """

    grid: tuple[int, int]
    cells: NDArray[np.intp]
    names: tuple[str, ...]


def place(windows: Sequence[Axis], tokens: Axis, model: Model) -> Placed | None:
    """Follow tokens, and the windows that they lie in, back to a plane of patches; None where there is none."""
    found = resolve([*windows, tokens])
    planes: dict[str, list[Base]] = {}
    for base in found:
        if base.kind == "position":
            planes.setdefault(base.origin, []).append(base)
    flat = [sorted(bases, key=lambda b: b.axis) for bases in planes.values() if len(bases) == 2]
    if not flat:
        return None
    rows, columns = max(flat, key=lambda pair: int(((found[pair[0]] >= 0) & (found[pair[1]] >= 0)).sum()))
    count = size(tokens)
    row, column = (found[base].reshape(-1, count) for base in (rows, columns))
    there = (row >= 0) & (column >= 0)
    (down, row), (across, column) = (np.unique(a[there], return_inverse=True) for a in (row, column))
    cells = np.full(there.shape, -1, np.intp)
    cells[there] = row * len(across) + column
    if len(set(cells[there].tolist())) != len(down) * len(across) or len(down) * len(across) < 2:
        return None  # patches were dropped: what is left is no grid
    if any(len(set(own[own >= 0].tolist())) != int((own >= 0).sum()) for own in cells):
        return None  # two tokens of a window for one patch
    return Placed((len(down), len(across)), cells, _names(tokens, cells[0], model) if len(cells) == 1 else ())


def _names(tokens: Axis, cells: NDArray[np.intp], model: Model) -> tuple[str, ...]:
    """Names of the tokens that stand for no patch, from the weights that they were strung together from."""
    names: list[str] = []
    start = 0
    for source, count in pieces(tokens):
        special = int((cells[start : start + count] < 0).sum())
        start += count
        if not special or not source:
            names += ["pad"] * special
            continue
        word = _word(source, model)
        if not word or (word == "cls" and "cls" in names):  # exporters store equal weights once, under one name
            word = "reg" if special > 1 else "dist" if "cls" in names else "cls"
        names += ["cls", "dist"] if word == "cls" and special == 2 else [word] * special
    return tuple(
        f"{name}{names[: i + 1].count(name)}" if names.count(name) > 1 or name in ("reg", "det") else name
        for i, name in enumerate(names)
    )


def _word(tensor: str, model: Model) -> str:
    """What a tensor's name, or those of the weights that it is made of, say that it is; "" where they don't."""
    weights = [n for n in ancestors(model, [tensor]) if n in model.constants]
    for text in (*sorted(weights), tensor):
        last = text.lower().replace("/", ".")
        for word, signs in WORDS:
            if any(sign in last for sign in signs):
                return word
    return ""
