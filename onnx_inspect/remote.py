"""How saliency maps of many inputs are made on a Ray cluster: each input's map is what it is beside any others."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnx_inspect.analysis.attributions import joined
from onnx_inspect.cam._probe import Attribution
from onnx_inspect.cluster import spread
from onnx_inspect.engine import Engine
from onnx_inspect.errors import LayerError
from onnx_inspect.graph.model import Layer, Model
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.methods import Skipped
from onnx_inspect.scene import scene
from onnx_inspect.targets import Target

Explain = Callable[..., tuple[list[tuple[Any, Attribution]], list[Skipped]]]
TASKS, WORKERS = 4, 8  # portions for each worker; workers, where nobody says them


@dataclass(frozen=True)
class Chosen:
    """Which layer was looked at, and why, when it was chosen for the user."""

    layer: Layer | None
    why: str


def explain_spread(
    explain: Explain,
    model: Model,
    batch: Batch,
    *,
    layers: Sequence[str],
    targets: Sequence[Target],
    output: str | None,
    make_engine: Callable[[Model], Engine],
    workers: int | None = None,
    cpus: int = 1,
    report: Callable[[int, int], None] | None = None,
) -> tuple[list[tuple[Chosen, Attribution]], list[Skipped]]:
    """Make the maps of a batch in portions, on the cluster that ``RAY_ADDRESS`` names or on this machine's processors.

    A method draws the same random numbers for each input, whatever stands beside it, so that portions change no map.
    What depends on all inputs, the layer that is chosen where none is named, is decided here before.

    Parameters
    ----------
    explain : callable
        :func:`onnx_inspect.methods.explain_all` with all but the model, the batch, the layers and the maker of engines;
        it must be picklable.
    layers : sequence of str
    targets : sequence of Target
        What `explain` explains.
    workers, cpus : int
        See :func:`onnx_inspect.cluster.spread`.
    report : callable, optional
        Called with (inputs done, inputs in all).

    Raises
    ------
    LayerError
        No layer was named, and targets want different ones.
    """
    why = ""
    if not layers:
        layers, why = _chosen(model, batch, targets, output, make_engine)
    step = math.ceil(batch.n / (TASKS * (workers or WORKERS)))
    starts = range(0, batch.n, step)
    make = functools.partial(_made, explain, model, batch, tuple(layers), make_engine, step)
    parts: dict[int, tuple[list[tuple[Chosen, Attribution]], list[Skipped]]] = {}
    for start, part in spread(list(starts), make, workers=workers, cpus=cpus):
        parts[start] = part
        if report is not None:
            report(min(len(parts) * step, batch.n), batch.n)
    ordered = [parts[start] for start in starts]
    found = [
        (replace(chosen, why=why), joined([part[0][number][1] for part in ordered]))
        for number, (chosen, _) in enumerate(ordered[0][0])
    ]
    return found, ordered[0][1]


def rows(batch: Batch, start: int, stop: int) -> Batch:
    """Some samples of a batch."""
    part = slice(start, stop)
    return replace(
        batch,
        arrays={n: a if n in batch.shared else np.ascontiguousarray(a[part]) for n, a in batch.arrays.items()},
        sources=batch.sources[part],
        originals=batch.originals[part],
        placements=batch.placements[part],
    )


def _chosen(
    model: Model, batch: Batch, targets: Sequence[Target], output: str | None, make_engine: Callable[[Model], Engine]
) -> tuple[tuple[str, ...], str]:
    """The layer that all inputs together choose, and why; none where the model has no maps."""
    views = [scene(model, batch, target=one, output=output, make_engine=make_engine) for one in targets or (None,)]
    names = list(dict.fromkeys(view.layer.name for view in views if view.layer is not None))
    if len(names) > 1:
        raise LayerError(f"the targets look at different layers ({', '.join(names[:3])}): name one with --layer")
    return tuple(names), views[0].why


def _made(
    explain: Explain,
    model: Model,
    batch: Batch,
    layers: Sequence[str],
    make_engine: Callable[[Model], Engine],
    step: int,
) -> Callable[[int], tuple[list[tuple[Chosen, Attribution]], list[Skipped]]]:
    """What an actor does with the portion that starts at a number; its session is kept from portion to portion."""
    engines: dict[bytes, Engine] = {}

    def kept(part: Model) -> Engine:
        key = part.proto.SerializeToString(deterministic=True)
        if key not in engines:
            engines[key] = make_engine(part)
        return engines[key]

    def work(start: int) -> tuple[list[tuple[Chosen, Attribution]], list[Skipped]]:
        found, skipped = explain(model, rows(batch, start, start + step), layers=layers, make_engine=kept)
        return [(Chosen(view.layer, view.why), attribution) for view, attribution in found], skipped

    return work
