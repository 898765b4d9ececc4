"""`cam`: where the network sees a class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_inspect import discover
from onnx_inspect.cli._options import (
    COMMON_OPTIONS,
    ENGINE_OPTIONS,
    INPUT_OPTIONS,
    RUN_OPTIONS,
    Settings,
    inputs_argument,
    layers_option,
    model_argument,
    out_option,
    params_option,
    save_option,
    shared,
    target_option,
)

if TYPE_CHECKING:
    from onnx_inspect.cam._probe import Attribution
    from onnx_inspect.graph.model import Model
    from onnx_inspect.inputs.batch import Batch
    from onnx_inspect.methods import Skipped
    from onnx_inspect.remote import Explain
    from onnx_inspect.targets import Target

DEFAULT_METHOD = "recipro-cam"
TEXT_METHOD = "occlusion"  # of texts


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
@click.option("--hide", metavar="WAY", help="How a text's tokens are hidden: mask, attention, unk, pad, or an id.")
@click.option("--words", is_flag=True, help="Hide a text's whole words, not tokens.")
@layers_option
@target_option
@click.option("--output", metavar="NAME", help="The output that holds the class scores, where there are several.")
@click.option(
    "--gamma", type=float, default=1.0, show_default=True, help="Share of the other classes that cat~dog takes off."
)
@click.option("--decoder", metavar="NAME", help="How a detector's boxes are read.  [default: by its outputs' shapes]")
@click.option("--combine", metavar="WAY", help="One map of all layers: mean, max or product.")
@click.option("--smooth", metavar="WAY", help="augment: mean of six flips and scales; eigen: principal component.")
@click.option(
    "--budget",
    metavar="PASSES|SECONDS",
    help="200 or 5s: an estimate from the most informative masks, until it is stable.  [default: all masks]",
)
@params_option
@click.option("--signed", is_flag=True, help="Also draw what speaks against the target, in a diverging map.")
@save_option
@out_option
@shared(INPUT_OPTIONS, RUN_OPTIONS, ENGINE_OPTIONS, COMMON_OPTIONS)
def command(
    model: str,
    inputs: tuple[str, ...],
    methods: tuple[str, ...],
    hide: str | None,
    words: bool,
    layers: tuple[str, ...],
    targets: tuple[str, ...],
    output: str | None,
    gamma: float,
    decoder: str | None,
    combine: str | None,
    smooth: str | None,
    budget: str | None,
    params: tuple[tuple[str, str], ...],
    signed: bool,
    save: Path | None,
    out: Path | None,
    settings: Settings,
) -> None:
    """Draw class activation maps of MODEL over each INPUT.

    Layer and target are chosen for you unless you name them; several layers, methods or targets are drawn side by
    side. A target is a class, what tells it from others, a detector's box, a segment or region, a raw output, or the
    likeness to a second picture; boxes are in the picture's own pixels.

    \b
    Example:  onnx-inspect cam net.onnx cat.jpg --method recipro-cam --method eigen-cam --target 'tabby cat' -o maps/
              onnx-inspect cam net.onnx cat.jpg --target top-3 --smooth augment
              onnx-inspect cam net.onnx cat.jpg --target 'tabby~tiger cat' --layer Relu:-1 --layer Relu:0 --combine max
              onnx-inspect cam net.onnx cat.jpg --method score-cam --method rise --budget 5s
              onnx-inspect cam reviews.onnx --text 'Not bad at all.' --method kernel-shap --words
              onnx-inspect cam reviews.onnx --text 'Not bad at all.' --method integrated-gradients
              onnx-inspect cam yolo.onnx street.jpg --method hires-cam --target box:40,298,180,668@person
    """
    import functools

    from onnx_inspect.analysis import attributions
    from onnx_inspect.cam._budget import parse_budget
    from onnx_inspect.cli._session import (
        emit,
        engines,
        figure_paths,
        hidden,
        read_batch,
        read_model,
        save_figure,
        say,
        stem,
    )
    from onnx_inspect.methods import explain_all
    from onnx_inspect.render._explained import explained
    from onnx_inspect.targets import parse
    from onnx_inspect.trace import save_arrays

    net = read_model(model)
    batch = hidden(read_batch(net, inputs, settings), hide, words, settings)
    render, of_batch = explained(batch)
    paths = figure_paths(out, [f"{stem(source)}-cam" for source in batch.sources])
    wanted = [one for text in targets for one in parse(text, batch.labels, gamma=gamma, decoder=decoder)]
    explain = functools.partial(
        explain_all,
        methods=methods or (TEXT_METHOD if batch.read_as else DEFAULT_METHOD,),
        params=params,
        targets=wanted,
        combine=combine,
        smooth=smooth,
        budget=parse_budget(budget) if budget is not None else None,
        output=output,
        seed=settings.seed,
    )
    if settings.engine == "ray":
        if budget is not None:
            raise click.UsageError(
                "--budget is spent in one process: leave out --engine ray", click.get_current_context()
            )
        results, skipped = _spread(explain, net, batch, layers, wanted, output, settings)
    else:
        with engines(settings) as make_engine:
            results, skipped = explain(net, batch, layers=layers, make_engine=make_engine)
    found = [attribution for _, attribution in results]
    for note in _notes(results, skipped):
        say(note, settings)
    reasons = {entry.method: str(entry.error) for entry in skipped}
    meta = attributions.describe(found, batch, model=model, skipped=reasons, notes=batch.notes)
    if save is not None:
        save_arrays(save, attributions.arrays(found, meta))
    for n, path in enumerate(paths):
        save_figure(render, [of_batch(attributions.drawn(found, n), n, batch, signed=signed)], path)
    if settings.as_json:
        emit(meta | {"figures": [str(path) for path in paths]})
    else:
        for path in paths:
            click.echo(str(path))


def _spread(
    explain: Explain,
    net: Model,
    batch: Batch,
    layers: tuple[str, ...],
    targets: list[Target],
    output: str | None,
    settings: Settings,
) -> tuple[list[tuple[Any, Attribution]], list[Skipped]]:
    """The same on a Ray cluster, in portions."""
    from onnx_inspect.cli._dataset import estimate, maker
    from onnx_inspect.remote import explain_spread

    with estimate(settings) as report:
        found, skipped = explain_spread(
            explain,
            net,
            batch,
            layers=layers,
            targets=targets,
            output=output,
            make_engine=maker(settings),
            workers=settings.workers,
            cpus=settings.threads or 1,
            report=report,
        )
    return list(found), skipped


def _notes(results: list[tuple[Any, Attribution]], skipped: list[Skipped]) -> list[str]:
    """What was left out, and what was chosen for the user: layer and target."""
    notes = [f"{entry.method} skipped: {entry.error}" for entry in skipped]
    layers = [f"layer {v.layer.name!r}: {v.why}; choose another with --layer" for v, a in results if v.layer and v.why]
    on_layer = any(a.layer for _, a in results)
    spent = [note for _, a in results for note in _spent(a)]
    made = [note for _, a in results for note in a.notes]
    return list(dict.fromkeys([*notes, *(layers if on_layer else []), *made, *spent]))


def _spent(attribution: Attribution) -> list[str]:
    """What a budget was spent on, or how far shares add up, for each input."""
    from onnx_inspect.analysis.saliency import said_beside

    said = [(source, said_beside(attribution, n)) for n, source in enumerate(attribution.sources)]
    return [f"{attribution.method}, {source}: {line}" for source, line in said if line]
