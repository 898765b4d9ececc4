"""`weights`: what the layers have learned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click

from onnx_inspect.cli._options import (
    COMMON_OPTIONS,
    Settings,
    layers_option,
    model_argument,
    out_option,
    save_option,
    shared,
)


def _colour(metadata: Mapping[str, str]) -> str:
    """Order of the channels that the model's exporter recorded."""
    try:
        recorded = json.loads(metadata.get("onnx_inspect.preprocess", "{}"))
    except ValueError:
        return "RGB"  # unreadable: `predict` and `cam`, whose result it would change, say so
    return "BGR" if isinstance(recorded, dict) and recorded.get("colour") == "BGR" else "RGB"


@click.command()
@model_argument
@layers_option
@click.option("--all", "whole", is_flag=True, help="Also biases, scales and other constants; --layer has them anyway.")
@click.option(
    "--colour", type=click.Choice(["RGB", "BGR"]), help="Order of a picture's channels.  [default: the model's, or RGB]"
)
@save_option
@out_option
@shared(COMMON_OPTIONS)
def command(
    model: str,
    layers: tuple[str, ...],
    whole: bool,
    colour: str | None,
    save: Path | None,
    out: Path | None,
    settings: Settings,
) -> None:
    """Draw the weights of MODEL: filters as tiles, matrices as heat maps, with histogram, norms and spectrum.

    Quantised weights are dequantised. Without --layer every layer's main weight is drawn.

    \b
    Example:  onnx-inspect weights net.onnx --layer 'Conv:0' --layer '*fc*' -o weights/
    """
    from onnx_inspect.analysis.weights import view
    from onnx_inspect.cli._session import emit, figure_paths, progress, read_model, save_figure
    from onnx_inspect.graph.weights import LEARNED, distinct, layer_weights, of_layers, parameters
    from onnx_inspect.render import weights as render
    from onnx_inspect.trace import save_arrays

    net = read_model(model)
    every = layer_weights(net)
    asked = [layer for text in layers for layer in net.find(text)]
    chosen = of_layers(every, asked or (*net.layers, *net.inner), net.source)
    chosen = distinct(w for w in chosen if layers or whole or w.role in LEARNED)
    stems = [w.layer.name if w.role == "weight" else f"{w.layer.name}-{w.role}" for w in chosen]
    paths, described = figure_paths(out, stems), []
    with progress(settings) as report:
        for done, (weight, path) in enumerate(zip(chosen, paths, strict=True), 1):
            seen = view(weight, colour=colour or _colour(net.metadata))
            save_figure(render, seen, path)
            described.append({**seen.to_json(), "figure": str(path)})
            report(done, len(chosen))
    if save is not None:
        save_arrays(save, {w.name: w.array() for w in chosen})
    if settings.as_json:
        emit({"model": model, "parameters": parameters(every), "weights": described})
    else:
        for path in paths:
            click.echo(str(path))
