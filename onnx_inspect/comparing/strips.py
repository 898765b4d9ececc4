"""How a few pictures are followed through the checkpoints: the same channel, or the same method's map of one class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from onnx_inspect.analysis.checkpoints import Checkpoint
from onnx_inspect.analysis.saliency import CamPanel, of_batch
from onnx_inspect.analysis.strip import Strip, of_channel, of_panels, strongest_channel
from onnx_inspect.cam._probe import Attribution
from onnx_inspect.comparing.stream import opened, pieces
from onnx_inspect.comparing.tracking import Read, common_names
from onnx_inspect.engine import Engine
from onnx_inspect.errors import LayerError, TargetError
from onnx_inspect.forms import Maps, present
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.spatial import candidates, spatial
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.methods import explain_all
from onnx_inspect.scene import Scene, concrete_shapes
from onnx_inspect.targets import EveryClass, GivenClasses, Target, parse

MOST = 4  # pictures that are followed
Inputs = Callable[[Model], Batch]


def channel_strips(
    steps: Sequence[Checkpoint],
    read: Read,
    inputs: Inputs,
    *,
    layer: str | None = None,
    channel: int | None = None,
    make_engine: Callable[[Model], Engine] = Engine,
) -> list[Strip]:
    """One channel's picture of the first inputs at every checkpoint.

    Parameters
    ----------
    layer : str, optional
        One with maps; the one that a CAM would take where None.
    channel : int, optional
        The strongest of the last checkpoint where None.

    Raises
    ------
    LayerError
        The layer holds no maps, the network has none, or it has no such channel.
    """
    last = read(steps[-1])
    batch = first_of(inputs(last), MOST)
    shapes = concrete_shapes(last, batch)
    ranked = [c.layer for c in candidates(last, shapes) if len(c.spatial.grid) <= 2]
    if layer is None and not ranked:
        raise LayerError(f"{last.source} has no layer with maps over its input: there is no channel to show")
    chosen = last.layer(layer) if layer is not None else ranked[0]
    form = spatial(last, shapes).get(chosen.output.name)
    if form is None or form.form == "flat" or len(form.grid) > 2:
        best = ", ".join(repr(la.name) for la in ranked[:3]) or "none"
        raise LayerError(f"layer {chosen.name!r} of {last.source} holds no maps to show; layers that do: {best}")
    seen: list[Maps] = []
    for step in steps:
        model = read(step)
        tensor = common_names(last, model)[chosen.name].output.name
        own = first_of(inputs(model), MOST)
        engine = opened(model, [tensor], make_engine)
        values = next(pieces(engine, own, [tensor], [np.arange(own.n)]))[tensor]
        seen.append(present(values, form))  # (n, K, h, w)
    count = seen[-1].shape[1]
    if channel is not None and channel >= count:
        raise LayerError(f"layer {chosen.name!r} has channels 0 to {count - 1}, not {channel}")
    number = strongest_channel(seen[-1]) if channel is None else channel
    labels = [step.label for step in steps]
    return [
        of_channel(
            chosen.name, number, np.stack([m[n, number] for m in seen]), batch.sources[n], labels, batch.originals[n]
        )
        for n in range(batch.n)
    ]


def cam_strips(
    steps: Sequence[Checkpoint],
    read: Read,
    inputs: Inputs,
    method: str,
    *,
    layer: str | None = None,
    target: str | None = None,
    params: Sequence[tuple[str, str]] = (),
    seed: int = 0,
    make_engine: Callable[[Model], Engine] = Engine,
) -> list[Strip]:
    """One method's map of the first inputs at every checkpoint.

    Parameters
    ----------
    target : str, optional
        What is explained at each; the class that the last checkpoint predicts where None.

    Raises
    ------
    InspectError
        The method can't apply, or the target isn't there.
    """
    last = read(steps[-1])
    batch = first_of(inputs(last), MOST)
    asked = _parsed(target, batch) if target is not None else None

    def explain(model: Model, own: Batch, at: str | None, what: Target | None) -> tuple[Scene, Attribution]:
        found, _ = explain_all(
            model,
            own,
            methods=[method],
            layers=[at] if at is not None else [],
            params=params,
            targets=[what] if what is not None else [],
            seed=seed,
            make_engine=make_engine,
        )
        return found[0]

    view, final = explain(last, batch, layer, asked)
    if asked is None and view.target is not None and view.fixed.serves_all:
        asked = GivenClasses(tuple(int(c) for c in view.fixed.classes))
    chosen = view.layer.name if view.layer is not None and final.layer else None
    panels: list[list[CamPanel]] = [[] for _ in range(batch.n)]
    for step in steps:
        model = read(step)
        own = first_of(inputs(model), MOST)
        at = common_names(last, model)[chosen].name if chosen is not None else None
        _, found = explain(model, own, at, asked)
        for n, column in enumerate(panels):
            column.append(of_batch([found], n, own))
    where = f" at {chosen}" if chosen is not None else ""
    labels = [step.label for step in steps]
    return [of_panels(column, labels, f"{method}{where}") for column in panels if column[-1].picture is not None]


def _parsed(text: str, batch: Batch) -> Target:
    found = parse(text, batch.labels)
    if len(found) > 1 or isinstance(found[0], EveryClass):
        raise TargetError(f"target {text!r} is several maps: a strip follows one; name one class")
    return found[0]


def first_of(batch: Batch, most: int) -> Batch:
    """The first few samples of a batch."""
    if batch.n <= most:
        return batch
    return replace(
        batch,
        arrays={name: a if name in batch.shared else a[:most] for name, a in batch.arrays.items()},
        sources=batch.sources[:most],
        originals=batch.originals[:most],
        placements=batch.placements[:most],
    )
