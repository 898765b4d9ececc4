"""`summary`: what a model is at a glance."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_inspect.cli._options import COMMON_OPTIONS, Settings, model_argument, out_option, shared


def _shapes(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for text in values:
        name, _, dims = text.rpartition("=")
        if not name or not all(part.strip().isdigit() and int(part) for part in dims.split(",")):
            raise click.BadParameter(f"{text!r} is not NAME=1,3,224,224", ctx, parameter)
        shapes[name] = tuple(int(part) for part in dims.split(","))
    return shapes


@click.command()
@model_argument
@click.option("--shape", "shapes", multiple=True, callback=_shapes, metavar="NAME=DIMS", help="An input's shape.")
@click.option("--all", "whole", is_flag=True, help="A row also for each layer that only prepares constants.")
@out_option
@shared(COMMON_OPTIONS)
def command(model: str, shapes: dict[str, tuple[int, ...]], whole: bool, out: Path | None, settings: Settings) -> None:
    """List MODEL's inputs, outputs, layers and costs, and which layers suit a CAM.

    Costs are for a batch of one. Where a model leaves other axes free, say their lengths with --shape.

    \b
    Example:  onnx-inspect summary net.onnx --shape image=1,3,224,224
    """
    from onnx_inspect.analysis.summary import summarise
    from onnx_inspect.cli._session import emit, read_model
    from onnx_inspect.graph.bind import bind
    from onnx_inspect.graph.input_shapes import usual_shapes
    from onnx_inspect.graph.spatial import candidates
    from onnx_inspect.render.summary import show

    net = read_model(model)
    suited = candidates(net, bind(net, usual_shapes(net, shapes)))
    result = summarise(net, shapes=shapes, ranks={candidate.layer.name: candidate.rank for candidate in suited})
    if settings.as_json or out is not None:
        emit(result.to_json(), out)
    if not settings.as_json:
        show(result, whole=whole)
