"""How `compare --cam` gets from two models and pictures to their reasons side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_inspect.cli._options import Settings
from onnx_inspect.cli._session import emit, engines, figure_paths, save_figure, say, stem
from onnx_inspect.errors import MethodError

if TYPE_CHECKING:
    from onnx_inspect.analysis.drift import Drift, Limits
    from onnx_inspect.analysis.saliency import CamPanel
    from onnx_inspect.comparing.reasons import Explained, Twins

WORST = 6  # pictures under the chart
EACH = 24  # pictures that get a figure of their own


@dataclass(frozen=True)
class Asked:
    """What `compare --cam` was asked to explain, and where results go."""

    method: str
    target: str | None = None
    layers: tuple[str | None, str | None] = (None, None)
    params: tuple[tuple[str, str], ...] = ()
    output: str | None = None
    save: Path | None = None
    out: Path | None = None


def reasons(twins: Twins, asked: Asked, limits: Limits, settings: Settings) -> Drift:
    """Explain the inputs by both models, compare, draw, and print.

    Raises
    ------
    MethodError
        No input gives two maps that can be compared.
    """
    from onnx_inspect.comparing.reasons import explain_both

    with engines(settings) as make_engine:
        found, sides = explain_both(
            twins,
            method=asked.method,
            target=asked.target,
            layers=asked.layers,
            params=asked.params,
            output=asked.output,
            limits=limits,
            seed=settings.seed,
            make_engine=make_engine,
        )
    if not found.compared:
        raise MethodError(
            f"nothing was compared: on each of the {twins.inputs_a.n} inputs {asked.method} gives one model a flat map;"
            " try another method, --layer or --target"
        )
    for side in sides:
        if side.why and side.attribution.layer:
            say(f"{side.model}: layer {side.attribution.layer!r}: {side.why}; choose another with --layer", settings)
        for note in side.attribution.notes:
            say(note, settings)
    if asked.save is not None:
        _save(asked.save, found, sides)
    paths = _figures(found, sides, asked.out)
    if settings.as_json:
        emit({"a": twins.a.source, "b": twins.b.source, **found.to_json(), "figures": [str(path) for path in paths]})
    else:
        from onnx_inspect.render.drift import show

        show(found)
        for path in paths:
            click.echo(str(path))
    return found


def _save(path: Path, found: Drift, sides: Sequence[Explained]) -> None:
    """The raw maps of both, (N, h, w), and what the JSON says."""
    import json

    import numpy as np

    from onnx_inspect.trace import save_arrays

    arrays: dict[str, Any] = {name: side.attribution.values for name, side in zip("ab", sides, strict=True)}
    save_arrays(path, arrays | {"meta": np.array(json.dumps(found.to_json()))})


def _figures(found: Drift, sides: tuple[Explained, Explained], out: Path | None) -> list[Path]:
    """An overview of all inputs, and a figure of each where there are several but not too many."""
    from onnx_inspect.analysis.drift import SAME
    from onnx_inspect.render import cam as render_cam
    from onnx_inspect.render import drift as render
    from onnx_inspect.render._save import check

    models = (stem(sides[0].model), stem(sides[1].model))
    one_file = out is not None and out.suffix.lower() in (".png", ".svg", ".pdf")
    if one_file and out is not None:
        check(out)
    flagged = sorted(found.order, key=lambda n: found.pictures[n].verdict == SAME)  # these first, each in order
    panels = {n: _panel(found, sides, models, n) for n in flagged[: WORST if one_file else EACH]}
    several = len(found.pictures) > 1 and not one_file
    names = [f"{stem(found.pictures[n].source)}-reasons" for n in panels] if several else []
    paths = figure_paths(out, ["reasons", *names])
    shown = tuple(panels[n] for n in flagged[:WORST])
    save_figure(render, render.DriftView(models, found, shown), paths[0])
    for path, panel in zip(paths[1:], panels.values(), strict=False):
        save_figure(render_cam, [panel], path)
    return paths


def _panel(found: Drift, sides: tuple[Explained, Explained], models: tuple[str, str], index: int) -> CamPanel:
    from onnx_inspect.analysis.saliency import of_batch
    from onnx_inspect.render.drift import beside

    one, other = (of_batch([side.attribution], index, side.batch) for side in sides)
    return beside((one, other), models, found.pictures[index])
