"""`verify`: whether a model still gives what was locked, and from which layer on it doesn't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
@click.argument("lockfile", type=click.Path(path_type=Path), metavar="LOCK")
@inputs_argument
@click.option(
    "--rtol",
    type=click.FloatRange(min=0),
    default=1e-3,
    show_default=True,
    help="Of a layer: |now - locked| / |locked|.",
)
@click.option("--min-cosine", type=click.FloatRange(-1, 1), default=-1.0, help="Of a layer, now and locked.")
@click.option("--max-flips", type=click.IntRange(min=0), default=0, show_default=True, help="Inputs of another class.")
@click.option("--strict", is_flag=True, help="Layers that are missing or new count as drift, too.")
@out_option
@shared(INPUT_OPTIONS, RUN_OPTIONS, COMMON_OPTIONS[1:])  # the seed is the lock's
def command(model: str, lockfile: Path, inputs: tuple[str, ...], out: Path | None, **given: Any) -> int:
    """Run MODEL on the inputs of LOCK and compare layer by layer: exit 0 where it still agrees, 1 from a drift on.

    Random inputs are made up again; files are looked for where they were, unless each INPUT is named; their SHA-256 is
    checked. Layers are found by name, by place, or by their values where nodes were renamed, fused or moved. --out
    writes what --json prints.

    \b
    Example:  onnx-inspect verify net.onnx net.lock.json
              onnx-inspect verify net_int8.onnx net.lock.json --rtol 0.1 --max-flips 1 --json
    """
    from onnx_inspect.analysis.verdict import Limits, verify
    from onnx_inspect.cli._session import emit, engines, read_model, say
    from onnx_inspect.comparing.locking import inputs_of, lock, read_lock
    from onnx_inspect.render.lock import show

    settings: Settings = given.pop("settings")
    locked = read_lock(lockfile)
    net = read_model(model)
    batch = inputs_of(locked, net, inputs, settings.named, preprocess=settings.preprocess, labels=settings.labels)
    for note in batch.notes:
        say(note, settings)
    with engines(settings) as make_engine:
        now = lock(net, batch, words=inputs, seed=locked.seed, make_engine=make_engine)
    verdict = verify(locked, now, Limits(**given))
    if settings.as_json or out is not None:
        emit({"model": model, "lock": str(lockfile), **verdict.to_json()}, out)
    if not settings.as_json:
        show(verdict, model, str(lockfile))
    return 0 if verdict.agree else 1
