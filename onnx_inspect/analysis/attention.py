"""What attention heads do, in numbers: how far and how evenly they look, what they follow, and how layers add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import MethodError
from onnx_inspect.heads import AttentionMap

Floats = NDArray[np.float64]
Seen = NDArray[np.bool_]

EVEN = 0.99  # share of the largest possible entropy from which a head looks at everything alike
MOSTLY = 0.9  # share of attention from which a head is named by where it goes
SAME = 0.02  # mean total variation between a query's row and the mean row, below which queries don't count
FEW = 4  # keys that a row must see to say anything of a head, and rows that must differ


@dataclass(frozen=True)
class HeadStatistics:
    """What one head does, averaged over the queries of all samples; NaN where it means nothing.

    Attributes
    ----------
    head : str
        Its number; ``mean`` or ``max`` where heads were reduced to one.
    entropy : float
        Of a query's row, in nats.
    evenness : float
        Entropy as a share of what a row could have at most (all keys that it sees alike), in [0, 1].
    distance : float
        How far the keys lie from the query, weighted by attention: in tokens, or in patches of a picture.
    first, itself, previous, following : float
        Attention to the first key, to the query's own place, and to the places before and after it, in [0, 1].
    movement : float
        Mean total variation between a query's row and the mean row, in [0, 1]: 0 where every query looks alike.
    """

    head: str
    entropy: float
    evenness: float
    distance: float
    first: float
    itself: float
    previous: float
    following: float
    movement: float

    @property
    def name(self) -> str:
        """What kind of head it is, where it is one of few words; "" otherwise.

        ``even``: looks at everything alike, ``first``, ``diagonal``, ``previous``, ``next``: looks nearly only there;
        ``fixed``: looks the same way whatever the query. Even and fixed heads are dead: they don't attend.
        """
        if self.evenness >= EVEN:
            return "even"
        for name, share in (
            ("diagonal", self.itself),
            ("previous", self.previous),
            ("next", self.following),
            ("first", self.first),
        ):
            if share >= MOSTLY:
                return name
        return "fixed" if self.movement <= SAME else ""

    @property
    def dead(self) -> bool:
        """Whether it doesn't attend: nothing of what it looks at hangs on the query."""
        return self.name in ("even", "fixed")

    def to_json(self) -> dict[str, Any]:
        """Everything, with its name; None for what means nothing."""
        values = {key: float(getattr(self, key)) for key in self.__dataclass_fields__ if key != "head"}
        known = {key: round(value, 6) if np.isfinite(value) else None for key, value in values.items()}
        return {"head": self.head, **known, "name": self.name, "dead": self.dead}


def statistics(found: AttentionMap, seen: Seen | None = None) -> tuple[HeadStatistics, ...]:
    """Statistics of each head of one attention.

    Parameters
    ----------
    found : AttentionMap
    seen : ndarray, (N, keys), bool, optional
        Which tokens are no padding: queries and keys that are padding don't count.

    Returns
    -------
    tuple of HeadStatistics
        One for each entry of the heads' axis.
    """
    total, rows, columns = found.probabilities.shape[0], found.probabilities.shape[2], found.probabilities.shape[3]
    places = np.arange(rows) if found.queries is None else np.array(found.queries)
    allowed = _allowed(found, seen, places)  # (N * windows, queries, keys)
    visible = allowed.sum(axis=2)  # (N * windows, queries)
    names = [found.reduced] if found.reduced else [str(h) for h in found.heads]
    gaps = _gaps(found, places, total)
    result = []
    for number, name in enumerate(names):
        raw = found.probabilities[:, number].astype(np.float64) * allowed
        sums = raw.sum(axis=2, keepdims=True)
        count = (sums[..., 0] > 0.5) & (visible >= min(FEW, columns))  # rows that say something
        p = np.divide(raw, sums, out=np.zeros_like(raw), where=sums > 0)
        entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(axis=2)
        most = np.log(np.maximum(visible, 2))
        at = _followed(p, allowed, places, found.cross)
        middle = (p * count[..., None]).sum(axis=(0, 1)) / max(int(count.sum()), 1)
        result.append(
            HeadStatistics(
                head=str(name),
                entropy=_mean(entropy, count),
                evenness=min(1.0, _mean(entropy / most, count)),
                distance=_distance(p, gaps, count),
                first=_mean(p[..., 0], count),
                itself=_mean(at[0], count & np.isfinite(at[0])),
                previous=_mean(at[-1], count & np.isfinite(at[-1])),
                following=_mean(at[1], count & np.isfinite(at[1])),
                movement=_mean(np.abs(p - middle).sum(axis=2) / 2, count) if count.sum() >= FEW else float("nan"),
            )
        )
    return tuple(result)


def rollout(maps: Sequence[AttentionMap], *, reduce: str = "mean", discard: float = 0.0) -> Floats:
    """Follow attention through all layers: what each last token is made of (Abnar and Zuidema 2020, arXiv:2005.00928).

    ``R = A_L ... A_2 A_1``, with ``A_l = (P_l + I) / 2`` and each row of it divided by its sum; ``P_l`` is the mean (or
    maximum) over heads. With `discard`, the smallest entries of each sample's ``P_l``, that share of them, become 0
    first.

    Parameters
    ----------
    maps : sequence of AttentionMap
        Of one stack of layers, nearest the input first; all heads, or heads reduced already.
    reduce : {'mean', 'max'}
    discard : float
        In [0, 1).

    Returns
    -------
    ndarray, (N, T, T), float64
        Rows sum to 1.

    Raises
    ------
    MethodError
        The layers are no such stack; the message says which and why.
    """
    if not 0 <= discard < 1:
        raise MethodError(f"--discard is a share from 0 to below 1, got {discard:g}")
    if reason := why_no_rollout(maps):
        raise MethodError(f"no rollout: {reason}")
    size = maps[0].probabilities.shape[-1]
    total = np.broadcast_to(np.eye(size), (len(maps[0].probabilities), size, size))
    for found in maps:
        p = found.probabilities.astype(np.float64)
        fused = p.mean(axis=1) if reduce == "mean" else p.max(axis=1)  # (N, T, T)
        mixed = (_discarded(fused, discard) + np.eye(size)) / 2
        total = mixed / mixed.sum(axis=-1, keepdims=True) @ total
    return np.asarray(total)


def relevance(probabilities: Sequence[NDArray[Any]], gradients: Sequence[NDArray[Any]]) -> Floats:
    """Follow attention weighted by its gradient through all layers (Chefer, Gur and Wolf 2021, arXiv:2103.15679).

    Parameters
    ----------
    probabilities, gradients : sequence of ndarray, (N, heads, T, T)
        Of each layer, nearest the input first, and of a score by them.

    Returns
    -------
    ndarray, (N, T, T), float64
        ``R = I``, then ``R += mean over heads of relu(A * dy/dA) R``, less the identity at the end: what each token
        takes from each, 0 and above.
    """
    size = probabilities[0].shape[-1]
    total = np.broadcast_to(np.eye(size), (len(probabilities[0]), size, size))
    for own, slope in zip(probabilities, gradients, strict=True):
        mean = np.maximum(own.astype(np.float64) * slope, 0).mean(axis=1)  # (N, T, T)
        total = total + mean @ total
    return np.asarray(total - np.eye(size))


def why_no_rollout(maps: Sequence[AttentionMap]) -> str:
    """Why attention can't be followed through these layers; "" where it can."""
    if not maps:
        return "no attention was recovered"
    first = maps[0].probabilities.shape[-1]
    for found in maps:
        queries, keys = found.probabilities.shape[2:]
        if found.windows > 1:
            return (
                f"{found.layer!r} attends within {found.windows} windows, and merging patches between stages mixes them"
            )
        if found.cross:
            return f"{found.layer!r} attends from one sequence to another"
        if found.queries is not None:
            return f"only some query rows of {found.layer!r} were kept"
        if queries != keys or keys != first:
            return f"{found.layer!r} has {queries} queries and {keys} keys, the first layer {first}: tokens change"
    return ""


def stack(maps: Sequence[AttentionMap], length: int | None = None) -> tuple[AttentionMap, ...]:
    """The layers that attention can be followed through: all of them, or those of one tower of a model with several.

    Parameters
    ----------
    length : int, optional
        Tokens of the tower that is meant; by default those of the last layer.
    """
    own = [m for m in maps if not m.cross]
    if not own:
        return tuple(maps)
    wanted = length if length in {m.probabilities.shape[-1] for m in own} else own[-1].probabilities.shape[-1]
    several = any(m.windows > 1 for m in own)
    return tuple(m for m in own if several or m.probabilities.shape[-1] == wanted)


def _discarded(fused: Floats, share: float) -> Floats:
    """Set the smallest entries of each sample to 0: this share of them."""
    flat = fused.reshape(len(fused), -1).copy()
    gone = int(flat.shape[1] * share)
    if gone:
        smallest = np.argpartition(flat, gone - 1, axis=1)[:, :gone]
        np.put_along_axis(flat, smallest, 0.0, axis=1)
    return flat.reshape(fused.shape)


def _allowed(found: AttentionMap, seen: Seen | None, places: NDArray[np.intp]) -> Seen:
    """Which key each query may look at, (N * windows, queries, keys); nothing for a query that is padding."""
    total, _, rows, columns = found.probabilities.shape
    allowed = np.ones((total, rows, columns), bool)
    if found.causal:
        allowed &= np.arange(columns) <= places[:, None] + columns - _all_queries(found)
    if seen is not None and seen.shape == (total, columns):
        allowed &= seen[:, None]
        if not found.cross and columns == _all_queries(found):
            allowed &= seen[:, places][..., None]
    if found.windows > 1 and found.cells is not None:
        real = np.tile(found.cells >= 0, (found.count, 1))
        allowed &= real[:, None] & real[:, places][..., None]
    return allowed


def _all_queries(found: AttentionMap) -> int:
    """How many queries the attention itself has, also where only some rows were kept."""
    if found.queries is None or found.cross:
        return found.probabilities.shape[2]
    return found.probabilities.shape[3]


def _followed(p: Floats, allowed: Seen, places: NDArray[np.intp], cross: bool) -> dict[int, Floats]:
    """Attention (N, queries) to the query's own place, one before and one after; NaN where that isn't to be seen."""
    columns = p.shape[2]
    found = {}
    for step in (-1, 0, 1):
        at = places + step
        inside = (at >= 0) & (at < columns) & (not cross)
        here = np.s_[:, np.arange(len(places)), np.clip(at, 0, columns - 1)]
        found[step] = np.where(inside & allowed[here], p[here], np.nan)
    return found


def _gaps(found: AttentionMap, places: NDArray[np.intp], total: int) -> Floats | None:
    """Distance between each query and key: (1 or N * windows, queries, keys), NaN where either lies nowhere."""
    if found.cross:
        return None
    columns = found.probabilities.shape[3]
    if found.grid is None or found.cells is None or found.query_cells is None:
        return np.abs(places[:, None] - np.arange(columns)).astype(np.float64)[None]
    if found.query_grid != found.grid:
        return None
    rows = [
        np.where(cells[..., None] >= 0, _points(cells, found.grid[1]), np.nan)
        for cells in (found.query_cells, found.cells)
    ]
    gaps = np.linalg.norm(rows[0][:, places][:, :, None] - rows[1][:, None], axis=-1)  # (windows, queries, keys)
    return np.tile(gaps, (total // len(gaps), 1, 1)) if len(gaps) > 1 else gaps


def _points(cells: NDArray[np.intp], columns: int) -> Floats:
    return np.stack(np.divmod(cells, columns), axis=-1).astype(np.float64)


def _distance(p: Floats, gaps: Floats | None, count: Seen) -> float:
    """Mean distance over attention that goes to places (not to a class token)."""
    if gaps is None:
        return float("nan")
    known = np.isfinite(gaps)
    weight = p * known
    total = weight.sum(axis=2)
    far = (weight * np.where(known, gaps, 0)).sum(axis=2)
    return _mean(np.divide(far, total, out=np.zeros_like(far), where=total > 0), count & (total > 0))


def _mean(values: Floats, count: Seen) -> float:
    return float(values[count].mean()) if count.any() else float("nan")
