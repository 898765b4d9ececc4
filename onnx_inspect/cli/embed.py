"""`embed`: how a data set lies inside layers, in two or three dimensions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_inspect import discover
from onnx_inspect.cli._dataset import data_argument, output_option, pool_option
from onnx_inspect.cli._options import (
    COMMON_OPTIONS,
    ENGINE_OPTIONS,
    INPUT_OPTIONS,
    RUN_OPTIONS,
    Settings,
    layers_option,
    model_argument,
    out_option,
    params_option,
    save_option,
    shared,
)

if TYPE_CHECKING:
    from onnx_inspect.analysis.embedding import Embedding
    from onnx_inspect.capture import Captured
    from onnx_inspect.inputs.dataset_batches import Reader

DEFAULT_METHOD = "pca"


@click.command()
@model_argument
@data_argument
@layers_option
@click.option(
    "--method",
    default=DEFAULT_METHOD,
    show_default=True,
    metavar="METHOD",
    help=f"{', '.join(discover.names('onnx_inspect.embed'))}.",
)
@click.option("--dim", type=click.IntRange(2, 3), default=2, show_default=True, help="Dimensions.")
@pool_option
@params_option
@click.option("--thumbnails", is_flag=True, help="Draw the samples' pictures where they lie.")
@click.option(
    "--tensorboard",
    "board",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also write features, classes, thumbnails, histograms and the figure for TensorBoard.",
)
@output_option
@save_option
@out_option
@shared(INPUT_OPTIONS, RUN_OPTIONS, ENGINE_OPTIONS, COMMON_OPTIONS)
def command(
    model: str,
    data: tuple[str, ...],
    layers: tuple[str, ...],
    method: str,
    dim: int,
    pool: Any,
    params: tuple[tuple[str, str], ...],
    thumbnails: bool,
    board: Path | None,
    output: str | None,
    save: Path | None,
    out: Path | None,
    settings: Settings,
) -> None:
    """Draw where the samples of DATASET lie inside layers of MODEL, coloured by class, and measure how they separate.

    DATASET is a folder with a folder for each class, a .csv of paths and labels, a .txt list, an .npz of samples and
    labels, or files. A folder that `capture` wrote may stand in place of MODEL and DATASET. Several layers stand side
    by side, in the order of depth; without --layer up to four are taken.

    \b
    Example:  onnx-inspect embed net.onnx photos/ --method tsne -o seen.png
              onnx-inspect embed net.onnx data.npz --layer Relu:0 --layer Relu:-1 --dim 3 --save points.npz
              onnx-inspect embed captured/ --method umap --thumbnails --tensorboard runs/net
    """
    from onnx_inspect.cli._dataset import limited
    from onnx_inspect.cli._session import emit, figure_paths, progress, save_figure, say, stem
    from onnx_inspect.embedding import advice, embed, settled
    from onnx_inspect.render import embedding as render
    from onnx_inspect.trace import save_arrays

    settled(method, 0, dim=dim, params=dict(params))  # before anything is run
    paths = figure_paths(out, [f"{stem(model)}-{method}-{dim}d"])
    if board is not None:
        from onnx_inspect.tensorboard import require

        require()
    captured, chosen, reader = _captured(
        model, data, layers, pool, output, settings, pictures=thumbnails or bool(board)
    )
    if warning := advice(method, len(captured), dict(params)):
        say(warning, settings)
    with progress(settings) as report, limited(settings):
        found = embed(captured, chosen, method=method, dim=dim, seed=settings.seed, params=dict(params), report=report)
    if thumbnails and dim == 2 and reader is not None:
        found = _with_pictures(found, captured, reader)
    elif thumbnails:
        say("thumbnails are drawn in two dimensions only: leave out --dim 3 to see them", settings)
    save_figure(render, found, paths[0])
    if save is not None:
        save_arrays(save, found.arrays())
    if board is not None:
        _write_board(board, found, captured, reader, settings)
    if settings.as_json:
        emit(found.meta() | {"figures": [str(paths[0])]})
    else:
        click.echo(str(paths[0]))


def _captured(
    model: str,
    data: tuple[str, ...],
    layers: tuple[str, ...],
    pool: Any,
    output: str | None,
    settings: Settings,
    *,
    pictures: bool,
) -> tuple[Captured, list[str], Reader | None]:
    """What is to be projected, which layers of it, and where its pictures are."""
    from onnx_inspect.cli._dataset import (
        DEFAULT_POOL,
        captured,
        default_layers,
        is_captured,
        job_of,
        layers_of,
        reader_again,
        reopened,
        source_of,
        tell_skipped,
    )
    from onnx_inspect.cli._session import read_model

    if is_captured(model, data):
        found, names = reopened(model, layers, pool, settings)
        tell_skipped(found, settings)
        return found, names, reader_again(model, settings) if pictures else None
    net = read_model(model)
    source = source_of(net, data, settings, output)
    chosen = layers_of(net, layers) or default_layers(source, 4, pool or DEFAULT_POOL, settings)
    found = captured(job_of(source, chosen, pool or DEFAULT_POOL, settings), settings)
    return found, list(found.layers), source.reader


def _with_pictures(found: Embedding, captured: Captured, reader: Reader) -> Embedding:
    from dataclasses import replace

    from onnx_inspect.analysis.embedding import CELLS, spread
    from onnx_inspect.inputs.dataset_pictures import pictures

    seen = {}
    for projection in found.projections:
        chosen = spread(projection.points, CELLS).tolist()
        by_place = dict(pictures(reader, captured.places[chosen].tolist(), 48))
        seen[projection.layer] = {n: by_place[p] for n in chosen if (p := int(captured.places[n])) in by_place}
    return replace(found, thumbnails=seen)


def _write_board(folder: Path, found: Embedding, captured: Captured, reader: Reader | None, settings: Settings) -> None:
    from onnx_inspect.board import write
    from onnx_inspect.cli._session import say
    from onnx_inspect.render import embedding as render
    from onnx_inspect.render._save import drawn, pixels

    for note in write(folder, found, captured, reader, figure=pixels(drawn(render, found))):
        say(note, settings)
    say(f"TensorBoard: tensorboard --logdir {folder}", settings)
