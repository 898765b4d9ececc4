"""How `compare` gets from two names to a comparison, and shows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_inspect.cli import _frameworks
from onnx_inspect.cli._options import Settings
from onnx_inspect.cli._session import emit, engines, figure_paths, read_model, save_figure, say, stem
from onnx_inspect.errors import InputError

if TYPE_CHECKING:
    from onnx_inspect.analysis.closeup import Closeup
    from onnx_inspect.analysis.comparison import Comparison, Limits
    from onnx_inspect.comparing.framework import Trace
    from onnx_inspect.comparing.reasons import Twins
    from onnx_inspect.graph.model import Model
    from onnx_inspect.inputs.batch import Batch
    from onnx_inspect.inputs.preprocess import Preprocess

RANDOM = 4  # inputs that are made up where none are named


def layers(
    a: str,
    b: str,
    inputs: Sequence[str],
    limits: Limits,
    settings: Settings,
    *,
    preprocess_b: str | None = None,
    state: Path | None = None,
    out: Path | None = None,
) -> Comparison:
    """Compare two models layer by layer, and print or draw what was found; `a` may be a framework's own network."""
    from onnx_inspect.comparing.closeups import closeups
    from onnx_inspect.comparing.framework import FrameworkSubject
    from onnx_inspect.comparing.models import compare
    from onnx_inspect.comparing.subjects import ModelSubject, block_of

    if _frameworks.is_source(b):
        raise InputError(f"{b} is a framework's network: name it first, and the file that was exported from it second")
    second = read_model(b)
    with engines(settings) as deploy, engines(replace(settings, exact=True)) as make_engine:
        of_a: FrameworkSubject | ModelSubject
        if _frameworks.is_source(a):
            one = two = _batch_of(second, inputs, settings, settings.preprocess)
            given = [(name, name) for name in one.arrays]
            of_a = FrameworkSubject(a, _opened(a, state), one, block=block_of(second))
        else:
            first = read_model(a)
            one, two, given = batches(first, second, inputs, settings, preprocess_b=preprocess_b)
            of_a = ModelSubject(first, one, make_engine, deploy=deploy, block=block_of(first, second))
        of_b = ModelSubject(second, two, make_engine, deploy=deploy, block=of_a.block)
        found = compare(of_a, of_b, given, sources=one.sources, limits=limits, make_engine=make_engine)
        looks = closeups(found, of_a, of_b)
    for note in found.notes:
        say(note, settings)
    show(found, looks, settings, out)
    return found


def weights(a: str, b: str, limits: Limits, settings: Settings, *, out: Path | None = None) -> int:
    """Compare the weights of two models, print and draw them; return the exit code.

    Raises
    ------
    InputError
        The models have no weights in common.
    """
    from onnx_inspect.analysis.weight_differences import compare_weights
    from onnx_inspect.graph.weights import distinct, layer_weights
    from onnx_inspect.render import weight_comparison as render

    models = read_model(a), read_model(b)
    own, other = (distinct(layer_weights(model)) for model in models)
    identical = models[0].digest == models[1].digest
    found = compare_weights(own, other, sources=(a, b), identical=identical, limits=limits)
    if not found.matched:
        counts = f"{len(own)} tensors of weights in {a}, {len(other)} in {b}"
        raise InputError(f"no weight of the one is found in the other ({counts}): compare what they compute instead")
    paths = figure_paths(out, [f"{stem(a)}-{stem(b)}-weights"])
    for path in paths:
        save_figure(render, found, path)
    if settings.as_json:
        emit(found.to_json() | {"figures": [str(path) for path in paths]})
    else:
        render.show(found)
        for path in paths:
            click.echo(str(path))
    return 0 if found.agree else 1


def pair(
    a: str,
    b: str,
    inputs: Sequence[str],
    settings: Settings,
    *,
    preprocess_b: str | None = None,
    quiet: bool = False,
) -> Twins:
    """Read two models, and the same inputs as each of them takes them; `quiet` where the choices were said before."""
    from onnx_inspect.comparing.reasons import Twins
    from onnx_inspect.inputs.labels import read_labels

    first, second = read_model(a), read_model(b)
    said = replace(settings, quiet=settings.quiet or quiet)
    one, two, given = batches(first, second, inputs, said, preprocess_b=preprocess_b)
    own = read_labels(settings.labels, second.metadata)  # classes may be numbered otherwise
    return Twins(first, one, second, replace(two, labels=own), tuple(given))


def batches(
    first: Model, second: Model, inputs: Sequence[str], settings: Settings, *, preprocess_b: str | None = None
) -> tuple[Batch, Batch, list[tuple[str, str]]]:
    """Read the inputs for both models, each through its own convention; make some up where none are named."""
    from onnx_inspect.inputs.paired import convention, paired

    given = settings.preprocess
    own, other = (None, None) if given else (convention(first, second), convention(second, first))
    if own is not None:
        say(own[1], settings)
    batch = _batch_of(first, inputs, settings, own[0] if own else given)
    if other is not None and preprocess_b is None:
        say(other[1], settings)
    integers = any(spec.dtype in ("int8", "uint8") for spec in second.inputs)
    fallback = None if integers else given
    twin, partners = paired(batch, first, second, preprocess=preprocess_b or (other[0] if other else fallback))
    for note in twin.notes:
        say(note, settings)
    for name, partner in partners.items():
        if name != partner:
            say(f"input {name!r} of {first.source} goes to {partner!r} of {second.source}", settings)
    return batch, twin, list(partners.items())


def _batch_of(model: Model, inputs: Sequence[str], settings: Settings, preprocess: Preprocess | str | None) -> Batch:
    """Read the inputs of one model, and say the choices made; make some up where none are named."""
    from onnx_inspect.inputs.read import read

    if not inputs and not settings.named:
        inputs = ["random"] * RANDOM
        say(f"no input named: {RANDOM} random ones are compared, from --seed {settings.seed}", settings)
    batch = read(
        model.inputs,
        inputs,
        named=dict(settings.named),
        preprocess=preprocess,
        metadata=model.metadata,
        seed=settings.seed,
        primary=settings.perturb,
        labels=settings.labels,
    )
    for note in batch.notes:
        say(note, settings)
    return batch


def _opened(source: str, state: Path | None) -> Callable[[Any], Trace]:
    """A framework's network; what its own code prints goes to stderr."""
    import sys
    from contextlib import redirect_stdout

    with redirect_stdout(sys.stderr):
        run = _frameworks.opened(source, state)

    def quietly(feeds: Any) -> Trace:
        with redirect_stdout(sys.stderr):
            found: Trace = run(feeds)
        return found

    return quietly


def show(found: Comparison, looks: tuple[Closeup, ...], settings: Settings, out: Path | None) -> None:
    """Draw a comparison, and print it as JSON or as a table."""
    from onnx_inspect.render import comparison as render

    paths = [] if found.identical and out is None else figure_paths(out, [f"{stem(found.a)}-{stem(found.b)}-layers"])
    for path in paths:
        save_figure(render, render.ComparisonView(found, looks), path)
    if settings.as_json:
        emit(found.to_json() | {"figures": [str(path) for path in paths]})
        return
    render.show(found)
    for path in paths:
        click.echo(str(path))
