"""`channels`: what each channel of a layer answers to, over a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_inspect.cli._dataset import data_argument, output_option
from onnx_inspect.cli._options import (
    COMMON_OPTIONS,
    INPUT_OPTIONS,
    RUN_OPTIONS,
    Settings,
    layers_option,
    model_argument,
    out_option,
    save_option,
    shared,
)
from onnx_inspect.errors import InputError

if TYPE_CHECKING:
    from onnx_inspect.channels import Stream
    from onnx_inspect.render.channels import Sheet

PAGE = 16  # channels on one page


@click.command()
@model_argument
@data_argument
@layers_option
@click.option("--top", type=click.IntRange(1, 24), default=8, show_default=True, help="Crops of each channel.")
@click.option(
    "--channels",
    "wanted",
    metavar="LIST",
    help=f"Numbers and ranges like 0-7,40, or all, {PAGE} on a page.  [default: the {PAGE} most selective]",
)
@click.option("--concepts", type=click.IntRange(min=1), metavar="K", help="Show K concepts (NMF) instead of channels.")
@output_option
@save_option
@out_option
@shared(INPUT_OPTIONS, RUN_OPTIONS, COMMON_OPTIONS)
def command(
    model: str,
    data: tuple[str, ...],
    layers: tuple[str, ...],
    top: int,
    wanted: str | None,
    concepts: int | None,
    output: str | None,
    save: Path | None,
    out: Path | None,
    settings: Settings,
) -> None:
    """Draw the parts of pictures that excite each channel of a layer of MODEL most, over all of DATASET.

    Each crop is what the position that answered can see: its receptive field, computed from the graph. Beside stand
    the channel's classes, how selective it is for them, and which channels are dead or say the same. DATASET is a
    folder with a folder for each class, a .csv of paths and labels, a .txt list, an .npz of samples and labels, or
    files. A folder that `capture` wrote with --pool none may stand for MODEL and DATASET.

    \b
    Example:  onnx-inspect channels net.onnx photos/ --layer Relu:2 -o channels.png
              onnx-inspect channels net.onnx data.npz --layer Relu:-1 --channels 0-31 --top 12 --save channels.npz
              onnx-inspect channels net.onnx photos/ --layer layer4 --concepts 10 --json
    """
    from onnx_inspect.cli._session import emit, figure_paths, save_figure, stem
    from onnx_inspect.render import channels as render
    from onnx_inspect.trace import save_arrays

    if concepts and wanted:
        raise InputError("--concepts shows all of its concepts: leave out --channels")
    stream = _stream(model, data, layers, output, settings)
    if save is not None and len(stream.layers) > 1:
        raise InputError(f"--save holds one layer, but there are {len(stream.layers)}: name one with --layer")
    sheets = _concepts(stream, concepts, top, settings) if concepts else _channels(stream, top, wanted, settings)
    kind = "concepts" if concepts else "channels"
    name = stem(stream.source.model.source)
    stems = [f"{name}-{s.channels.layer}-{kind}" + (f"-{s.page}" if s.pages > 1 else "") for s in sheets]
    paths = figure_paths(out, stems)
    for sheet, path in zip(sheets, paths, strict=True):
        save_figure(render, sheet, path)
    if save is not None:
        save_arrays(save, _arrays(sheets[0]))
    if settings.as_json:
        emit({"layers": _json(sheets)} | {"figures": [str(path) for path in paths]})
        return
    for sheet in sheets:
        if sheet.page == 1:
            render.show(
                sheet.channels, [k for s in sheets if s.channels is sheet.channels for k in s.chosen], sheet.concepts
            )
    for path in paths:
        click.echo(str(path))


def _stream(
    model: str, data: tuple[str, ...], layers: tuple[str, ...], output: str | None, settings: Settings
) -> Stream:
    """The data set's activations, to be run or read back."""
    from onnx_inspect.channels import of_capture, of_job
    from onnx_inspect.cli import _dataset as sets
    from onnx_inspect.cli._session import read_model

    if sets.is_captured(model, data):
        from onnx_inspect.capture import open

        found = open(model)
        source = sets.source_again(model, settings)
        asked = layers or found.layers
        return of_capture(
            found, source, [la for la in sets.layers_of(source.model, asked) if found.array(la.name).ndim]
        )
    net = read_model(model)
    source = sets.source_of(net, data, settings, output)
    chosen = sets.layers_of(net, layers) or sets.default_map(source, settings)
    return of_job(sets.stream_of(source, chosen, settings), source, chosen)


def _channels(stream: Stream, top: int, wanted: str | None, settings: Settings) -> list[Sheet]:
    from onnx_inspect.channels import channels, with_crops
    from onnx_inspect.cli._dataset import estimate, tell_broken
    from onnx_inspect.cli._session import say

    with estimate(settings) as report:
        found, skipped = channels(stream, top=top, report=report)
    sheets = []
    for one in found.values():
        chosen = _picked(wanted, one.count, one.kind) if wanted else one.ranked()[:PAGE]
        if not wanted and one.count > PAGE:
            what = "most selective" if one.by else "strongest"
            say(f"{one.layer}: the {PAGE} {what} of {one.count} channels; choose others with --channels", settings)
        sheets += _pages(with_crops(one, stream, chosen), chosen)
    tell_broken(skipped, next(iter(found.values())).samples, settings)
    return sheets


def _concepts(stream: Stream, count: int, top: int, settings: Settings) -> list[Sheet]:
    from dataclasses import replace

    from onnx_inspect.channels import with_crops
    from onnx_inspect.cli._dataset import estimate, limited, maker, tell_broken
    from onnx_inspect.concepts import concepts

    sheets = []
    for layer in stream.layers:
        with estimate(settings) as report, limited(settings):
            found, skipped = concepts(
                stream, layer, count=count, top=top, seed=settings.seed, make_engine=maker(settings), report=report
            )
        chosen = list(range(count))
        cut = with_crops(found.channels, stream, chosen)
        sheets += _pages(cut, chosen, replace(found, channels=cut))
        tell_broken(skipped, cut.samples, settings)
    return sheets


def _pages(found: Any, chosen: list[int], concepts: Any = None) -> list[Sheet]:
    from onnx_inspect.render.channels import Sheet

    parts = [tuple(chosen[start : start + PAGE]) for start in range(0, len(chosen), PAGE)]
    return [Sheet(found, part, number, len(parts), concepts) for number, part in enumerate(parts, 1)]


def _picked(text: str, count: int, kind: str) -> list[int]:
    """Channels by words like ``0-7,40``; ``all`` for all of them."""
    if text == "all":
        return list(range(count))
    found: dict[int, None] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = word.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise InputError(f"--channels {text!r}: {word!r} is no number and no range like 0-7")
        start, stop = int(first), int(last or first)
        if stop >= count or start > stop:
            raise InputError(
                f"--channels {text!r}: {word!r} is not among the layer's {count} {kind}s, 0 to {count - 1}"
            )
        found |= dict.fromkeys(range(start, stop + 1))
    if not found:
        raise InputError(f"--channels {text!r} names no channel: give numbers and ranges like 0-7,40")
    return list(found)


def _json(sheets: list[Sheet]) -> list[dict[str, Any]]:
    found = []
    for sheet in sheets:
        if sheet.page == 1:
            chosen = [k for s in sheets if s.channels is sheet.channels for k in s.chosen]
            more = sheet.concepts.to_json() if sheet.concepts is not None else {}
            found.append(sheet.channels.to_json(chosen) | more)
    return found


def _arrays(sheet: Sheet) -> dict[str, Any]:
    more = {}
    if sheet.concepts is not None:
        more = {"basis": sheet.concepts.basis, "shares": sheet.concepts.shares, "importance": sheet.concepts.importance}
    return sheet.channels.arrays() | more
