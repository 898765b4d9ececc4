"""`compare`: where two models differ, by how much, and which layer causes it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from onnx_inspect.cli._options import (
    COMMON_OPTIONS,
    INPUT_OPTIONS,
    RUN_OPTIONS,
    Settings,
    inputs_argument,
    out_option,
    shared,
)
from onnx_inspect.cli._views import VIEW_OPTIONS
from onnx_inspect.errors import StrangersError

LIMIT_OPTIONS = (
    click.option("--atol", type=click.FloatRange(min=0), metavar="X", help="Limit: |a - b| <= atol + rtol * |a|."),
    click.option("--rtol", type=click.FloatRange(min=0), metavar="X", help="The same; 0 where only --atol is given."),
    click.option("--min-cosine", type=click.FloatRange(-1, 1), metavar="X", help="Limit of every layer's cosine."),
    click.option("--max-flips", type=click.IntRange(min=0), metavar="N", help="Inputs whose class may change."),
)


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@inputs_argument
@click.option("--weights", "whole", is_flag=True, help="Compare the weights, not what becomes of an INPUT.")
@click.option("--preprocess-b", metavar="PRESET|FILE", help="B's preprocessing, where it isn't A's.")
@click.option("--state", type=click.Path(path_type=Path), metavar="FILE.pt", help="Weights of MODULE:FACTORY as A.")
@out_option
@shared(VIEW_OPTIONS, LIMIT_OPTIONS, INPUT_OPTIONS, RUN_OPTIONS, COMMON_OPTIONS)
def command(
    a: str,
    b: str,
    inputs: tuple[str, ...],
    whole: bool,
    preprocess_b: str | None,
    state: Path | None,
    atol: float | None,
    rtol: float | None,
    min_cosine: float | None,
    max_flips: int | None,
    out: Path | None,
    settings: Settings,
    **views: Any,
) -> None:
    """Compare model B with A on each INPUT, layer by layer, and name the layer that causes the difference.

    Layers are matched by what they compute, not by their names. Each model gets the same pictures through its own input
    convention; without INPUT, four random ones. The error of a layer is given as it accumulates, and alone: with A's
    activations fed into B. Exit code 1 where the outputs disagree, or a limit is broken. A may also be
    module.path:factory, a PyTorch network that B was exported from; --state names its weights.

    Other views: --weights matches the weights themselves and tells which moved most; --cam METHOD compares where both
    look, flagging pictures that are predicted alike for another reason; --cka tells which layers are alike, whatever
    the architectures; it is shown by itself where no layers correspond.

    \b
    Example:  onnx-inspect compare net.onnx net.int8.onnx cat.jpg dog.jpg --min-cosine 0.98 -o compared/
              onnx-inspect compare net.onnx net.int8.onnx photos/ --cam recipro-cam --min-rank-correlation 0.8
              onnx-inspect compare teacher.onnx student.onnx photos/ --cka
    """
    from onnx_inspect.analysis.comparison import Limits
    from onnx_inspect.analysis.differences import Tolerance
    from onnx_inspect.cli import _compare, _views

    tolerance = None if atol is None and rtol is None else Tolerance(atol or 0.0, rtol or 0.0)
    limits = Limits(tolerance, min_cosine, max_flips)
    if whole:
        raise SystemExit(_compare.weights(a, b, limits, settings, out=out))
    read = partial(_compare.pair, a, b, inputs, settings, preprocess_b=preprocess_b)
    if (asked := _views.Views(**views)).wanted:
        raise SystemExit(_views.show(read, asked, settings, max_flips=max_flips, out=out))
    try:
        found = _compare.layers(a, b, inputs, limits, settings, preprocess_b=preprocess_b, state=state, out=out)
    except StrangersError as error:
        raise SystemExit(_views.strangers(read, asked, settings, error, out=out)) from None
    if not settings.as_json and _views.are_strange(found):
        _views.strangers(read, asked, settings, None, out=out)
    raise SystemExit(0 if found.agree else 1)
