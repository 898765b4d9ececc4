"""`expose`: a model file whose intermediate tensors are outputs."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_inspect.cli._options import COMMON_OPTIONS, Settings, layers_option, model_argument, shared


@click.command()
@model_argument
@layers_option
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="Where to write it.")
@shared(COMMON_OPTIONS)
def command(model: str, layers: tuple[str, ...], out: Path, settings: Settings) -> None:
    """Write MODEL with the given layers as further outputs, for any runtime to fetch.

    \b
    Example:  onnx-inspect expose net.onnx --layer 'Relu:-1' --layer '*conv2*' -o net-open.onnx
    """
    from onnx_inspect.cli._session import emit, read_model
    from onnx_inspect.graph.surgery import expose
    from onnx_inspect.graph.write import write

    net = read_model(model)
    if not layers:
        raise click.UsageError("name at least one --layer", click.get_current_context())
    chosen = [layer for text in layers for layer in net.find(text)]
    opened = expose(net, chosen)
    write(opened, out)
    added = opened.outputs[len(net.outputs) :]
    if settings.as_json:
        specs = [{"name": s.name, "dtype": s.dtype, "shape": s.shape} for s in added]
        emit({"model": model, "out": str(out), "outputs": specs})
    else:
        for spec in added:
            click.echo(f"{spec.name}  {spec.describe()}")
