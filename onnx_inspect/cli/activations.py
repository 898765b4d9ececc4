"""`activations`: what each layer answers to an input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_inspect.cli._options import (
    COMMON_OPTIONS,
    INPUT_OPTIONS,
    RUN_OPTIONS,
    Settings,
    inputs_argument,
    layers_option,
    model_argument,
    out_option,
    save_option,
    shared,
)

if TYPE_CHECKING:
    from onnx_inspect.analysis.activations import Readings
    from onnx_inspect.graph.model import Layer, Model
    from onnx_inspect.inputs.batch import Batch
    from onnx_inspect.trace import Trace


@click.command()
@model_argument
@inputs_argument
@layers_option
@click.option(
    "--channels", type=click.IntRange(min=1), metavar="K", help="Channels to draw.  [default: 64, or 24 values]"
)
@click.option(
    "--scale",
    type=click.Choice(["own", "shared"]),
    default="own",
    show_default=True,
    help="Colours of a channel: on its own scale, or one for the layer.",
)
@save_option
@out_option
@shared(INPUT_OPTIONS, RUN_OPTIONS, COMMON_OPTIONS)
def command(
    model: str,
    inputs: tuple[str, ...],
    layers: tuple[str, ...],
    channels: int | None,
    scale: str,
    save: Path | None,
    out: Path | None,
    settings: Settings,
) -> None:
    """Draw what the layers of MODEL hold for each INPUT, the most active channels first, and print their statistics.

    Without --layer, up to eight layers along the network's depth are taken.

    \b
    Example:  onnx-inspect activations net.onnx cat.jpg --layer 'Relu:0' --layer layer4 --save trace.npz -o seen/
    """
    from onnx_inspect.analysis.statistics import statistics
    from onnx_inspect.cli._session import (
        emit,
        engines,
        figure_paths,
        progress,
        read_batch,
        read_model,
        save_figure,
        stem,
    )
    from onnx_inspect.graph.spatial import spatial
    from onnx_inspect.render.statistics import show
    from onnx_inspect.scene import concrete_shapes
    from onnx_inspect.trace import capture

    net = read_model(model)
    batch = read_batch(net, inputs, settings)
    shapes = concrete_shapes(net, batch)
    chosen = _layers(net, layers, shapes, settings)
    names = [stem(source) for source in batch.sources]
    paths = figure_paths(out, [f"{name}-{part}" for name in names for part in _parts(chosen)])
    with engines(settings) as make_engine:
        trace = capture(net, batch.arrays, chosen, sources=batch.sources, make_engine=make_engine)
    if save is not None:
        trace.save(save)
    readings = spatial(net, shapes)
    with progress(settings) as report:
        figures = _figures(trace, batch, readings, limit=channels, scale=scale)
        for done, (path, (renderer, result)) in enumerate(zip(paths, figures, strict=True), 1):
            save_figure(renderer, result, path)
            report(done, len(paths))
    found = statistics(trace, readings=readings)
    if settings.as_json:
        emit(_json(model, trace, batch) | {"layers": [s.to_json() for s in found], "figures": [str(p) for p in paths]})
    else:
        show(found)
        for path in paths:
            click.echo(str(path))


def _layers(net: Model, asked: tuple[str, ...], shapes: Any, settings: Settings) -> list[Layer]:
    """Layers in the order of depth; the choice made for the user is said."""
    from onnx_inspect.analysis.depth import along_depth
    from onnx_inspect.cli._session import say

    if asked:
        named = dict.fromkeys(layer for text in asked for layer in net.find(text))  # once each, in a stable order
        return sorted(named, key=lambda layer: layer.index)
    chosen = along_depth(net, shapes)
    names = ", ".join(_short(layer.name) for layer in chosen)
    say(f"{len(chosen)} of {len(net.layers)} layers, evenly along depth: {names}; choose others with --layer", settings)
    return list(chosen)


def _short(name: str) -> str:
    return name if len(name) <= 48 else f"{name[:22]}...{name[-23:]}"


def _parts(chosen: list[Layer]) -> list[str]:
    """Names of one input's figures: an overview where there are several layers, then each layer's."""
    overview = ["overview"] if len(chosen) > 1 else []
    return overview + [layer.name for layer in chosen]


def _figures(
    trace: Trace, batch: Batch, readings: Readings, *, limit: int | None, scale: Any
) -> Iterator[tuple[Any, Any]]:
    """Renderer and result of each figure, in the order of `_parts` for each input."""
    from onnx_inspect.analysis.activations import view
    from onnx_inspect.render import activations, overview

    for n, original in enumerate(batch.originals):
        views = [
            view(
                trace,
                layer,
                sample=n,
                readings=readings,
                limit=limit,
                scale=scale,
                original=original,
                labels=batch.labels,
            )
            for layer in trace.layers
        ]
        if len(views) > 1:
            yield overview, views
        for seen in views:
            yield activations, seen


def _json(model: str, trace: Trace, batch: Batch) -> dict[str, Any]:
    return {
        "model": model,
        "provider": trace.provider,
        "drift": trace.drift,
        "inputs": [{"source": source} for source in trace.sources],
        "notes": list(batch.notes),
    }
