"""`lock`: what a model gives now, kept in a small file for `verify`."""

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
    shared,
)


@click.command()
@model_argument
@inputs_argument
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="The file.  [default: MODEL.lock.json]"
)
@click.option("--keep-inputs", is_flag=True, help="Also keep what the model is fed: verify needs nothing else then.")
@shared(INPUT_OPTIONS, RUN_OPTIONS, COMMON_OPTIONS)
def command(model: str, inputs: tuple[str, ...], out: Path | None, keep_inputs: bool, settings: Settings) -> None:
    """Run MODEL on each INPUT, or on random ones, and keep how its layers answer: about 600 bytes each.

    The file holds sums with random signs, quantiles, mean and deviation of each layer, and SHA-256 of the inputs; no
    weights, and of the inputs nothing else unless --keep-inputs is given. Commit it beside the model, and let CI run
    verify.

    \b
    Example:  onnx-inspect lock net.onnx cat.jpg dog.jpg -o net.lock.json
              onnx-inspect lock net.onnx --seed 7
    """
    import json

    from onnx_inspect.cli._session import emit, engines, read_batch, read_model, say, write_text
    from onnx_inspect.comparing.locking import lock

    net = read_model(model)
    words = inputs or (() if settings.named else ("random",))
    if not inputs and not settings.named:
        say(f"no input given: random, from --seed {settings.seed}", settings)
    batch = read_batch(net, words, settings)
    with engines(settings) as make_engine:
        found = lock(
            net,
            batch,
            words=words,
            named=settings.named,
            seed=settings.seed,
            keep_inputs=keep_inputs,
            make_engine=make_engine,
        )
    path = out or Path(f"{Path(model).stem}.lock.json")
    write_text(path, json.dumps(found.to_json(), indent=1, ensure_ascii=False) + "\n")
    size, kept = path.stat().st_size, "the inputs themselves" if keep_inputs else "no inputs but their SHA-256"
    say(f"{size:,} bytes: {len(found.layers)} layers on {batch.n} inputs; no weights, {kept}", settings)
    if settings.as_json:
        emit({"lock": str(path), "bytes": size, "layers": len(found.layers), "inputs": list(batch.sources)})
    else:
        click.echo(str(path))
