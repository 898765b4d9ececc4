"""From the words on the command line to a Batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnx_inspect.errors import InputError
from onnx_inspect.inputs import literals
from onnx_inspect.inputs.axes import is_picture
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.inputs.files import Found, exists, expand, load
from onnx_inspect.inputs.labels import read_labels
from onnx_inspect.inputs.parts import Part, from_content, from_test_set, join, numbered, repeat
from onnx_inspect.inputs.preprocess import Preprocess
from onnx_inspect.inputs.samples import Demand, Samples, filled, from_array, from_pictures
from onnx_inspect.inputs.sentences import SILENCE, Sentences, completed, ids_input, sentences, text_of

if TYPE_CHECKING:
    from onnx_inspect.graph.model import TensorSpec


def read(
    model_inputs: Sequence[TensorSpec],
    inputs: Sequence[str],
    *,
    named: Mapping[str, str] | None = None,
    preprocess: Preprocess | str | None = None,
    metadata: Mapping[str, str] | None = None,
    seed: int = 0,
    primary: str | None = None,
    labels: Path | None = None,
    texts: Sequence[str] = (),
    tokenizer: Path | None = None,
) -> Batch:
    """Read everything that the user named into the arrays a model is fed.

    Parameters
    ----------
    model_inputs : sequence of TensorSpec
    inputs : sequence of str
        Files, folders (their pictures, sorted), globs, folders with ``input_0.pb``, ..., the word ``random``, or
        ``name=VALUE`` and ``name:SHAPE`` for one input. Samples follow one another in this order.
    named : mapping of input name to str, optional
        ``@FILE``, a number, a JSON list, ``random``, ``zeros`` or ``ones``, each also with ``:SHAPE``. A single sample
        is repeated for all others.
    preprocess : Preprocess or str, optional
        A preset, a JSON file, or JSON; see :func:`~onnx_inspect.inputs.resolve.resolve`.
    metadata : mapping, optional
        The model's.
    seed : int
        Of everything random.
    primary : str, optional
        The input that is perturbed and that pictures are for. By default the first that takes pictures, else the first
        of real numbers with the most axes (a fixed first axis above 1, such as a recurrent state's, comes last), else
        the first.
    labels : Path, optional
        Class names; see :func:`~onnx_inspect.inputs.labels.read_labels`.
    texts : sequence of str
        Sentences, one sample each, for the inputs that take ids; ``A ||| B`` is a pair, ``@FILE`` has one a line.
    tokenizer : Path, optional
        The ``tokenizer.json`` that belongs to the model, or its folder.

    Returns
    -------
    Batch

    Raises
    ------
    InputError
        Something is missing, broken, or doesn't fit the model.
    """
    specs = {spec.name: spec for spec in model_inputs}
    demand = Demand(specs, primary_of(specs, primary), preprocess, metadata or {})
    words, values = _sort(inputs, named or {}, specs, bool(texts))
    rng = np.random.default_rng(seed)
    given, fills = values_of(values, demand)
    said = sentences(texts, specs, tokenizer)
    part = _words(words, demand, given, fills, rng) if words else said.part
    if words:
        given = _beside(given, said.part)
    names = read_labels(labels, demand.metadata)
    return assemble(part, given, fills, values, demand, rng=rng, labels=names, said=said)


Fill = tuple[str, tuple[int, ...] | None]


def assemble(
    part: Part,
    given: Mapping[str, Samples],
    fills: Mapping[str, Fill],
    values: Mapping[str, str],
    demand: Demand,
    *,
    rng: np.random.Generator,
    labels: tuple[str, ...] | None,
    said: Sentences = SILENCE,
) -> Batch:
    """Put what files gave, what was given by name and what is to be made up into one batch.

    Parameters
    ----------
    part : Part
        Samples read from files; none where every input is named.
    given, fills
        Of :func:`values_of`.
    values : mapping of input name to str
        The words behind them.
    said : Sentences
        What texts gave; `part` holds their samples, or `given` does.

    Raises
    ------
    InputError
        An input is missing, given twice, or holds another number of samples.
    """
    if doubled := part.samples.keys() & (given.keys() | fills.keys()):
        raise InputError(f"input {min(doubled)!r} is given twice: by {part.sources[0]} and by name")
    given = {**part.samples, **given}
    for name, (word, shape) in fills.items():
        given[name] = filled(word, name, demand, shape=shape, bound=_bound(given, demand), rng=rng)
    given = completed(given, said)
    _complete(given, demand)
    _check_whole(given, demand)
    batch = _batch(part, given, values, demand, labels)
    return replace(batch, text=text_of(batch, said))


def primary_of(specs: Mapping[str, TensorSpec], wanted: str | None = None) -> str:
    """Name of the input that pictures are for, and that is perturbed; see :func:`read`.

    Raises
    ------
    InputError
        The model has no inputs, or none of the name wanted.
    """
    if not specs:
        raise InputError("the model takes no inputs: there is nothing to feed")
    if wanted is not None:
        if wanted not in specs:
            raise literals.unknown(wanted, list(specs))
        return wanted
    pictures = [spec for spec in specs.values() if is_picture(spec)]
    if not pictures and (ids := ids_input(specs)):
        return ids
    floats = sorted((s for s in specs.values() if s.is_float), key=lambda s: -len(s.shape or ()))
    counting = [s for s in floats if not (s.shape and isinstance(s.shape[0], int) and s.shape[0] > 1)]
    return (pictures or counting or floats or list(specs.values()))[0].name


def _sort(
    inputs: Sequence[str], named: Mapping[str, str], specs: Mapping[str, TensorSpec], spoken: bool
) -> tuple[list[str], dict[str, str]]:
    """Tell files and ``random`` from values of single inputs, which may stand among them."""
    words, values = [], dict(named)
    for text in inputs:
        found = literals.find(text, list(specs))
        if found is None or exists(Path(text)):
            words.append(text)
        elif found[0] in values:
            raise InputError(f"input {found[0]!r} is given twice: {values[found[0]]} and {found[1]}")
        else:
            values[found[0]] = found[1]
    for name in values:
        if name not in specs:
            raise literals.unknown(name, list(specs))
    if not words and not values and not spoken:
        raise InputError("no input given: name a picture, an array (.npy, .npz, .pb), a folder, or 'random'")
    return words, values


def _beside(given: Mapping[str, Samples], part: Part) -> dict[str, Samples]:
    """Add the inputs that a text makes to those that were given by name."""
    if doubled := part.samples.keys() & given.keys():
        raise InputError(f"input {min(doubled)!r} is given twice: by --text and by name")
    return {**given, **part.samples}


def values_of(values: Mapping[str, str], demand: Demand) -> tuple[dict[str, Samples], dict[str, Fill]]:
    """Read the values of single inputs; those to be made up wait until the others are known.

    Raises
    ------
    InputError
        A value that can't be read, or that doesn't fit its input.
    """
    given, fills = {}, {}
    for name, value in values.items():
        if fill := literals.fill(value, name):
            fills[name] = fill
        elif value.startswith("@"):
            given[name] = _file(Path(value[1:]).expanduser(), name, demand)
        else:
            array = literals.array(value, demand.specs[name])
            given[name] = from_array(array, name, demand, f"-I {name}")
    return given, fills


def _file(path: Path, name: str, demand: Demand) -> Samples:
    content = load(path)
    if content.picture:
        return from_pictures(list(content.arrays.values()), name, demand)
    if name in content.arrays or len(content.arrays) == 1:
        array = content.arrays.get(name, next(iter(content.arrays.values())))
        return from_array(array, name, demand, str(path))
    raise InputError(f"{path} holds {', '.join(content.arrays)}, but nothing called {name!r}")


def _words(
    words: Sequence[str],
    demand: Demand,
    given: Mapping[str, Samples],
    fills: Mapping[str, Fill],
    rng: np.random.Generator,
) -> Part:
    """Read files, folders, globs and ``random`` in their order, and join them."""
    parts: list[Part] = []
    for text in words:
        if text == "random" and not exists(Path(text)):
            parts.append(_random(demand, given, fills, rng))
        else:
            parts.extend(_found(text, expand(text), demand))
    return join(parts, demand)


def _random(demand: Demand, given: Mapping[str, Samples], fills: Mapping[str, Fill], rng: np.random.Generator) -> Part:
    """Make up every input that nobody gives."""
    samples: dict[str, Samples] = {}
    for name in demand.specs:
        if name not in given and name not in fills:
            bound = _bound({**given, **samples}, demand)
            samples[name] = filled("random", name, demand, shape=None, bound=bound, rng=rng)
    if not samples:
        raise InputError("'random' has nothing to make up: every input is given by name; leave it out")
    n = max((len(s.array) for name, s in samples.items() if demand.batched(name)), default=1)
    return Part(numbered("random", n), {k: repeat(s, n, demand.batched(k)) for k, s in samples.items()})


def _found(text: str, files: Sequence[Found], demand: Demand) -> list[Part]:
    """Read the files that one word means; broken ones that only a folder's listing named are skipped and noted."""
    parts: list[Part] = []
    broken: list[str] = []
    for file in files:
        if file.path.is_dir():
            parts.append(from_test_set(file.path, demand))
            continue
        try:
            content = load(file.path)
        except InputError as error:
            if not file.listed:
                raise
            broken.append(str(error))
            continue
        parts.append(from_content(content, str(file.path), demand))
    if not parts:
        raise InputError(f"none of the {len(files)} pictures in {text} can be read: {broken[0]}")
    if broken:
        note = f"{text}: skipped {len(broken)} of {len(files)} pictures: {'; '.join(broken[:3])}"
        note += f"; and {len(broken) - 3} more" if len(broken) > 3 else ""
        parts[0] = Part(parts[0].sources, parts[0].samples, (*parts[0].notes, note))
    return parts


def _bound(given: Mapping[str, Samples], demand: Demand) -> dict[str, int]:
    """Read the length of each symbol off the arrays that are there; the batch's is 1 wherever else it stands."""
    batch = (demand.specs[demand.primary].shape or (None,))[0]
    lengths: dict[str, int] = {batch: 1} if isinstance(batch, str) else {}
    for name, samples in given.items():
        for dim, length in zip(demand.specs[name].shape or (), samples.array.shape, strict=False):
            if isinstance(dim, str):
                lengths.setdefault(dim, length)
    return lengths


def _complete(given: Mapping[str, Samples], demand: Demand) -> None:
    missing = [spec for name, spec in demand.specs.items() if name not in given]
    if not missing:
        return
    wanted = ", ".join(f"{spec.name!r} {spec.describe()}" for spec in missing)
    example = f"-I {missing[0].name}=@FILE, or -I {missing[0].name}=random (zeros, ones, a number, a JSON list)"
    raise InputError(f"the model takes {len(demand.specs)} inputs; missing: {wanted}; give each, like {example}")


def _check_whole(given: Mapping[str, Samples], demand: Demand) -> None:
    """Refuse a batch inside an input that goes whole with every sample: samples are run one by one then."""
    batch = (demand.specs[demand.primary].shape or (None,))[0]
    for name, samples in given.items():
        if demand.batched(name) or not isinstance(batch, str):
            continue
        for dim, length in zip(demand.specs[name].shape or (), samples.array.shape, strict=True):
            if dim == batch and length != 1:
                raise InputError(
                    f"input {name!r} takes {demand.specs[name].describe()} and goes whole with every sample: found"
                    f" {list(samples.array.shape)}, but {batch!r} must be 1 long in it"
                )


def _batch(
    part: Part,
    given: Mapping[str, Samples],
    values: Mapping[str, str],
    demand: Demand,
    labels: tuple[str, ...] | None,
) -> Batch:
    counts = {name: len(samples.array) for name, samples in given.items() if demand.batched(name)}
    n = max([1, len(part.sources), *counts.values()])
    if odd := [name for name, count in counts.items() if count not in (1, n)]:
        most = max(counts, key=lambda name: counts[name])
        raise InputError(f"input {odd[0]!r} holds {counts[odd[0]]} samples, but {most!r} holds {n}")
    full = {name: repeat(given[name], n, demand.batched(name)) for name in demand.specs}
    main = full[demand.primary]
    nothing = (None,) * n
    sources = part.sources
    if demand.primary not in part.samples:
        sources = numbered(values[demand.primary].removeprefix("@")[:60], counts.get(demand.primary, 1))
    repeated = [f"input {name!r}: one sample repeated for all {n}" for name, count in counts.items() if count < n]
    notes = (*part.notes, *(note for samples in given.values() for note in samples.notes), *repeated)
    return Batch(
        arrays={name: samples.array for name, samples in full.items()},
        primary=demand.primary,
        sources=sources if len(sources) == n else tuple(f"{sources[0]}[{i}]" for i in range(n)),
        originals=main.originals or nothing,
        placements=main.placements or nothing,
        preprocess=main.preprocess,
        labels=labels,
        notes=tuple(dict.fromkeys(notes)),
        shared=frozenset(name for name in demand.specs if not demand.batched(name)),
    )
