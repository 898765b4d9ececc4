"""What else `compare` can look at than layers one by one: the reasons of two models, and which layers are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_inspect.cli._options import Settings, params_option
from onnx_inspect.cli._session import say
from onnx_inspect.errors import InputError

if TYPE_CHECKING:
    from onnx_inspect.analysis.comparison import Comparison
    from onnx_inspect.comparing.reasons import Twins
    from onnx_inspect.graph.model import Layer, Model

FEW = 30  # inputs: with fewer CKA is mostly noise
Read = Callable[..., "Twins"]


VIEW_OPTIONS = (
    click.option("--cka", is_flag=True, help="Which layers are alike, also of other architectures; 4 inputs or more."),
    click.option("--min-cka", type=click.FloatRange(-1, 1), metavar="X", help="Limit of the path's mean, with --cka."),
    click.option("--cam", metavar="METHOD", help="Compare the reasons: both models' maps of each INPUT side by side."),
    click.option("--target", metavar="TARGET", help="What --cam explains.  [default: the class that A predicts]"),
    params_option,
    click.option("--output", metavar="NAME", help="The output that holds the class scores, with --cam."),
    click.option(
        "--min-rank-correlation",
        type=click.FloatRange(-1, 1),
        default=0.5,
        show_default=True,
        metavar="X",
        help="Limit of two maps of one class, with --cam.",
    ),
    click.option("--min-overlap", type=click.FloatRange(0, 1), default=0.0, metavar="X", help="Of their top tenths."),
    click.option("--layer", "layers_a", multiple=True, metavar="LAYER", help="Of A, with --cam or --cka."),
    click.option(
        "--layer-b",
        "layers_b",
        multiple=True,
        metavar="LAYER",
        help="Of B.  [default: --cam: what holds the same; --cka: as of A]",
    ),
    click.option(
        "--save", type=click.Path(path_type=Path), metavar="FILE.npz", help="Also the numbers, of both views."
    ),
)


@dataclass(frozen=True)
class Views:
    """What `VIEW_OPTIONS` say."""

    cka: bool
    min_cka: float | None
    cam: str | None
    target: str | None
    params: tuple[tuple[str, str], ...]
    output: str | None
    min_rank_correlation: float
    min_overlap: float
    layers_a: tuple[str, ...]
    layers_b: tuple[str, ...]
    save: Path | None

    @property
    def wanted(self) -> bool:
        """Whether one of the views is asked for, instead of the layers one by one."""
        return self.cka or self.cam is not None


def show(read: Read, views: Views, settings: Settings, *, max_flips: int | None, out: Path | None) -> int:
    """Show the view asked for; return the exit code: 1 where a limit is broken.

    Raises
    ------
    UsageError
        Both views at once.
    """
    if views.cka and views.cam is not None:
        raise click.UsageError("--cka and --cam are two views: ask for one at a time")
    twins = read()
    if views.cka:
        return likeness(twins, views, settings, out=out)
    from onnx_inspect.analysis.drift import Limits
    from onnx_inspect.cli._reasons import Asked, reasons

    if len(views.layers_a) > 1 or len(views.layers_b) > 1:
        raise click.UsageError("--cam looks at one layer of each model: give --layer once, and --layer-b for B")
    first = views.layers_a[0] if views.layers_a else None
    asked = Asked(
        method=views.cam or "",
        target=views.target,
        layers=(first, views.layers_b[0] if views.layers_b else None),
        params=views.params,
        output=views.output,
        save=views.save,
        out=out,
    )
    limits = Limits(views.min_rank_correlation, views.min_overlap, max_flips or 0)
    return 0 if reasons(twins, asked, limits, settings).agree else 1


def are_strange(found: Comparison) -> bool:
    """Whether nothing but outputs corresponds: the two are different networks."""
    outputs = {output.a for output in found.outputs}
    return not found.identical and all(pair.a in outputs for pair in found.matched)


def strangers(read: Read, views: Views, settings: Settings, error: InputError | None, *, out: Path | None) -> int:
    """Show which layers are alike where none correspond, and that this is no agreement: the exit code is 1.

    Raises
    ------
    InputError
        What `error` says, where there are too few inputs for it; without an error that is only said.
    """
    from onnx_inspect.analysis.cka import LEAST

    twins = read(quiet=True)
    if twins.inputs_a.n < LEAST:
        if error is not None:
            raise error
        say(f"no layers correspond; with {LEAST} inputs or more, --cka tells which are alike", settings)
        return 1
    say(str(error) if error is not None else "no layers correspond: which are alike (CKA) is shown instead", settings)
    return likeness(twins, views, settings, out=out, agree=False) or 1


def likeness(twins: Twins, views: Views, settings: Settings, *, out: Path | None, agree: bool | None = None) -> int:
    """Draw which layers of two models are alike, and print the nearest layer of B for each of A's."""
    from onnx_inspect.cli._session import emit, engines, figure_paths, save_figure, stem
    from onnx_inspect.comparing.likeness import likeness as measure
    from onnx_inspect.render import cka as render

    a, b = twins.a, twins.b
    paths = figure_paths(out, ["likeness"])
    ours = _layers(a, views.layers_a)
    theirs = _layers(b, views.layers_b or views.layers_a)
    with engines(settings) as make_engine:
        found = measure(
            a,
            twins.inputs_a,
            b,
            twins.inputs_b,
            layers_a=ours,
            layers_b=theirs,
            seed=settings.seed,
            make_engine=make_engine,
        )
    if not views.layers_a:
        say(f"{len(found.a)} and {len(found.b)} layers along depth; choose with --layer and --layer-b", settings)
    if found.samples < FEW:
        say(f"{found.samples} inputs tell little: chance alone may reach much of it; give {FEW} or more", settings)
    if a.digest == b.digest:
        say("A and B are the same file", settings)
    if views.save is not None:
        _save(views.save, found)
    save_figure(render, render.LikenessView(stem(a.source), stem(b.source), found), paths[0])
    if views.min_cka is not None and agree is None:
        agree = bool(found.path_mean >= views.min_cka)
    if settings.as_json:
        described: dict[str, Any] = {
            "a": a.source,
            "b": b.source,
            "agree": agree,
            "identical_file": a.digest == b.digest,
        }
        if views.cka is False:  # nothing corresponds
            described |= {"outputs": [], "matched": [], "unmatched_a": [], "unmatched_b": [], "culprit": None}
        emit(described | {"cka": found.to_json(), "figures": [str(path) for path in paths]})
    else:
        render.show(found)
        click.echo(str(paths[0]))
    return 1 if agree is False else 0


def _layers(model: Model, names: Sequence[str]) -> list[Layer]:
    found = {layer.name: layer for text in names for layer in model.find(text)}
    return sorted(found.values(), key=lambda layer: layer.index)


def _save(path: Path, found: Any) -> None:
    import numpy as np

    from onnx_inspect.trace import save_arrays

    names = {"layers_a": np.array(found.a), "layers_b": np.array(found.b)}
    path_taken = np.array([-1 if j is None else j for j in found.path])
    save_arrays(path, {"cka": found.values, "chance": found.chance, "path": path_taken, **names})
