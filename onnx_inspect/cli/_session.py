"""How commands get from names to models, batches and engines, and where their words go."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_inspect.cli._options import Settings
from onnx_inspect.errors import InputError, OutputError

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from onnx_inspect.engine import Engine
    from onnx_inspect.graph.model import Model
    from onnx_inspect.inputs.batch import Batch

PATIENCE = 2.0  # seconds of silence before progress is shown
FOLDER = Path("onnx-inspect-out")
TEXT = 48  # characters of a text in a file's name
FIGURES = (".png", ".svg", ".pdf")


def read_model(path: str) -> Model:
    """Read the model that a command names."""
    from onnx_inspect.graph.read import read

    return read(path)


def read_batch(model: Model, inputs: Sequence[str], settings: Settings) -> Batch:
    """Read the inputs that a command names, and say the choices made for the user."""
    from onnx_inspect.inputs.read import read

    if not inputs and not settings.named and not settings.texts:
        names = ", ".join(f"{spec.name}: {spec.describe()}" for spec in model.inputs)
        raise InputError(
            f"no input given; {model.source} takes {names}: name a picture, .npy, .npz, folder, or 'random'"
        )
    batch = read(
        model.inputs,
        inputs,
        named=dict(settings.named),
        preprocess=settings.preprocess,
        metadata=model.metadata,
        seed=settings.seed,
        primary=settings.perturb,
        labels=settings.labels,
        texts=settings.texts,
        tokenizer=_tokenizer(model, settings),
    )
    _check_tables(model, batch, settings)
    for note in batch.notes:
        say(note, settings)
    return batch


def _tokenizer(model: Model, settings: Settings) -> Path | None:
    """Tokenizer file that was named, else one that lies beside the model, which is said."""
    from onnx_inspect.inputs.text import beside, parts

    if settings.tokenizer is not None or not parts({spec.name: spec for spec in model.inputs}):
        return settings.tokenizer
    found = beside(model.source)
    if found is None or not (settings.texts or find_spec("tokenizers")):
        return None  # ids are drawn as numbers then
    say(f"tokenizer: {found}, beside the model; name another with --tokenizer", settings)
    return found


def hidden(batch: Batch, way: str | None, words: bool, settings: Settings) -> Batch:
    """Hide tokens of a text as the options say, and say how where nobody did."""
    text = batch.read_as
    if text is None:
        if way is not None or words:
            raise InputError("--hide and --words are for texts: this model's input is none")
        return batch
    chosen = text.hide(way, together=words)
    if way is None:
        others = ", ".join([*(one for one in text.ways if text.ways[one] != text.hiding), "an id"])
        how = "become" if chosen.hiding.fill is not None else "are left out by"
        say(f"hidden tokens {how} {chosen.hiding.words}; choose with --hide: {others}", settings)
    return replace(batch, text=chosen)


def _check_tables(model: Model, batch: Batch, settings: Settings) -> None:
    """Refuse ids that the model doesn't know, as another's tokenizer gives them, and texts longer than it takes."""
    from onnx_inspect.graph.embedding import ids_table, places_table

    text = batch.text
    if text is None or text.coder is None or (words := ids_table(model, text.name)) is None:
        return
    ids = batch.arrays[text.name].reshape(batch.n, -1)
    if ids.size and int(ids.max()) >= words.rows:
        n, place = divmod(int(ids.argmax()), ids.shape[1])
        named = text.coder.tokenizer is not None and settings.texts
        remedy = f"{text.coder.source} is of another model" if named else "check the ids"
        raise InputError(
            f"{text.tokens[n].pieces[place]!r} has the id {int(ids.max())}, but {words.node!r} of {model.source} knows"
            f" the ids 0 to {words.rows - 1}: {remedy}"
        )
    others = [name for part, name in text.coder.parts.items() if part in ("mask", "types")]
    places = places_table(model, text.name, others)
    if places is not None and ids.shape[1] > places.rows:
        raise InputError(
            f"the text has {ids.shape[1]} tokens, but {places.node!r} of {model.source} knows {places.rows} places:"
            " give a shorter text, or a tokenizer.json that truncates"
        )


@contextmanager
def engines(settings: Settings) -> Iterator[Callable[[Model], Engine]]:
    """Give a maker of engines that run as the options say and show their progress."""
    from onnx_inspect.engine import Engine

    with progress(settings) as report:
        yield lambda model: Engine(
            model,
            providers=settings.providers,
            threads=settings.threads,
            exact=settings.exact,
            allow_fallback=settings.allow_fallback,
            progress=report,
        )


def say(message: str, settings: Settings) -> None:
    """Tell the user something that is no result: on stderr, unless --quiet."""
    if not settings.quiet:
        click.echo(message, err=True)


def emit(data: Any, out: Path | None = None) -> None:
    """Print JSON to stdout, or write it to a file; NaN and infinity become null."""
    text = json.dumps(_plain(data), indent=2, ensure_ascii=False)
    if out is None:
        click.echo(text)
    else:
        write_text(out, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    from onnx_inspect.atomic import replacing

    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def figure_paths(out: Path | None, stems: Sequence[str]) -> list[Path]:
    """Where each figure goes: `out` itself when it names one picture file, else files in the folder `out`.

    Raises
    ------
    OutputError
        One file is named for several figures.
    """
    if out is not None and out.suffix.lower() in FIGURES:
        if len(stems) > 1:
            raise OutputError(f"{out} is one file, but there are {len(stems)} figures: give a folder with --out")
        return [out]
    folder = out or FOLDER
    if folder.is_file():
        raise OutputError(f"{folder} is a file; give a folder, or a name that ends in {', '.join(FIGURES)}")
    names: dict[str, int] = {}
    paths = []
    for stem in stems:
        clean = "".join(c if c.isalnum() or c in "-_." else "_" for c in stem).strip("._") or "figure"
        clean = clean if len(clean) <= 120 else f"{clean[:60]}..{clean[-58:]}"
        names[clean] = names.get(clean, 0) + 1
        paths.append(folder / f"{clean}{f'-{names[clean]}' if names[clean] > 1 else ''}.png")
    return paths


def save_figure(renderer: Any, result: Any, path: Path) -> None:
    """Draw a result with its renderer (`figure_size` and `draw`) and write the figure."""
    from onnx_inspect.render._save import drawn, save

    save(drawn(renderer, result), path)


def stem(source: str) -> str:
    """Short name of an input's source, for file names and titles."""
    path = Path(source)
    name = path.stem if path.suffix else path.name
    return name if len(name) <= TEXT or " " not in name else name[:TEXT].rsplit(" ", 1)[0]


def _plain(data: Any) -> Any:
    """JSON's own types; numpy's scalars and arrays become numbers and lists."""
    if isinstance(data, dict):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    if hasattr(data, "tolist"):
        return _plain(data.tolist())
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return str(data) if isinstance(data, Path) else data


@contextmanager
def progress(settings: Settings) -> Iterator[Callable[[int, int], None]]:
    """Give a report function that draws a bar on stderr once two seconds have passed; silent when not a terminal."""
    start = time.monotonic()
    bar: tuple[RichProgress, TaskID] | None = None

    def report(done: int, total: int) -> None:
        nonlocal bar
        if settings.quiet or not sys.stderr.isatty() or time.monotonic() - start < PATIENCE or total < 2:
            return
        if bar is None:
            from rich.console import Console
            from rich.progress import Progress

            drawn = Progress(console=Console(stderr=True), transient=True)
            drawn.start()
            bar = (drawn, drawn.add_task("running", total=total))
        bar[0].update(bar[1], completed=done, total=total)

    try:
        yield report
    finally:
        if bar is not None:
            bar[0].stop()
