"""`bake`: a model file that outputs its own explanation."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_inspect.cli._options import (
    COMMON_OPTIONS,
    INPUT_OPTIONS,
    RUN_OPTIONS,
    Settings,
    inputs_argument,
    model_argument,
    shared,
)


@click.command()
@model_argument
@inputs_argument
@click.option("--method", default="recipro-cam", show_default=True, metavar="METHOD", help="What explains it.")
@click.option("--layer", metavar="LAYER", help="Where the map is taken.  [default: as cam chooses]")
@click.option("--output", metavar="NAME", help="The output that holds the class scores, where there are several.")
@click.option("--ask-class", is_flag=True, help="The class is a further input, index; else the largest score's.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="Where to write it.")
@shared(INPUT_OPTIONS, RUN_OPTIONS, COMMON_OPTIONS)
def command(
    model: str,
    inputs: tuple[str, ...],
    method: str,
    layer: str | None,
    output: str | None,
    ask_class: bool,
    out: Path,
    settings: Settings,
) -> None:
    """Write MODEL with its explanation inside: predictions and the map behind them, from any runtime, without Python.

    The new file's outputs are MODEL's own, index (the class that is explained), map (N, h, w), raw and signed, and
    heatmap (N, H, W), from 0 to 1 over the input's plane. Methods: ablation-cam, attention, cam, eigen-cam, grad-cam,
    grad-cam++, grad-cam-elementwise, hires-cam, layer-cam, mean-activation, recipro-cam, xgrad-cam. The map is held
    against the one that cam computes for each INPUT, random ones unless they are given, before anything is written.

    \b
    Example:  onnx-inspect bake net.onnx cat.jpg --method grad-cam -o explained.onnx
    """
    from onnx_inspect.baked import baked
    from onnx_inspect.cli._session import emit, engines, read_batch, read_model, say
    from onnx_inspect.graph.write import write

    net = read_model(model)
    batch = read_batch(net, inputs or (() if settings.named else ("random",)), settings)
    with engines(settings) as make_engine:
        found = baked(net, batch, method, layer=layer, output=output, ask=ask_class, make_engine=make_engine)
    write(found.model, out)
    if found.why:
        say(f"layer {found.layer!r}: {found.why}; choose another with --layer", settings)
    if found.operators:
        say(f"operators that not every runtime knows: {', '.join(found.operators)}", settings)
    specs = [{"name": s.name, "dtype": s.dtype, "shape": s.shape} for s in found.model.outputs]
    if settings.as_json:
        emit(
            {
                "model": model,
                "out": str(out),
                "method": found.method,
                "layer": found.layer,
                "inputs": [{"name": s.name, "dtype": s.dtype, "shape": s.shape} for s in found.model.inputs],
                "outputs": specs,
                "error": found.error,
                "operators": list(found.operators),
                "provider": found.provider,
            }
        )
        return
    click.echo(f"{out}: {found.method} at {found.layer}, within {found.error:.1e} of the map's range")
    for spec in found.model.outputs:
        click.echo(f"{spec.name}  {spec.describe()}")
