"""`cam`: where the network sees a class."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_inspect import discover
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
    target_option,
)

DEFAULT_METHOD = "recipro-cam"


def _pairs(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = [text.partition("=") for text in values]
    wrong = next((text for text, pair in zip(values, pairs, strict=True) if not pair[0] or not pair[1]), None)
    if wrong is not None:
        raise click.BadParameter(f"{wrong!r} is not KEY=VALUE", ctx, parameter)
    return tuple((key.strip(), value.strip()) for key, _, value in pairs)


@click.command()
@model_argument
@inputs_argument
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="METHOD",
    help=f"{', '.join(discover.names('onnx_inspect.cam'))}; several go side by side.  [default: {DEFAULT_METHOD}]",
)
@layers_option
@target_option
@click.option("--output", metavar="NAME", help="The output that holds the class scores, where there are several.")
@click.option("--param", "params", multiple=True, callback=_pairs, metavar="KEY=VALUE", help="A method's parameter.")
@click.option("--signed", is_flag=True, help="Also draw what speaks against the target, in a diverging map.")
@save_option
@out_option
@shared(INPUT_OPTIONS, RUN_OPTIONS, COMMON_OPTIONS)
def command(
    model: str,
    inputs: tuple[str, ...],
    methods: tuple[str, ...],
    layers: tuple[str, ...],
    target: str | None,
    output: str | None,
    params: tuple[tuple[str, str], ...],
    signed: bool,
    save: Path | None,
    out: Path | None,
    settings: Settings,
) -> None:
    """Draw class activation maps of MODEL over each INPUT.

    The layer is chosen for you unless you name one; several layers or methods are drawn side by side.

    \b
    Example:  onnx-inspect cam net.onnx cat.jpg --method recipro-cam --method eigen-cam --target 'tabby cat' -o maps/
    """
    from onnx_inspect.analysis import attributions, saliency
    from onnx_inspect.cli._session import emit, engines, figure_paths, read_batch, read_model, save_figure, say, stem
    from onnx_inspect.explain import explain_all
    from onnx_inspect.render import cam as render
    from onnx_inspect.scene import present_input
    from onnx_inspect.targets import parse
    from onnx_inspect.trace import save_arrays

    net = read_model(model)
    batch = read_batch(net, inputs, settings)
    paths = figure_paths(out, [f"{stem(source)}-cam" for source in batch.sources])
    with engines(settings) as make_engine:
        results, skipped = explain_all(
            net,
            batch,
            methods=methods or (DEFAULT_METHOD,),
            layers=layers,
            params=params,
            target=parse(target, batch.labels),
            output=output,
            seed=settings.seed,
            make_engine=make_engine,
        )
    found = [attribution for _, attribution in results]
    for entry in skipped:
        say(f"{entry.method} skipped: {entry.error}", settings)
    if results[0][0].why:
        say(f"layer {found[0].layer!r}: {results[0][0].why}; choose another with --layer", settings)
    meta = attributions.describe(
        found,
        batch,
        model=model,
        skipped={entry.method: str(entry.error) for entry in skipped},
        notes=batch.notes,
    )
    if save is not None:
        save_arrays(save, attributions.arrays(found, meta))
    shown = present_input(batch)
    is_signal = batch.arrays[batch.primary].ndim < 4
    for n, path in enumerate(paths):
        panel = saliency.panel(
            found,
            n,
            source=stem(batch.sources[n]),
            original=batch.originals[n],
            placement=batch.placements[n],
            array=shown[n][:, 0] if is_signal else shown[n],
            signed=signed,
        )
        save_figure(render, [panel], path)
    if settings.as_json:
        emit(meta | {"figures": [str(path) for path in paths]})
    else:
        for path in paths:
            click.echo(str(path))
