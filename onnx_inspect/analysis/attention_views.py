"""How attention becomes what is drawn: maps over a picture, matrices of tokens, and thumbnails of a whole model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis import attention_query as queries
from onnx_inspect.analysis.attention import HeadStatistics, statistics
from onnx_inspect.analysis.saliency import UNSEEN, CamMap, CamPanel, prepare
from onnx_inspect.analysis.token_saliency import STRONGEST, TokenMap, TokenPanel
from onnx_inspect.errors import InputError
from onnx_inspect.heads import AttentionMap
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.inputs.tokens import Tokens

Map = NDArray[np.float32]
Floats = NDArray[np.float64]

CROWDED = 800  # tokens on a page, all heads together, from which only the heads' mean is drawn


@dataclass(frozen=True)
class HeadMatrix:
    """One head's attention from token to token.

    Attributes
    ----------
    head : str
        ``head 3``, ``mean``, ``rollout``.
    values : ndarray, (queries, keys), float32
    name : str
        What kind of head it is; "" where nothing names it.
    """

    head: str
    values: Map
    name: str = ""


@dataclass(frozen=True)
class TokenHeads:
    """One layer's heads over one text, or over any tokens without a picture.

    Attributes
    ----------
    source, layer : str
    heads : tuple of HeadMatrix
    rows, columns : tuple of str
        Queries and keys, as they are written.
    special : tuple of bool
        Which of the keys are no text.
    query : int or None
        The row that was asked for.
    notes : tuple of str
    """

    source: str
    layer: str
    heads: tuple[HeadMatrix, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    special: tuple[bool, ...]
    query: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Thumbnail:
    """One head in the view of the whole model: a matrix, or a map over the patches; `name` as in HeadMatrix."""

    values: Map
    head: str
    name: str


@dataclass(frozen=True)
class ModelHeads:
    """All heads of all layers for one sample; `of` says what a thumbnail shows."""

    source: str
    layers: tuple[str, ...]
    rows: tuple[tuple[Thumbnail, ...], ...]
    of: str
    notes: tuple[str, ...] = ()


def kinds(maps: Sequence[AttentionMap], batch: Batch) -> list[tuple[HeadStatistics, ...]]:
    """Statistics of every attention, padding left out."""
    return [statistics(found, seen_of(batch, found)) for found in maps]


def seen_of(batch: Batch, found: AttentionMap) -> NDArray[np.bool_] | None:
    """Which tokens of each sample are no padding, (N, T); None where the keys aren't those of a text."""
    if batch.text is None or found.grid is not None or not _of_text(batch, found.key_inputs):
        return None
    seen = np.stack([~np.array(tokens.padding, bool) for tokens in batch.text.tokens])
    return seen if seen.shape == (found.count, found.probabilities.shape[3]) and found.windows == 1 else None


def _of_text(batch: Batch, inputs: Sequence[str]) -> bool:
    """Whether positions of these inputs are those of the text's tokens; where nobody knows, its length decides."""
    text = batch.text
    return text is not None and (not inputs or any(name in (text.name, text.mask) for name in inputs))


def over_picture(
    found: AttentionMap,
    named: Sequence[HeadStatistics],
    index: int,
    batch: Batch,
    query: queries.Query | None,
    total: Floats | None,
) -> CamPanel:
    """Heads of one layer, their mean, and the rollout, laid over one sample's picture.

    Each map is scaled to its own strongest patch; the number beside it is that patch's share of attention.
    """
    original, placement = batch.originals[index], batch.placements[index]
    chosen, words = queries.weights(query or queries.usual(found), found, placement, None)
    heads = queries.looks(found, index, chosen)
    entries = [
        (f"head {s.head}" if found.reduced is None else f"{s.head} of heads", s.name, m)
        for s, m in zip(named, heads, strict=True)
    ]
    if found.reduced is None and len(heads) > 1:
        entries.append((f"mean of {len(heads)} heads", "", heads.mean(axis=0)))
    if total is not None:
        entries.append(("rollout", "", queries.looks_of_rollout(total, index, chosen)[0]))
    size = None if original is None else (original.shape[0], original.shape[1])
    maps = tuple(_over(label, name, found.on_grid(values), placement, size) for label, name, values in entries)
    source = Path(batch.sources[index])
    notes = [
        f"{found.layer}: attention of {words}, each map on its own scale; the number is its strongest patch's share"
    ]
    if original is not None and any(np.isnan(m.values).any() for m in maps):
        notes.append(UNSEEN if chosen.any(axis=1).all() else "hatched: outside the query's window")
    if found.windows > 1:
        notes.append(f"{found.windows} windows, put back where they lie in the picture")
    return CamPanel(
        source=source.stem if source.suffix else source.name,
        maps=maps,
        picture=original if original is not None else blank(found),
        notes=tuple(notes),
        unit="relative attention",
    )


def _over(label: str, name: str, grid: Map, placement: Any, size: tuple[int, int] | None) -> CamMap:
    """One head's map, drawn where it looks; what its windows don't hold is unseen."""
    strongest = float(np.nanmax(grid)) if np.isfinite(grid).any() else 0.0
    known = np.isfinite(grid)
    values, problem = prepare(
        np.where(known, grid, np.nanmin(grid) if known.any() else 0).astype(np.float32), placement=placement, size=size
    )
    problem = problem.replace("flat map: no evidence", "looks at every patch alike")
    if not known.all() and not problem:
        values = np.where(_enlarged(known, placement, size or values.shape), values, np.nan).astype(np.float32)
    return CamMap(label, "", f"{name}, most" if name else "most", strongest, values, problem)


def _enlarged(known: NDArray[np.bool_], placement: Any, size: tuple[int, ...]) -> NDArray[np.bool_]:
    if placement is not None:
        return np.asarray(placement.to_original(known.astype(np.float32)) > 0.5)
    rows, columns = (np.arange(s) * k // s for s, k in zip(size, known.shape, strict=True))
    return known[rows[:, None], columns]


def blank(found: AttentionMap) -> NDArray[np.uint8]:
    """White paper under maps of a picture that nobody has."""
    assert found.grid is not None
    return np.full((*(side * 16 for side in found.grid), 3), 255, np.uint8)


def over_tokens(
    found: AttentionMap, named: Sequence[HeadStatistics], index: int, batch: Batch, query: queries.Query | None
) -> TokenHeads:
    """Heads of one layer over one sample's tokens, padding left out.

    Raises
    ------
    InputError
        The attention has no such query.
    """
    rows, columns, special, shown = _labels(found, index, batch)
    values = found.sample(index)[0][:, shown[0]][:, :, shown[1]]
    heads = [
        HeadMatrix(f"head {s.head}" if found.reduced is None else f"{s.head} of heads", v, s.name)
        for s, v in zip(named, values, strict=True)
    ]
    if found.reduced is None and len(heads) > 1:
        heads.append(HeadMatrix(f"mean of {len(heads)} heads", values.mean(axis=0)))
    notes = [] if found.windows == 1 else [f"the first of {found.windows} windows"]
    row = None
    if query is not None and query.text != "mean":
        seen = seen_of(batch, found)
        chosen, _ = queries.weights(query, found, None, None if seen is None else seen[index])
        row = int(np.flatnonzero(shown[0] == int(chosen[0].argmax()))[0]) if chosen[0].argmax() in shown[0] else None
        if row is None:
            raise InputError(f"--query {query.text} is padding in {batch.sources[index]!r:.60}")
    return TokenHeads(batch.sources[index], found.layer, tuple(heads), rows, columns, special, row, tuple(notes))


def from_query(
    found: AttentionMap, named: Sequence[HeadStatistics], index: int, batch: Batch, query: queries.Query
) -> TokenPanel | None:
    """The text itself, each token on a ground as strong as a query's attention to it; None where there is no text."""
    seen = seen_of(batch, found)
    if batch.text is None or seen is None:
        return None
    tokens = batch.text.tokens[index]
    chosen, words = queries.weights(query, found, None, None if found.cross else seen[index])
    heads = queries.looks(found, index, chosen)[:, 0][:, tokens.shown]  # (heads, T)
    labels = [f"head {s.head}" if found.reduced is None else f"{s.head} of heads" for s in named]
    entries = list(zip(labels, [s.name for s in named], heads, strict=True))
    notes = [f"{found.layer}: attention of {words}, each head on its own scale"]
    if len(entries) > 1:
        entries.append((f"mean of {len(heads)} heads", "", heads.mean(axis=0)))
    if len(entries) * len(tokens.shown) > CROWDED:
        notes += (
            [f"{len(entries) - 1} heads are too much for one page: choose some with --head"] if len(entries) > 1 else []
        )
        entries = entries[-1:]
    written = [tokens.pieces[i] for i in tokens.shown]
    return TokenPanel(
        source=batch.sources[index],
        pieces=tuple(tokens.written[i] for i in tokens.shown),
        glued=tuple(tokens.glued[i] for i in tokens.shown),
        asked=(True,) * len(tokens.shown),
        maps=tuple(_attended(label, name, values, written) for label, name, values in entries),
        notes=tuple(notes),
        signed=False,
    )


def _attended(label: str, name: str, values: Map, written: Sequence[str]) -> TokenMap:
    strongest = np.argsort(-values, kind="stable")[:STRONGEST]
    return TokenMap(label, name, None, values, pro=tuple((written[i], float(values[i])) for i in strongest))


def with_rollout(view: TokenHeads, total: Floats, found: AttentionMap, index: int, batch: Batch) -> TokenHeads:
    """The same view with the rollout as its only matrix."""
    _, _, _, shown = _labels(found, index, batch)
    values = total[index][shown[0]][:, shown[1]].astype(np.float32)
    return replace(view, layer="all layers", heads=(HeadMatrix("rollout", values),), notes=())


def _labels(
    found: AttentionMap, index: int, batch: Batch
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[bool, ...], tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """How queries and keys are written, which keys are no text, and which of both aren't padding."""
    count, keys = found.probabilities.shape[2:]
    kept = np.arange(count) if found.queries is None else np.array(found.queries)
    columns, special, across = _written(found, found.key_inputs, keys, index, batch)
    if not found.cross and int(kept.max(initial=0)) < keys:
        rows, down = columns, across
    else:
        rows, _, down = _written(found, found.query_inputs, int(kept.max(initial=0)) + 1, index, batch)
    shown = np.flatnonzero(np.isin(kept, down))
    return (
        tuple(rows[i] for i in kept[shown]),
        tuple(columns[i] for i in across),
        tuple(special[i] for i in across),
        (shown, across),
    )


def _written(
    found: AttentionMap, inputs: Sequence[str], count: int, index: int, batch: Batch
) -> tuple[tuple[str, ...], tuple[bool, ...], NDArray[np.intp]]:
    """How `count` tokens of some inputs are written, which of them are no text, and which aren't padding."""
    tokens = _tokens(inputs, count, index, batch) if found.grid is None and found.windows == 1 else None
    if tokens is not None:
        return tokens.pieces, tuple(word < 0 for word in tokens.words), tokens.shown
    prefix = tuple(f"[{name}]" for name in found.prefix_names) if found.grid is not None else ()
    names = (*prefix, *map(str, range(len(prefix), count)))[:count]
    return names, tuple(name in prefix for name in names), np.arange(count)


def _tokens(inputs: Sequence[str], count: int, index: int, batch: Batch) -> Tokens | None:
    """The tokens that stand at the positions of some inputs: the text's, or those of ids given beside it."""
    text = batch.text
    if text is None:
        return None
    if _of_text(batch, inputs) and len(text.tokens[index].pieces) == count:
        return text.tokens[index]
    for name in inputs:
        ids = batch.arrays[name]
        if text.coder is not None and ids.dtype.kind in "iu" and ids.ndim > 1 and ids.shape[-1] == count:
            return text.coder.read_ids(ids[index : index + 1], None)[0]
    return None


def whole_model(
    maps: Sequence[AttentionMap],
    named: Sequence[Sequence[HeadStatistics]],
    index: int,
    batch: Batch,
    query: queries.Query | None,
) -> ModelHeads:
    """Every head of every layer as a thumbnail: a map over the patches, or the matrix of tokens."""
    rows = []
    words = ""
    for found, own in zip(maps, named, strict=True):
        if found.grid is not None:
            chosen, words = queries.weights(query or queries.usual(found), found, batch.placements[index], None)
            values = np.stack([found.on_grid(head) for head in queries.looks(found, index, chosen)])
        else:
            *_, shown = _labels(found, index, batch)
            values = found.sample(index)[0][:, shown[0]][:, :, shown[1]]
        rows.append(tuple(Thumbnail(v, s.head, s.name) for v, s in zip(values, own, strict=True)))
    of = f"attention of {words} over the patches" if words else "from each token (rows) to each token (columns)"
    source = batch.sources[index] if batch.read_as is not None else Path(batch.sources[index]).stem
    return ModelHeads(
        source,
        distinct([m.layer for m in maps]),
        tuple(rows),
        of,
        ("each on its own scale, dark is little; colour goes by the square root",),
    )


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """What tells layers' names from each other: without the parts of a path that all of them share.

    Examples
    --------
    >>> distinct(["/net/layer.0/attn/Softmax", "/net/layer.1/attn/Softmax"])
    ('layer.0', 'layer.1')
    """
    paths = [name.split("/") for name in names]
    if len(names) < 2 or len({len(path) for path in paths}) > 1:
        return tuple(names)
    differing = [i for i, parts in enumerate(zip(*paths, strict=True)) if len(set(parts)) > 1]
    return tuple("/".join(path[i] for i in differing) for path in paths) if differing else tuple(names)
