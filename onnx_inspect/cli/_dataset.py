"""How commands that look at whole data sets get from words to a capture, and show how far it is."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_inspect.cli._options import Settings
from onnx_inspect.cli._session import PATIENCE, say
from onnx_inspect.errors import InputError, LayerError

if TYPE_CHECKING:
    from onnx_inspect.analysis.pooling import Pool
    from onnx_inspect.capture import Captured
    from onnx_inspect.capture.local import Blocks
    from onnx_inspect.capture.setup import Job, Source
    from onnx_inspect.engine import Engine
    from onnx_inspect.graph.model import Layer, Model
    from onnx_inspect.inputs.dataset_batches import Reader, Skipped

INTERVAL = 10.0  # seconds between lines of progress, where there is no terminal to draw a bar on
ALL = 1000  # layers: more than any choice along depth
DEFAULT_POOL: Pool = "mean"
TASKS, WORKERS = 4, 8  # shards for each worker of a cluster, so that none waits long; workers, where nobody says them
MOST = 3  # broken samples that are named

data_argument = click.argument("data", nargs=-1, metavar="DATASET...")
output_option = click.option("--output", metavar="NAME", help="The output that holds the class scores.")
pool_option = click.option(
    "--pool",
    type=click.Choice(["mean", "max", "flatten", "cls"]),
    help=f"What of maps is taken: mean or max over positions, all values, the class token.  [default: {DEFAULT_POOL}]",
)


def source_of(net: Model, data: Sequence[str], settings: Settings, output: str | None = None) -> Source:
    """Find a data set and read its first sample; the choices made for the user are said."""
    from onnx_inspect.capture.setup import source
    from onnx_inspect.inputs.dataset import find
    from onnx_inspect.inputs.labels import read_labels
    from onnx_inspect.inputs.read import primary_of

    specs = {spec.name: spec for spec in net.inputs}
    primary = primary_of(specs, settings.perturb)
    found = source(
        net,
        find(data, specs, primary),
        primary=primary,
        named=dict(settings.named),
        preprocess=settings.preprocess,
        labels=read_labels(settings.labels, net.metadata),
        output=output,
        seed=settings.seed,
    )
    for note in found.reader.notes:
        say(note, settings)
    return found


def layers_of(net: Model, asked: Sequence[str]) -> list[Layer]:
    """Layers by the words for them, once each."""
    return list(dict.fromkeys(layer for text in asked for layer in net.find(text)))


def default_layers(source: Source, most: int, pool: Pool, settings: Settings) -> list[Layer]:
    """Layers evenly along depth that can be pooled so; the choice is said."""
    import numpy as np

    from onnx_inspect.analysis.depth import along_depth
    from onnx_inspect.capture.setup import poolable

    fitting = poolable(source, along_depth(source.model, source.shapes, most=most if pool != "cls" else ALL), pool)
    picked = np.unique(np.linspace(len(fitting) - 1, 0, min(most, len(fitting))).round().astype(int))
    chosen = [fitting[i] for i in picked]
    if not chosen:
        raise LayerError(f"no layer of {source.model.source} can be pooled by {pool}: choose another way with --pool")
    names = ", ".join(layer.name for layer in chosen)
    total = len(source.model.layers)
    say(f"{len(chosen)} of {total} layers, evenly along depth: {names}; choose others with --layer", settings)
    return chosen


def default_map(source: Source, settings: Settings) -> list[Layer]:
    """The maps that a network gives up position after, or else its last layer; the choice is said."""
    from onnx_inspect.graph.spatial import candidates

    found = candidates(source.model, source.shapes)
    layer, why = (found[0].layer, found[0].why) if found else (source.model.layers[-1], "the last layer")
    say(f"layer {layer.name!r}: {why}; choose another with --layer", settings)
    return [layer]


def stream_of(source: Source, layers: Sequence[Layer], settings: Settings) -> Job:
    """Plan to go through whole maps, no more than a portion of which is held."""
    from onnx_inspect.capture.setup import job

    return job(source, layers, pool_by="none", least=len(source.reader), make_engine=maker(settings))


def job_of(source: Source, layers: Sequence[Layer], pool: Pool, settings: Settings, shard: int | None = None) -> Job:
    """Plan the capture of some layers."""
    from onnx_inspect.capture.setup import job

    least = 1 if settings.engine == "local" else TASKS * (settings.workers or WORKERS)
    return job(source, layers, pool_by=pool, shard=shard, least=least, make_engine=maker(settings))


def runner(settings: Settings) -> Blocks | None:
    """What makes the shards of a capture: a Ray cluster, or None for this process."""
    if settings.engine == "local":
        return None
    from onnx_inspect.capture.spread import blocks

    return functools.partial(blocks, workers=settings.workers, cpus=settings.threads or 1)


def captured(job: Job, settings: Settings) -> Captured:
    """Capture into memory, showing how far it is."""
    from onnx_inspect.capture.local import into_memory

    with estimate(settings) as report:
        found = into_memory(job, report=report, run=runner(settings))
    tell_skipped(found, settings)
    return found


def reopened(folder: str, asked: Sequence[str], wanted: Pool | None, settings: Settings) -> tuple[Captured, list[str]]:
    """An earlier capture, pooled as asked for, and those of its layers that are; all of them by default."""
    from dataclasses import replace
    from fnmatch import fnmatchcase

    from onnx_inspect.capture import open

    found = open(folder)
    names: dict[str, None] = {}
    for text in asked:
        matching = [name for name in found.layers if name == text or fnmatchcase(name, text)]
        names |= dict.fromkeys(matching)
        if not matching:
            found.array(text)  # says which there are
    chosen = [name for name in found.layers if name in names or not asked]
    found = replace(found, arrays={name: found.arrays[name] for name in chosen})
    found = found.pooled(wanted or (DEFAULT_POOL if found.pool == "none" else found.pool))
    say(f"{folder}: {len(found):,} samples, {', '.join(chosen)}, pooled by {found.pool}", settings)
    return found, chosen


def reader_again(folder: str, settings: Settings) -> Reader:
    """The reader that a capture was made with, for what it didn't keep: pictures."""
    return source_again(folder, settings).reader


def source_again(folder: str, settings: Settings) -> Source:
    """The data set as the model saw it when a capture was made."""
    from dataclasses import replace

    from onnx_inspect.capture import described
    from onnx_inspect.cli._session import read_model

    known = described(folder)
    values = json.loads(known["plan"]["settings"]["values"])
    given = replace(
        settings,
        named=tuple((name, value) for name, value in values),
        preprocess=known["plan"]["settings"]["preprocess"] or None,
        perturb=known["primary"],
        quiet=True,
    )
    return source_of(read_model(known["model"]), known["data"], given)


@contextmanager
def limited(settings: Settings) -> Iterator[None]:
    """Let numerical libraries use as many threads as the options say."""
    if settings.threads is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(settings.threads):
        yield


def maker(settings: Settings) -> Callable[[Model], Engine]:
    """Make engines that run as the options say; they can be sent to other processes."""
    from onnx_inspect.engine import Engine

    return functools.partial(
        Engine,
        providers=settings.providers,
        threads=settings.threads or (None if settings.engine == "local" else 1),
        exact=settings.exact,
        allow_fallback=settings.allow_fallback,
    )


def tell_skipped(found: Captured, settings: Settings) -> None:
    """Count the samples that couldn't be read, and name the first of them."""
    tell_broken(found.skipped, len(found), settings)


def tell_broken(skipped: Sequence[Skipped], whole: int, settings: Settings) -> None:
    """The same beside `whole` samples that could be read."""
    if skipped:
        more = f"; and {len(skipped) - MOST} more" if len(skipped) > MOST else ""
        first = "; ".join(one.reason for one in skipped[:MOST])
        say(f"skipped {len(skipped):,} of {len(skipped) + whole:,} samples that can't be read: {first}{more}", settings)


@contextmanager
def estimate(settings: Settings) -> Iterator[Callable[[int, int], None]]:
    """Give a report function that says on stderr how far it is and how long it will take: a bar, or a line at times."""
    start = time.monotonic()
    first: int | None = None
    last = start
    bar: Any = None

    def report(done: int, total: int) -> None:
        nonlocal first, last, bar
        now = time.monotonic()
        first = done if first is None else first
        if settings.quiet or now - start < PATIENCE:
            return
        if sys.stderr.isatty():
            bar = bar or _bar(total)
            bar[0].update(bar[1], completed=done)
        elif now - last >= INTERVAL and first < done < total:
            last = now
            rate = (done - first) / (now - start)
            left = f", about {duration((total - done) / rate)} left" if rate else ""
            click.echo(f"{done:,} of {total:,} samples, {rate:,.3g} a second{left}", err=True)

    try:
        yield report
    finally:
        if bar is not None:
            bar[0].stop()


def _bar(total: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("samples"), BarColumn(), MofNCompleteColumn(), TextColumn("time left"), TimeRemainingColumn())
    drawn = Progress(*columns, console=Console(stderr=True), transient=True)
    drawn.start()
    return drawn, drawn.add_task("samples", total=total)


def duration(seconds: float) -> str:
    """Text like ``40 s``, ``12 min`` or ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def is_captured(model: str, data: Sequence[str]) -> bool:
    """Whether the words name an earlier capture in place of a model and a data set."""
    from onnx_inspect.capture import is_capture

    named = [word for word in (model, *data) if Path(word).is_dir() and is_capture(word)]
    if named and data:
        raise InputError(f"{named[0]} is a capture already, and stands for model and data set: name nothing else")
    return bool(named)
