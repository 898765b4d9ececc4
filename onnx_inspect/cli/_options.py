"""Which options commands share, so that the same option has the same name and meaning everywhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]


@dataclass(frozen=True)
class Settings:
    """What the shared options say."""

    preprocess: str | None = None
    labels: Path | None = None
    named: tuple[tuple[str, str], ...] = ()
    perturb: str | None = None
    texts: tuple[str, ...] = ()
    tokenizer: Path | None = None
    seed: int = 0
    providers: tuple[str, ...] = ("cpu",)
    allow_fallback: bool = False
    threads: int | None = None
    exact: bool = False
    as_json: bool = False
    quiet: bool = False
    engine: str = "local"
    workers: int | None = None


def _named(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for text in values:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise click.BadParameter(f"{text!r} is not NAME=@FILE or NAME=VALUE", ctx, parameter)
        pairs.append((name, value))
    return tuple(pairs)


def _pairs(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = [text.partition("=") for text in values]
    wrong = next((text for text, pair in zip(values, pairs, strict=True) if not pair[0] or not pair[1]), None)
    if wrong is not None:
        raise click.BadParameter(f"{wrong!r} is not KEY=VALUE", ctx, parameter)
    return tuple((key.strip(), value.strip()) for key, _, value in pairs)


def _list(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


INPUT_OPTIONS = (
    click.option("--preprocess", metavar="PRESET|FILE", help="imagenet, unit, signed, raw, caffe, or a JSON file."),
    click.option("--labels", type=click.Path(path_type=Path), metavar="FILE", help="Class names, one a line or JSON."),
    click.option("-I", "--input", "named", multiple=True, callback=_named, metavar="NAME=@FILE", help="A named input."),
    click.option("--perturb", metavar="NAME", help="The input to explain, where a model has several."),
    click.option(
        "--text", "texts", multiple=True, metavar="TEXT", help="A sentence; 'A ||| B' is a pair, @FILE one a line."
    ),
    click.option(
        "--tokenizer",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The model's tokenizer.json.  [default: the one beside MODEL]",
    ),
)
RUN_OPTIONS = (
    click.option(
        "--providers", default="cpu", callback=_list, metavar="LIST", help="cpu, or cuda,cpu.  [default: cpu]"
    ),
    click.option("--allow-fallback", is_flag=True, help="Run on the CPU where a provider is missing."),
    click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Threads within an operator."),
    click.option("--exact", is_flag=True, help="Run without graph optimisations."),
)
ENGINE_OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="ray: several processes, or the cluster that RAY_ADDRESS names.",
    ),
    click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Of Ray.  [default: one a processor]"),
)
COMMON_OPTIONS = (
    click.option("--seed", type=int, default=0, show_default=True, help="Of everything random."),
    click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text."),
    click.option("--quiet", "-q", is_flag=True, help="Say nothing but results and errors."),
)


def shared(*groups: tuple[Callable[[Command], Command], ...]) -> Callable[[Command], Command]:
    """Add groups of options to a command, which gets them as one argument `settings`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapper(*args: Any, **given: Any) -> Any:
            known = {field.name for field in fields(Settings)}
            settings = Settings(**{name: given.pop(name) for name in list(given) if name in known})
            return command(*args, settings=settings, **given)

        decorated: Command = wrapper
        for option in reversed([option for group in groups for option in group]):
            decorated = option(decorated)
        return decorated

    return decorate


model_argument = click.argument("model", metavar="MODEL")
inputs_argument = click.argument("inputs", nargs=-1, metavar="INPUT...")
layers_option = click.option(
    "--layer", "layers", multiple=True, metavar="LAYER", help="Node, tensor or module name, glob, Conv:-1, or index."
)
out_option = click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="PATH", help="Where results go: a folder, or one file."
)
params_option = click.option(
    "--param", "params", multiple=True, callback=_pairs, metavar="KEY=VALUE", help="A method's parameter."
)
save_option = click.option(
    "--save", type=click.Path(path_type=Path), metavar="FILE.npz", help="Also write the numbers themselves."
)
target_option = click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="TARGET",
    help="Class index or label, top-3, all, cat~dog, box:x0,y0,x1,y1@CLASS, segment:CLASS, region:x0,y0,x1,y1,"
    " output:NAME[0,3], regression, similar:@FILE; several go side by side.  [default: each input's best]",
)
