"""`probe`: how much of the classes a linear classifier reads off each layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_inspect.cli._dataset import data_argument, output_option, pool_option
from onnx_inspect.cli._options import (
    COMMON_OPTIONS,
    ENGINE_OPTIONS,
    INPUT_OPTIONS,
    RUN_OPTIONS,
    Settings,
    model_argument,
    out_option,
    shared,
)

if TYPE_CHECKING:
    from onnx_inspect.capture import Captured


@click.command()
@model_argument
@data_argument
@click.option(
    "--layer",
    "--layers",
    "layers",
    multiple=True,
    metavar="LAYER",
    help="Names, globs, Conv:-1 or indices, also several with commas between.  [default: 8 along depth]",
)
@pool_option
@click.option(
    "--classifier",
    type=click.Choice(["logistic", "ridge"]),
    default="logistic",
    show_default=True,
    help="Logistic regression, or least squares, which is faster for many classes.",
)
@click.option("--folds", type=click.IntRange(min=2), default=5, show_default=True, help="Of the cross-validation.")
@output_option
@out_option
@shared(INPUT_OPTIONS, RUN_OPTIONS, ENGINE_OPTIONS, COMMON_OPTIONS)
def command(
    model: str,
    data: tuple[str, ...],
    layers: tuple[str, ...],
    pool: Any,
    classifier: str,
    folds: int,
    output: str | None,
    out: Path | None,
    settings: Settings,
) -> None:
    """Train a linear classifier on each of several layers of MODEL and draw its accuracy along depth.

    DATASET needs classes: a folder with a folder for each, a .csv or list of paths and labels, or an .npz of samples
    and labels. Features are standardised, accuracy is measured on folds that were not trained on; chance and the
    model's own accuracy on the same samples are drawn beside. A folder that `capture` wrote may stand for MODEL and
    DATASET.

    \b
    Example:  onnx-inspect probe net.onnx photos/ -o probes.png
              onnx-inspect probe net.onnx data.npz --layers 'Relu:0,Relu:1,Relu:-1' --classifier ridge --json
    """
    from onnx_inspect.analysis.probe import probes
    from onnx_inspect.cli._dataset import limited
    from onnx_inspect.cli._session import emit, figure_paths, progress, save_figure, say, stem
    from onnx_inspect.embedding import features_of
    from onnx_inspect.errors import InputError
    from onnx_inspect.render import probe as render

    (path,) = figure_paths(out, [f"{stem(model)}-probe"])
    captured = _captured(model, data, [word for text in layers for word in _parts(text)], pool, output, settings)
    if not (captured.labels >= 0).any():
        raise InputError(
            "the data set names no classes: a probe needs a folder for each class, or labels beside the samples"
        )
    with progress(settings) as report, limited(settings):
        found = probes(
            lambda layer: features_of(captured, layer, settings.seed),
            {layer: captured.width(layer) for layer in captured.layers},
            captured.labels,
            names=captured.classes,
            own=~captured.wrong if captured.comparable else None,
            pool=captured.pool,
            model=captured.model,
            classifier=classifier,
            count=folds,
            seed=settings.seed,
            report=report,
        )
    if found.left_out:
        say(f"classes with fewer than {folds} samples left out: {', '.join(found.left_out[:8])}", settings)
    save_figure(render, found, path)
    if settings.as_json:
        emit(found.to_json() | {"figures": [str(path)]})
    else:
        render.show(found)
        click.echo(str(path))


def _parts(text: str) -> list[str]:
    """Layers parted by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _captured(
    model: str, data: tuple[str, ...], layers: list[str], pool: Any, output: str | None, settings: Settings
) -> Captured:
    from onnx_inspect.cli import _dataset as sets
    from onnx_inspect.cli._session import read_model

    if sets.is_captured(model, data):
        found, _ = sets.reopened(model, layers, pool, settings)
        sets.tell_skipped(found, settings)
        return found
    net = read_model(model)
    source = sets.source_of(net, data, settings, output)
    chosen = sets.layers_of(net, layers) or sets.default_layers(source, 8, pool or sets.DEFAULT_POOL, settings)
    return sets.captured(sets.job_of(source, chosen, pool or sets.DEFAULT_POOL, settings), settings)
