"""How `track` gets from words to checkpoints and inputs, and what it draws and writes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_inspect.cli._options import Settings, params_option
from onnx_inspect.cli._session import emit, engines, figure_paths, read_model, save_figure, say, stem
from onnx_inspect.errors import InputError, LayerError

if TYPE_CHECKING:
    from onnx_inspect.analysis.checkpoints import Checkpoint
    from onnx_inspect.analysis.strip import Strip
    from onnx_inspect.analysis.track import Track
    from onnx_inspect.graph.model import Model
    from onnx_inspect.inputs.batch import Batch
    from onnx_inspect.tensorboard import Writer

VIEW_OPTIONS = (
    click.option("--layer", "layers", multiple=True, metavar="LAYER", help="Layers to follow.  [default: all]"),
    click.option("--show-layer", metavar="LAYER", help="Layer of the strip.  [default: the one a CAM would take]"),
    click.option("--channel", type=click.IntRange(min=0), metavar="K", help="Its channel.  [default: the strongest]"),
    click.option("--cam", metavar="METHOD", help="Strips of a method's maps instead of a channel."),
    click.option("--target", metavar="TARGET", help="What --cam explains.  [default: the last checkpoint's class]"),
    params_option,
    click.option("--tensorboard", type=click.Path(path_type=Path), metavar="DIR", help="Also write event files there."),
)


@dataclass(frozen=True)
class Views:
    """What `VIEW_OPTIONS` say."""

    layers: tuple[str, ...]
    show_layer: str | None
    channel: int | None
    cam: str | None
    target: str | None
    params: tuple[tuple[str, str], ...]
    tensorboard: Path | None


def sort(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell checkpoints, whose names end in ``.onnx``, from inputs; globs of checkpoints are expanded.

    Raises
    ------
    UsageError
        There are fewer than two checkpoints, or one is given twice.
    """
    paths: list[str] = []
    for word in (w for w in words if w.lower().endswith(".onnx")):
        path = Path(word).expanduser()
        is_glob = any(c in word for c in "*?[") and not path.exists()
        root = Path(path.anchor)
        found = sorted(map(str, root.glob(str(path.relative_to(path.anchor))))) if is_glob else [word]
        if not found:
            raise click.UsageError(f"no checkpoint matches {word!r}")
        paths += found
    if len(set(paths)) < len(paths):
        raise click.UsageError(f"{next(p for p in paths if paths.count(p) > 1)} is given twice")
    if len(paths) < 2:
        raise click.UsageError(f"{len(paths)} of the words end in .onnx: name at least two checkpoints of one network")
    return paths, [w for w in words if not w.lower().endswith(".onnx")]


def follow(
    steps: Sequence[Checkpoint],
    inputs: Sequence[str],
    views: Views,
    settings: Settings,
    *,
    save: Path | None,
    out: Path | None,
) -> None:
    """Follow a run, draw it, and print what was found."""
    from onnx_inspect.comparing.tracking import track
    from onnx_inspect.trace import save_arrays

    if out is not None and out.suffix:
        raise click.UsageError(f"--out {out}: track writes several figures, so it takes a folder")
    say(f"order: {', '.join(step.label for step in steps)}; keep the one given with --order given", settings)
    read = cache(lambda step: read_model(step.path)) if len(steps) <= 4 else lambda step: read_model(step.path)
    batch = _inputs(read(steps[-1]), inputs, settings) if inputs or settings.named else None
    if batch is None:
        say("no input given: only the weights are followed", settings)
    with ExitStack() as stack:
        make_engine = stack.enter_context(engines(settings))
        board = stack.enter_context(_writer(views.tensorboard)) if views.tensorboard is not None else None
        found = track(
            steps,
            read,
            batch,
            layers=views.layers,
            seed=settings.seed,
            tell=None if board is None else lambda n, v, i: board.histogram(f"weights/{n}", v, steps[i].step),
            make_engine=make_engine,
        )
        strips = _strips(steps, read, batch, views, settings, make_engine) if batch is not None else []
        if board is not None:
            write(board, found, strips)
    for note in found.notes:
        say(note, settings)
    if save is not None:
        save_arrays(save, found.arrays())
    paths = _draw(found, strips, out)
    if settings.as_json:
        emit(found.to_json() | {"figures": [str(path) for path in paths]})
        return
    from onnx_inspect.render.track import show

    show(found)
    for path in paths:
        click.echo(str(path))


def _inputs(last: Model, words: Sequence[str], settings: Settings) -> Callable[[Model], Batch]:
    """Read the inputs once, for the last checkpoint; the others get the same arrays, by place.

    Raises
    ------
    InputError
        A checkpoint takes another number of inputs.
    """
    from dataclasses import replace

    from onnx_inspect.cli._session import read_batch

    batch = read_batch(last, words, settings)
    order = [spec.name for spec in last.inputs]

    def give(model: Model) -> Batch:
        if [spec.name for spec in model.inputs] == order:
            return batch
        if len(model.inputs) != len(order):
            raise InputError(f"{model.source} takes {len(model.inputs)} inputs, {last.source} {len(order)}")
        names = dict(zip(order, (spec.name for spec in model.inputs), strict=True))
        shared = frozenset(names[name] for name in batch.shared)
        arrays = {names[name]: array for name, array in batch.arrays.items()}
        return replace(batch, arrays=arrays, primary=names[batch.primary], shared=shared)

    return give


def _strips(
    steps: Sequence[Checkpoint], read: Any, batch: Any, views: Views, settings: Settings, make_engine: Any
) -> list[Strip]:
    """Strips of the first pictures; none, and a word about it, where the network has no maps and nobody asked."""
    from onnx_inspect.comparing.strips import cam_strips, channel_strips

    if views.cam is not None:
        return cam_strips(
            steps,
            read,
            batch,
            views.cam,
            layer=views.show_layer,
            target=views.target,
            params=views.params,
            seed=settings.seed,
            make_engine=make_engine,
        )
    try:
        return channel_strips(
            steps, read, batch, layer=views.show_layer, channel=views.channel, make_engine=make_engine
        )
    except LayerError as error:
        if views.show_layer is not None or views.channel is not None:
            raise
        say(f"no strip: {error}", settings)
        return []


def _draw(found: Track, strips: Sequence[Strip], out: Path | None) -> list[Path]:
    """An overview, heat maps, embeddings, and each picture's strip and GIF."""
    from onnx_inspect.render import clouds, strip, track, track_layers

    figures: list[tuple[str, Any, Any]] = [("overview", track, found), ("layers", track_layers, found)]
    if found.embeddings is not None:
        figures.append(("embeddings", clouds, found))
    figures += [(f"{stem(one.source)}-strip", strip, one) for one in strips]
    paths = figure_paths(out, [name for name, _, _ in figures])
    for path, (_, renderer, result) in zip(paths, figures, strict=True):
        save_figure(renderer, result, path)
    for path, one in zip(paths[len(paths) - len(strips) :], strips, strict=True):
        strip.save_gif(one, path.with_suffix(".gif"))
        paths.append(path.with_suffix(".gif"))
    return paths


def _writer(folder: Path) -> Writer:
    from onnx_inspect.tensorboard import Writer

    return Writer(folder)


def write(board: Writer, found: Track, strips: Sequence[Strip]) -> None:
    """Write a run's curves and pictures as TensorBoard's scalars and images."""
    from onnx_inspect.render.strip import frames

    rows: dict[str, Sequence[float | None]] = {}
    for weight in found.weights:
        for row in ("norm", "from_first", "from_previous", "cosine_last"):
            rows[f"weights_{row}/{weight.name}"] = getattr(weight, row)
    for layer in found.layers:
        for row in ("mean", "std", "zeros", "dead", "cka_first", "cka_last"):
            rows[f"activations_{row}/{layer.name}"] = getattr(layer, row)
    if found.predictions is not None:
        rows["predictions/flips"] = found.predictions.flips
        rows["predictions/unlike_last"] = found.predictions.unlike_last
    if found.embeddings is not None:
        rows["embeddings/disparity"] = found.embeddings.disparity
    for place, step in enumerate(found.steps):
        board.text("checkpoint", f"{step.label}: `{step.path}`", step.step)
        for tag, values in rows.items():
            if (value := values[place]) is not None:
                board.scalar(tag, value, step.step)
    for one in strips:
        for step, picture in zip(found.steps, frames(one), strict=True):
            board.image(f"{stem(one.source)}/{one.what}", picture, step.step)
