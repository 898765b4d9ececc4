"""`predict`: what the model answers."""

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
    out_option,
    shared,
)


@click.command()
@model_argument
@inputs_argument
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Classes to list.")
@click.option("--output", metavar="NAME", help="The output that holds the class scores, where there are several.")
@out_option
@shared(INPUT_OPTIONS, RUN_OPTIONS, COMMON_OPTIONS)
def command(
    model: str, inputs: tuple[str, ...], top: int, output: str | None, out: Path | None, settings: Settings
) -> None:
    """List the classes that MODEL sees in each INPUT, most likely first.

    \b
    Example:  onnx-inspect predict net.onnx cat.jpg dog.jpg --preprocess imagenet --labels names.txt
    """
    from onnx_inspect.analysis.prediction import predict
    from onnx_inspect.cli._session import emit, engines, read_batch, read_model, say
    from onnx_inspect.errors import TargetError
    from onnx_inspect.graph.classifier import find
    from onnx_inspect.render.prediction import show

    net = read_model(model)
    batch = read_batch(net, inputs, settings)
    try:
        scores = find(net, output=output)
    except TargetError as error:
        if output is not None:
            raise
        scores = None
        say(str(error), settings)
    with engines(settings) as make_engine:
        engine = make_engine(net)
        outputs = engine.run(batch.arrays)
        provider = engine.provider
    result = predict(
        outputs, scores, model=model, provider=provider, sources=batch.sources, labels=batch.labels, top=top
    )
    if settings.as_json or out is not None:
        emit(result.to_json(), out)
    if not settings.as_json:
        show(result)
