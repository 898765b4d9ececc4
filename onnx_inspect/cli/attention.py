"""`attention`: what the attention heads of a transformer look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_inspect.cli._options import (
    COMMON_OPTIONS,
    INPUT_OPTIONS,
    RUN_OPTIONS,
    Settings,
    inputs_argument,
    model_argument,
    out_option,
    save_option,
    shared,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx_inspect.analysis.attention_query import Query
    from onnx_inspect.analysis.attention_report import Report
    from onnx_inspect.engine import Engine
    from onnx_inspect.graph.model import Model
    from onnx_inspect.heads import Relevance
    from onnx_inspect.inputs.batch import Batch


@click.command()
@model_argument
@inputs_argument
@click.option(
    "--layer",
    "layers",
    multiple=True,
    metavar="LAYER",
    help="Which attention: its number by depth (0, -1), a layer's name, module or glob.  [default: drawn: the last]",
)
@click.option("--head", "heads", type=int, multiple=True, metavar="H", help="Which heads.  [default: all]")
@click.option(
    "--query",
    metavar="cls|mean|INDEX|X,Y",
    help="From where: the class token, the mean of all, a token's number, or a point of the picture."
    "  [default: cls where there is one, else mean]",
)
@click.option(
    "--reduce",
    type=click.Choice(["mean", "max", "none"]),
    default="none",
    show_default=True,
    help="Make one of all heads, inside the model: memory stays small.",
)
@click.option("--rollout", is_flag=True, help="Also follow attention through all layers.")
@click.option(
    "--discard",
    type=float,
    default=0.0,
    show_default=True,
    metavar="R",
    help="Rollout without each layer's lowest share.",
)
@click.option(
    "--grad-rollout", is_flag=True, help="Also weigh attention by its gradient and follow it: what decides the target."
)
@click.option("--target", metavar="TARGET", help="Of --grad-rollout: as for cam.  [default: each input's best class]")
@save_option
@out_option
@shared(INPUT_OPTIONS, RUN_OPTIONS, COMMON_OPTIONS)
def command(
    model: str,
    inputs: tuple[str, ...],
    layers: tuple[str, ...],
    heads: tuple[int, ...],
    query: str | None,
    reduce: str,
    rollout: bool,
    discard: float,
    grad_rollout: bool,
    target: str | None,
    save: Path | None,
    out: Path | None,
    settings: Settings,
) -> None:
    """Draw what the attention heads of MODEL look at in each INPUT, and print what kind of heads they are.

    Pictures get a map for each head, their mean and the rollout, over the original; texts a matrix and lines from
    token to token. Every probability was proved against what the model itself computes from it.

    \b
    Example:  onnx-inspect attention vit.onnx cat.jpg --layer -1 --query cls --rollout -o seen/
              onnx-inspect attention bert.onnx --text 'The cat sat.' --tokenizer tokenizer.json --layer 2 --head 5
              onnx-inspect attention vit.onnx cat.jpg --query 120,80 --save attention.npz
              onnx-inspect attention vit.onnx cat.jpg --grad-rollout --target 'tabby cat' -o why/
    """
    from onnx_inspect.analysis.attention_query import parse
    from onnx_inspect.analysis.attention_report import check_discard, report
    from onnx_inspect.attention import capture
    from onnx_inspect.cli._session import emit, engines, read_batch, read_model, say
    from onnx_inspect.render.attention_table import show
    from onnx_inspect.trace import save_arrays

    check_discard(discard)
    asked, fused = None if query is None else parse(query), None if reduce == "none" else reduce
    net = read_model(model)
    batch = read_batch(net, inputs, settings)
    with engines(settings) as make_engine:
        found = capture(net, batch, layers=layers, heads=heads or None, reduce=fused, make_engine=make_engine)
        whole = found if not layers and not heads else None
        if whole is None and rollout:
            whole = capture(net, batch, reduce=fused or "mean", make_engine=make_engine)
        decided = _decided(net, batch, target, make_engine) if grad_rollout or target is not None else None
    result = report(
        found,
        whole,
        batch,
        model=model,
        reduce=fused or "mean",
        discard=discard,
        wanted=rollout,
        query=asked,
        decided=decided,
    )
    for note in result.notes:
        say(note, settings)
    paths = _draw(result, batch, asked, out, every=bool(layers))
    if save is not None:
        save_arrays(save, result.arrays)
    if settings.as_json:
        emit(result.meta | {"figures": [str(path) for path in paths]})
    else:
        show(result)
        for path in paths:
            click.echo(str(path))


def _decided(net: Model, batch: Batch, target: str | None, make_engine: Callable[[Model], Engine]) -> Relevance:
    """What each token decides of the target."""
    from onnx_inspect.errors import TargetError
    from onnx_inspect.relevance import relevances
    from onnx_inspect.targets import EveryClass, parse

    targets = parse(target, batch.labels) if target is not None else ()
    if len(targets) > 1 or any(isinstance(one, EveryClass) for one in targets):
        raise TargetError(f"--grad-rollout explains one target at a time, {target!r} is several")
    return relevances(net, batch, target=targets[0] if targets else None, make_engine=make_engine)


def _draw(result: Report, batch: Batch, asked: Query | None, out: Path | None, *, every: bool) -> list[Path]:
    """Draw the whole model, then the layers that were named, or the last, for each input."""
    from onnx_inspect.cli._session import figure_paths, save_figure, stem

    figures: list[tuple[str, Any, Any]] = []
    for n, source in enumerate(batch.sources):
        figures += [(f"{stem(source)}-{part}", *rest) for part, *rest in _figures(result, batch, asked, n, every=every)]
    paths = figure_paths(out, [name for name, _, _ in figures])
    for path, (_, renderer, view) in zip(paths, figures, strict=True):
        save_figure(renderer, [view], path)
    return paths


def _figures(result: Report, batch: Batch, asked: Query | None, n: int, *, every: bool) -> list[tuple[str, Any, Any]]:
    """Name, renderer and view of each figure of one sample."""
    from onnx_inspect.analysis import attention_views as views
    from onnx_inspect.render import attention_heads, attention_matrix, attention_model, cam, tokens

    maps, named, rolled = result.found.maps, result.named, result.rolled
    figures: list[tuple[str, Any, Any]] = []
    if sum(len(own) for own in named) > 1:
        figures.append(("model", attention_model, views.whole_model(maps, named, n, batch, asked)))
    for found, own in list(zip(maps, named, strict=True))[0 if every else -1 :]:
        if found.grid is not None:
            total = rolled.values if rolled is not None and rolled.fits(found) else None
            figures.append((found.layer, cam, views.over_picture(found, own, n, batch, asked, total)))
            continue
        view = views.over_tokens(found, own, n, batch, asked)
        figures.append((f"{found.layer}-matrix", attention_matrix, view))
        if (lines := attention_heads.shortened(view)) is not None:
            figures.append((f"{found.layer}-heads", attention_heads, lines))
        if asked is not None and (row := views.from_query(found, own, n, batch, asked)) is not None:
            figures.append((f"{found.layer}-query", tokens, row))
    if rolled is not None and rolled.over.grid is None:
        view = views.over_tokens(rolled.over, named[-1], n, batch, asked)
        figures.append(("rollout", attention_matrix, views.with_rollout(view, rolled.values, rolled.over, n, batch)))
    if result.decided is not None:
        from onnx_inspect.analysis import relevance_views

        if result.decided.over.grid is not None:
            figures.append((relevance_views.NAME, cam, relevance_views.over_picture(result.decided, n, batch, asked)))
        elif (text := relevance_views.over_text(result.decided, n, batch, asked)) is not None:
            figures.append((relevance_views.NAME, tokens, text))
    return figures
