"""What several saliency maps are called and what is told of them: the keys of ``maps.npz`` and its meta."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.token_saliency import parts
from onnx_inspect.cam._probe import Attribution
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.targets import label

Meta = dict[str, Any]
DRAWN = 24  # maps side by side at most


def keys(attributions: Sequence[Attribution]) -> list[str]:
    """Name of each result: its method; behind it ``@target`` and ``@layer`` where there are several of them.

    A method that looks at no layer has no ``@layer``.
    """
    targets = len({a.target for a in attributions}) > 1
    layers = len({a.layer for a in attributions if a.layer}) > 1
    return [
        "@".join([a.method, *([a.target] if targets else []), *([a.layer] if layers and a.layer else [])])
        for a in attributions
    ]


def drawn(attributions: Sequence[Attribution], index: int) -> list[Attribution]:
    """The results that one figure has room for: all, or those whose targets score highest for an input, in order."""
    best = sorted(range(len(attributions)), key=lambda i: -np.nan_to_num(attributions[i].scores[index], nan=-np.inf))
    return [attributions[i] for i in sorted(best[:DRAWN])]


def arrays(attributions: Sequence[Attribution], meta: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Everything ``maps.npz`` holds: (N, h, w) float32 by key, and `meta` as a JSON string.

    Of a method that finds concepts also each one's maps, ``key.concepts`` (N, R, h, w), and what it is made of,
    ``key.vectors`` (R, K).
    """
    stored: dict[str, NDArray[Any]] = {}
    for key, attribution in zip(keys(attributions), attributions, strict=True):
        stored[key] = attribution.values
        if attribution.concepts is not None:
            stored[f"{key}.concepts"] = attribution.concepts.strengths
            stored[f"{key}.vectors"] = attribution.concepts.vectors
    return stored | {"meta": np.array(json.dumps(meta))}


def describe(
    attributions: Sequence[Attribution], batch: Batch, *, model: str, skipped: Mapping[str, str], notes: Sequence[str]
) -> Meta:
    """What ``cam --json`` prints: layer, target and score per input, and each method's params, cost and provider.

    `inputs` and `layer` at the top hold what all methods share: the target (null for methods that look at no class in a
    model without class scores) and its probability where one can be had, else its raw score. The index of a target
    that is no class is null. The layer of methods that look at none is ``input``.
    """
    first = attributions[0]
    text = batch.read_as
    hidden = {"hidden": text.hiding.words} if text is not None and not all(a.tokenwise for a in attributions) else {}
    methods = {key: _method(a, batch) for key, a in zip(keys(attributions), attributions, strict=True)}
    return {
        "model": model,
        "provider": first.provider,
        "layer": _layer(first),
        "inputs": [
            {"source": source, "target": _target(first, n), "score": _number(first.scores[n])}
            for n, source in enumerate(batch.sources)
        ],
        **hidden,
        "methods": methods,
        "skipped": [{"method": key, "reason": reason} for key, reason in skipped.items()],
        "notes": list(notes),
    }


def joined(parts: Sequence[Attribution]) -> Attribution:
    """One result of those that the same method gave for the inputs one after another; costs are added up."""
    first = parts[0]
    return replace(
        first,
        values=np.concatenate([part.values for part in parts]),
        targets=tuple(one for part in parts for one in part.targets),
        classes=np.concatenate([part.classes for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        sources=tuple(one for part in parts for one in part.sources),
        boxes=tuple(one for part in parts for one in part.boxes),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        passes=sum(part.passes for part in parts),
        tail_passes=sum(part.tail_passes for part in parts),
        seconds=sum(part.seconds for part in parts),
    )


def _method(attribution: Attribution, batch: Batch) -> Meta:
    return {
        "method": attribution.method,
        "layer": _layer(attribution),
        "target": attribution.target,
        "class_aware": attribution.class_aware,
        "params": dict(attribution.params),
        "passes": attribution.passes,
        "tail_passes": attribution.tail_passes,
        "seconds": round(attribution.seconds, 6),
        "budget": attribution.estimate.budget if attribution.estimate is not None else None,
        "provider": attribution.provider,
        "shape": list(attribution.values.shape),
        "concepts": _concepts(attribution, batch),
        "inputs": [
            {
                "source": source,
                "target": _target(attribution, n),
                "score": _number(attribution.scores[n]),
                "flat": attribution.flat[n],
                "peak": None if attribution.flat[n] else _peak(attribution, batch, n),
                **_tokens(attribution, batch, n),
                "estimate": _estimate(attribution, n),
                **_completeness(attribution, n),
            }
            for n, source in enumerate(batch.sources)
        ],
    }


def _tokens(attribution: Attribution, batch: Batch, index: int) -> Meta:
    """A text's tokens (or words) with their values; nothing for pictures."""
    if batch.read_as is None:
        return {}
    found = parts(attribution.values[index, 0], index, batch.read_as, every=attribution.tokenwise)
    return {"tokens": [{"text": piece, "value": _number(np.float64(value))} for piece, value in found]}


def _concepts(attribution: Attribution, batch: Batch) -> list[Meta] | None:
    """What each concept stands for and how much of each input it is; null where the method finds none."""
    found = attribution.concepts
    if found is None:
        return None
    return [
        {
            "name": found.names[part],
            "classes": [
                {"index": int(index), "label": label(batch.labels, int(index)), "loss": _number(gain)}
                for index, gain in zip(found.classes[part], found.gains[part], strict=True)
            ],
            "shares": [round(float(share), 6) for share in found.shares[:, part]],
        }
        for part in range(len(found.vectors))
    ]


def _estimate(attribution: Attribution, index: int) -> Meta | None:
    """What a budget was spent on; null where the map is the method's definition."""
    found = attribution.estimate
    if found is None or found.complete[index]:
        return None
    return {
        "passes": found.passes[index],
        "of": found.whole[index],
        "stability": _number(found.stability[index]),
        "stable_from": found.stable,
    }


def _completeness(attribution: Attribution, index: int) -> Meta:
    """What the shares add up to and what they should; nothing for methods whose shares needn't add up."""
    known = attribution.account
    if known is None or known.total is None or known.change is None:
        return {}
    total, change = known.total[index], known.change[index]
    return {"completeness": {"sum": _number(total), "change": _number(change), "gap": _number(change - total)}}


def _layer(attribution: Attribution) -> str:
    """The layer, or what a method without one looks at."""
    return attribution.layer or "input"


def _peak(attribution: Attribution, batch: Batch, index: int) -> list[float]:
    """Centre of the strongest cell in the original's pixels, (x, y); in [0, 1] of the input without a picture.

    (x, y, z) in volumes.
    """
    placement, point = batch.placements[index], attribution.peak(index)
    if placement is not None and len(point) == 2:
        point = placement.point(*point)
    return [round(float(v), 3) for v in point]


def _target(attribution: Attribution, index: int) -> Meta | None:
    number, words = int(attribution.classes[index]), attribution.targets[index]
    return {"index": number if number >= 0 else None, "label": words} if words else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
