"""What the attention heads of a model looked at: probabilities, where their tokens lie, and how far they are proved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float32]
Cells = NDArray[np.intp]


@dataclass(frozen=True)
class AttentionMap:
    """One attention of a model over a batch of N samples.

    Attributes
    ----------
    layer : str
        The node that makes the probabilities, or the fused node that they were recovered from: the key in an ``.npz``.
    index : int
        Depth: 0 is the attention nearest the input.
    kind : str
        What was found: ``softmax``, ``Attention``, ``com.microsoft.MultiHeadAttention``, ...
    probabilities : ndarray, (N * windows, heads, queries, keys), float32
        Rows sum to 1 (a row of which everything is masked may be all 0). The windows of a sample follow each other.
        Where they were reduced, the heads' axis has one entry, and rows of ``max`` sum to more than 1.
    heads : tuple of int
        Which of the attention's heads the heads' axis holds, or was reduced from.
    queries : tuple of int or None
        Which query rows were kept; None for all.
    reduced : str or None
        ``mean`` or ``max`` over the heads.
    causal : bool
        No query sees a key after itself.
    cross : bool
        Queries and keys come from different sequences.
    grid : (int, int) or None
        Rows and columns of the patches that the keys stand for; None where the keys are no patches of a picture.
    cells : ndarray, (windows, keys), int, or None
        The grid's cell of each key, ``row * columns + column``; -1 for a prefix token or for padding. None without a
        grid.
    prefix : int
        Tokens that stand for no patch: class, distillation, registers.
    prefix_names : tuple of str
        What these are called: ``cls``, ``dist``, ``reg1``, ...; as many as `prefix`.
    windows : int
        Into how many windows each sample's tokens are divided; 1 where every token may see every other.
    query_grid : (int, int) or None
        The same as `grid` for the queries, which may be finer than the keys.
    query_cells : ndarray, (windows, queries of the model), int, or None
        The same as `cells` for the queries (all of them, also where only some rows were kept).
    error : float
        Largest of: how far a row's sum is from 1, and how far the probabilities times the values are from the context
        that the model itself computes, relative to its largest number.
    key_inputs, query_inputs : tuple of str
        The model's inputs whose positions keys and queries stand for; empty where that isn't known.
    """

    layer: str
    index: int
    kind: str
    probabilities: Probabilities
    heads: tuple[int, ...]
    queries: tuple[int, ...] | None
    reduced: str | None
    causal: bool
    cross: bool
    grid: tuple[int, int] | None
    cells: Cells | None
    prefix: int
    prefix_names: tuple[str, ...]
    windows: int
    query_grid: tuple[int, int] | None
    query_cells: Cells | None
    error: float
    key_inputs: tuple[str, ...] = ()
    query_inputs: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Samples, N."""
        return len(self.probabilities) // self.windows

    def sample(self, n: int) -> Probabilities:
        """Probabilities of one sample, (windows, heads, queries, keys)."""
        return self.probabilities[n * self.windows : (n + 1) * self.windows]

    def on_grid(self, values: NDArray[Any]) -> Probabilities:
        """Lay numbers for keys out as the picture's patches lie: (..., windows, keys) becomes (..., rows, columns).

        Prefix tokens and padding are left out; a patch that no key stands for is NaN.

        Raises
        ------
        ValueError
            The keys are no patches of a picture.
        """
        if self.grid is None or self.cells is None:
            raise ValueError(f"the keys of {self.layer!r} lie on no grid")
        rows, columns = self.grid
        plane = np.full((*values.shape[:-2], rows * columns), np.nan, np.float32)
        of = self.cells >= 0
        plane[..., self.cells[of]] = values[..., of]
        return plane.reshape(*values.shape[:-2], rows, columns)

    def query_at(self, row: int, column: int) -> tuple[int, int]:
        """Window and place of the query that stands for a patch.

        Raises
        ------
        ValueError
            The queries are no patches of a picture, or the patch lies outside the grid.
        """
        if self.query_grid is None or self.query_cells is None:
            raise ValueError(f"the queries of {self.layer!r} lie on no grid")
        rows, columns = self.query_grid
        if not (0 <= row < rows and 0 <= column < columns):
            raise ValueError(f"patch ({row}, {column}) is outside the grid of {rows} x {columns}")
        window, place = np.argwhere(self.query_cells == row * columns + column)[0]
        return int(window), int(place)

    def meta(self) -> dict[str, Any]:
        """What JSON says of it: everything but the numbers."""
        return {
            "layer": self.layer,
            "index": self.index,
            "kind": self.kind,
            "shape": list(self.probabilities.shape),
            "heads": list(self.heads),
            "queries": None if self.queries is None else list(self.queries),
            "reduced": self.reduced,
            "causal": self.causal,
            "cross": self.cross,
            "grid": None if self.grid is None else list(self.grid),
            "prefix": self.prefix,
            "prefix_names": list(self.prefix_names),
            "windows": self.windows,
            "query_grid": None if self.query_grid is None else list(self.query_grid),
            "error": self.error,
        }


@dataclass(frozen=True)
class Attentions:
    """Every attention of a model that could be recovered and proved, nearest the input first.

    Attributes
    ----------
    maps : tuple of AttentionMap
    refused : tuple of (str, str)
        Layers that look like attention, and why their probabilities aren't given.
    sources : tuple of str
        What each of the N samples is.
    provider : str
        What really ran the model; "" where everything was refused before it ran.
    passes : int
        Samples run through the model, those that measure shapes included.
    notes : tuple of str
        Choices made for the user, in words.
    """

    maps: tuple[AttentionMap, ...]
    refused: tuple[tuple[str, str], ...]
    sources: tuple[str, ...]
    provider: str
    passes: int
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Relevance:
    """What each token (rows) takes from each (columns) for a target, by attention and its gradient.

    Attributes
    ----------
    values : ndarray, (N, T, T), float64
        0 and above.
    over : AttentionMap
        The last attention, whose tokens these are.
    layers : tuple of str
        Nearest the input first.
    targets : tuple of str
        What was explained, for each input.
    scores : ndarray, (N,), float64
    notes : tuple of str
    """

    values: NDArray[np.float64]
    over: AttentionMap
    layers: tuple[str, ...]
    targets: tuple[str, ...]
    scores: NDArray[np.float64]
    notes: tuple[str, ...]
