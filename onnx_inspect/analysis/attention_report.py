"""What `attention` found in a model, with its statistics: what is printed, saved and drawn from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.attention import HeadStatistics, rollout, stack, why_no_rollout
from onnx_inspect.analysis.attention_query import Query
from onnx_inspect.analysis.attention_views import kinds
from onnx_inspect.errors import LayerError, MethodError
from onnx_inspect.heads import AttentionMap, Attentions, Relevance
from onnx_inspect.inputs.batch import Batch

Statistics = tuple[HeadStatistics, ...]


@dataclass(frozen=True)
class Rollout:
    """Attention followed through `layers`, (N, T, T); `over` is the last of them, whose tokens it has."""

    values: NDArray[np.float64]
    over: AttentionMap
    layers: tuple[str, ...]

    def fits(self, found: AttentionMap) -> bool:
        """Whether an attention's keys are the rollout's tokens."""
        return found.grid == self.over.grid and found.probabilities.shape[3] == self.values.shape[2]


@dataclass(frozen=True)
class Report:
    """Attention of a model over a batch.

    Attributes
    ----------
    found : Attentions
    named : tuple of tuple of HeadStatistics
        For each of the attentions, of each head.
    rolled : Rollout or None
    decided : Relevance or None
        What each token decides of a target, where that was asked for.
    meta : dict
        What ``--json`` prints and ``attention.npz`` holds.
    notes : tuple of str
        What is to be said beside the results.
    """

    found: Attentions
    named: tuple[Statistics, ...]
    rolled: Rollout | None
    meta: dict[str, Any]
    notes: tuple[str, ...]
    decided: Relevance | None = None

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What ``attention.npz`` holds: probabilities by layer, the rollout where there is one, and `meta`."""
        stored: dict[str, NDArray[Any]] = {m.layer: m.probabilities for m in self.found.maps}
        if self.rolled is not None:
            stored["rollout"] = self.rolled.values.astype(np.float32)
        if self.decided is not None:
            stored["relevance"] = self.decided.values.astype(np.float32)
        return stored | {"meta": np.array(json.dumps(self.meta))}


def report(
    found: Attentions,
    whole: Attentions | None,
    batch: Batch,
    *,
    model: str,
    reduce: str = "mean",
    discard: float = 0.0,
    wanted: bool = False,
    query: Query | None = None,
    decided: Relevance | None = None,
) -> Report:
    """Add statistics and the rollout to what was captured.

    Parameters
    ----------
    found : Attentions
        What is shown.
    whole : Attentions or None
        All layers, for the rollout; None to do without.
    reduce, discard
        As for :func:`~onnx_inspect.analysis.attention.rollout`.
    wanted : bool
        Whether the rollout was asked for, so that it must be had.
    decided : Relevance, optional
        What each token decides of a target.

    Raises
    ------
    LayerError
        No attention could be recovered.
    MethodError
        A rollout was asked for and can't be had.
    """
    if not found.maps:
        reasons = "; ".join(f"{layer!r}: {reason}" for layer, reason in found.refused[:3])
        raise LayerError(f"no attention of {model} could be recovered: {reasons}")
    named = tuple(kinds(found.maps, batch))
    rolled = _rolled(whole, batch, reduce, discard, wanted)
    meta = _meta(found, named, batch, model, query)
    if rolled is not None:
        meta["rollout"] = {"layers": list(rolled.layers), "reduce": reduce, "discard": discard}
    notes = _notes(found, named)
    if decided is not None:
        meta["relevance"] = {
            "layers": list(decided.layers),
            "inputs": [
                {"target": words, "score": float(score) if np.isfinite(score) else None}
                for words, score in zip(decided.targets, decided.scores, strict=True)
            ],
        }
        notes += decided.notes
    return Report(found, named, rolled, meta, notes, decided)


def check_discard(share: float) -> None:
    """Refuse a share outside [0, 1).

    Raises
    ------
    MethodError
    """
    if not 0 <= share < 1:
        raise MethodError(f"--discard is a share from 0 to below 1, got {share:g}")


def _length(batch: Batch) -> int | None:
    """Tokens of the text that is looked at; None for pictures."""
    return len(batch.read_as.tokens[0].pieces) if batch.read_as is not None else None


def _rolled(whole: Attentions | None, batch: Batch, reduce: str, discard: float, wanted: bool) -> Rollout | None:
    """The rollout, where it was asked for or a picture shows it anyway."""
    if whole is None:
        return None
    layers = stack(whole.maps, _length(batch))
    possible = not whole.refused and not why_no_rollout(layers)
    if not wanted and (not possible or layers[-1].grid is None or len(layers) < 2):
        return None
    if wanted and whole.refused:
        layer, reason = whole.refused[0]
        raise MethodError(f"no rollout: {layer!r} is missing, {reason}")
    return Rollout(rollout(layers, reduce=reduce, discard=discard), layers[-1], tuple(m.layer for m in layers))


def _meta(
    found: Attentions, named: tuple[Statistics, ...], batch: Batch, model: str, query: Query | None
) -> dict[str, Any]:
    inputs: list[dict[str, Any]] = [{"source": source} for source in batch.sources]
    if batch.text is not None:
        for entry, tokens in zip(inputs, batch.text.tokens, strict=True):
            entry["tokens"] = list(tokens.pieces)
    return {
        "model": model,
        "provider": found.provider,
        "inputs": inputs,
        "query": None if query is None else query.text,
        "attentions": [
            m.meta() | {"statistics": [s.to_json() for s in own]} for m, own in zip(found.maps, named, strict=True)
        ],
        "refused": [{"layer": layer, "reason": reason} for layer, reason in found.refused],
        "notes": [*batch.notes, *found.notes],
    }


def _notes(found: Attentions, named: tuple[Statistics, ...]) -> tuple[str, ...]:
    """What was refused, and which heads are of a kind that a few words say."""
    notes = [f"refused {layer!r}: {reason}" for layer, reason in found.refused]
    said: dict[str, list[str]] = {}
    for m, own in zip(found.maps, named, strict=True):
        for head in own:
            if head.name:
                said.setdefault(head.name, []).append(f"{m.index}.{head.head}")
    for name, heads in said.items():
        words = f"{name}, so dead" if name in ("even", "fixed") else name
        notes.append(
            f"{words}: head {', '.join(heads[:12])}{f' and {len(heads) - 12} more' if len(heads) > 12 else ''}"
        )
    return (*found.notes, *notes)
