"""From which place attention is looked at: the class token, the mean of all, a token, or a point of a picture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError
from onnx_inspect.heads import AttentionMap

Floats = NDArray[np.float64]


class Located(Protocol):
    """Whatever knows how a picture lies in the model's input."""

    def locate(self, x: float, y: float) -> tuple[float, float]:
        """Map a point in the original's pixels to the model's input in [0, 1]."""


@dataclass(frozen=True)
class Query:
    """What was asked for: one of ``cls``, ``mean``, a token's number, a point (x, y) in the original's pixels."""

    text: str
    token: int | None = None
    point: tuple[float, float] | None = None


def parse(text: str) -> Query:
    """Read ``cls``, ``mean``, ``INDEX`` or ``x,y``.

    Raises
    ------
    InputError
        It is none of them.

    Examples
    --------
    >>> parse("12,40").point
    (12.0, 40.0)
    """
    bare = text.strip().lower()
    if bare in ("cls", "mean"):
        return Query(bare)
    if re.fullmatch(r"-?\d+", bare):
        return Query(bare, token=int(bare))
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)", bare):
        return Query(bare, point=(float(found[1]), float(found[2])))
    raise InputError(f"--query is cls, mean, a token's number, or x,y in the picture's pixels; got {text!r}")


def usual(found: AttentionMap) -> Query:
    """The query to take where nobody says one: the class token where there is one, else the mean of all."""
    return Query("cls") if "cls" in found.prefix_names and found.windows == 1 else Query("mean")


def weights(
    query: Query, found: AttentionMap, place: Located | None, seen: NDArray[np.bool_] | None
) -> tuple[Floats, str]:
    """How much each query row counts, and that in words.

    Parameters
    ----------
    place : Placement or None
        Of the sample's picture.
    seen : ndarray, (queries,), bool, or None
        Which tokens are no padding, for texts.

    Returns
    -------
    weights : ndarray, (windows, queries), float64
        Sum to 1 over all windows together; to 1 in each window for the mean.
    words : str

    Raises
    ------
    InputError
        The attention has no such query.
    """
    rows = found.probabilities.shape[2]
    kept = np.arange(rows) if found.queries is None else np.array(found.queries)
    chosen = np.zeros((found.windows, rows))
    if query.text == "mean":
        counted = _places(found)[:, kept] if found.query_cells is not None else np.ones((found.windows, rows), bool)
        if seen is not None and seen.shape[0] > int(kept.max()):
            counted = counted & seen[kept]
        return counted / np.maximum(counted.sum(axis=1, keepdims=True), 1), _mean_words(found)
    window, token, words = _single(query, found, place)
    if token not in kept:
        raise InputError(f"query {query.text} of {found.layer!r} wasn't kept: the rows are {list(map(int, kept[:8]))}")
    chosen[window, int(np.flatnonzero(kept == token)[0])] = 1
    return chosen, words


def _mean_words(found: AttentionMap) -> str:
    return "the mean of all patches" if found.query_cells is not None else "the mean of all tokens"


def _places(found: AttentionMap) -> NDArray[np.bool_]:
    """Which queries are patches of the picture, (windows, queries of the model)."""
    assert found.query_cells is not None
    return np.asarray(found.query_cells >= 0)


def _single(query: Query, found: AttentionMap, place: Located | None) -> tuple[int, int, str]:
    """Window, place and words of one query."""
    if query.point is not None:
        return _at_point(query.point, found, place)
    count = found.probabilities.shape[2] if found.queries is None else max(found.queries) + 1
    if query.text == "cls":
        if "cls" in found.prefix_names:
            return 0, found.prefix_names.index("cls"), "the class token"
        if found.grid is None and not found.cross and not found.causal:
            return 0, 0, "the first token"
        raise InputError(f"{found.layer!r} has no class token: give --query mean, a token's number, or x,y")
    assert query.token is not None
    token = query.token + count if query.token < 0 else query.token
    if not 0 <= token < count or found.windows > 1:
        inside = f", in each of {found.windows} windows: give x,y" if found.windows > 1 else f": 0 to {count - 1}"
        raise InputError(f"--query {query.text}: {found.layer!r} has {count} queries{inside}")
    return 0, token, f"token {token}"


def _at_point(point: tuple[float, float], found: AttentionMap, place: Located | None) -> tuple[int, int, str]:
    if found.query_grid is None or place is None:
        raise InputError(
            f"--query x,y needs the patches of a picture, which {found.layer!r} has not: give a token's number"
        )
    x, y = place.locate(*point)
    if not (0 <= x < 1 and 0 <= y < 1):
        raise InputError(f"--query {point[0]:g},{point[1]:g} lies outside what the network saw of the picture")
    rows, columns = found.query_grid
    row, column = int(y * rows), int(x * columns)
    window, token = found.query_at(row, column)
    return window, token, f"the patch in row {row + 1}, column {column + 1}, at {point[0]:g},{point[1]:g}"


def looks(found: AttentionMap, index: int, chosen: Floats) -> NDArray[np.float32]:
    """Attention of the chosen queries of one sample, for each head.

    Returns
    -------
    ndarray, (heads, windows, keys), float32
        NaN in windows that hold none of the queries.
    """
    mixed = np.einsum("wq,whqk->hwk", chosen, found.sample(index).astype(np.float64))
    mixed[:, ~chosen.any(axis=1)] = np.nan
    return mixed.astype(np.float32)


def looks_of_rollout(total: Floats, index: int, chosen: Floats) -> NDArray[Any]:
    """The same of a rollout (N, T, T): (1, 1, T)."""
    return (chosen[0] @ total[index])[None, None].astype(np.float32)
