"""`capture`: what chosen layers hold for every sample of a data set, written to disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_inspect.cli._dataset import data_argument, output_option
from onnx_inspect.cli._options import (
    COMMON_OPTIONS,
    ENGINE_OPTIONS,
    INPUT_OPTIONS,
    RUN_OPTIONS,
    Settings,
    layers_option,
    model_argument,
    shared,
)

if TYPE_CHECKING:
    from onnx_inspect.capture.local import Written


@click.command()
@model_argument
@data_argument
@layers_option
@click.option(
    "--pool",
    type=click.Choice(["none", "mean", "max", "flatten", "cls"]),
    default="none",
    show_default=True,
    help="Keep whole maps, or one vector of each: mean or max over positions, all values in a row, the class token.",
)
@click.option(
    "--shard", type=click.IntRange(min=1), metavar="N", help="Samples in each file.  [default: about a second's work]"
)
@output_option
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder that holds the capture."
)
@shared(INPUT_OPTIONS, RUN_OPTIONS, ENGINE_OPTIONS, COMMON_OPTIONS)
def command(
    model: str,
    data: tuple[str, ...],
    layers: tuple[str, ...],
    pool: Any,
    shard: int | None,
    output: str | None,
    out: Path,
    settings: Settings,
) -> None:
    """Write what layers of MODEL hold for every sample of DATASET to disk, as .npy files that are whole or not there.

    DATASET is a folder with a folder for each class, a .csv of paths and labels, a .txt list, an .npz of samples and
    labels, or files. Interrupted, the same command goes on where it was; what comes out is the same bit for bit.
    `onnx_inspect.capture.open(DIR)` reads it back, and `embed` and `probe` take DIR in place of model and data set.

    \b
    Example:  onnx-inspect capture net.onnx photos/ --layer 'Relu:-1' --layer layer4 --pool mean -o captured/
              onnx-inspect capture net.onnx list.csv --layer 'Conv:0' --labels names.txt -o captured/
    """
    from onnx_inspect.capture.local import write
    from onnx_inspect.cli._dataset import estimate, job_of, layers_of, runner, source_of, tell_skipped
    from onnx_inspect.cli._session import emit, read_model, say
    from onnx_inspect.errors import LayerError

    net = read_model(model)
    if not layers:
        raise LayerError(f"no layer given: name some with --layer; list them with onnx-inspect summary {model}")
    job = job_of(source_of(net, data, settings, output), layers_of(net, layers), pool, settings, shard)
    with estimate(settings) as report:
        written = write(job, out, report=report, run=runner(settings))
    tell_skipped(written.captured, settings)
    if written.resumed:
        say(f"{written.resumed} of {job.plan.shards} shards were there already", settings)
    if settings.as_json:
        emit(_json(model, written))
    else:
        click.echo(str(out))


def _json(model: str, written: Written) -> dict[str, Any]:
    found = written.captured
    arrays = {layer: found.array(layer) for layer in found.layers}
    return {
        "model": model,
        "folder": str(written.folder),
        "samples": len(found),
        "skipped": [{"source": one.source, "reason": one.reason} for one in found.skipped],
        "resumed_shards": written.resumed,
        "accuracy": found.accuracy,
        "layers": [
            {"layer": layer, "shape": list(array.shape), "dtype": str(array.dtype), "bytes": array.nbytes}
            for layer, array in arrays.items()
        ],
    }
