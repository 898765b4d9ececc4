"""What one thing that the user named gives: samples for some of the inputs, and how such parts join."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError
from onnx_inspect.inputs.files import Content, load, test_set
from onnx_inspect.inputs.samples import Demand, Samples, as_pictures, from_array, from_pictures
from onnx_inspect.inputs.tensors import as_fitting, numpy_dtype


@dataclass(frozen=True)
class Part:
    """The same n samples seen by one or more inputs."""

    sources: tuple[str, ...]
    samples: Mapping[str, Samples]
    notes: tuple[str, ...] = ()


def from_content(content: Content, where: str, demand: Demand) -> Part:
    """Make a file's content samples: a picture or a single array is the primary input's, others go by their names.

    Raises
    ------
    InputError
        Nothing in it fits, or more than one thing does.
    """
    if content.picture:
        samples = from_pictures(list(content.arrays.values()), demand.primary, demand)
        return Part((where,), {demand.primary: samples})
    named = {name: array for name, array in content.arrays.items() if name in demand.specs}
    notes: tuple[str, ...] = ()
    if not named:
        key = _choose(content.arrays, demand, where)
        named = {demand.primary: content.arrays[key]}
        where = f"{where}:{key}" if len(content.arrays) > 1 else where
    elif ignored := [name for name in content.arrays if name not in named]:
        notes = (f"{where}: ignored {', '.join(ignored)}, for no input is called so",)
    return _part({name: from_array(array, name, demand, where) for name, array in named.items()}, where, demand, notes)


def from_test_set(folder: Path, demand: Demand) -> Part:
    """Read ``input_0.pb``, ``input_1.pb``, ... as the model's inputs in their order.

    Raises
    ------
    InputError
        More files than inputs, or one that doesn't fit.
    """
    files = test_set(folder)
    if len(files) > len(demand.specs):
        raise InputError(f"{folder} holds {len(files)} inputs, but the model takes {len(demand.specs)}")
    samples = {}
    for name, path in zip(demand.specs, files, strict=False):
        (array,) = load(path).arrays.values()
        samples[name] = from_array(array, name, demand, str(path))
    return _part(samples, str(folder), demand, ())


def _part(samples: Mapping[str, Samples], where: str, demand: Demand, notes: tuple[str, ...]) -> Part:
    counts = {name: len(s.array) for name, s in samples.items() if demand.batched(name)}
    n = max(counts.values(), default=1)
    if odd := [name for name, count in counts.items() if count not in (1, n)]:
        most = max(counts, key=lambda name: counts[name])
        raise InputError(f"{where}: {odd[0]!r} holds {counts[odd[0]]} samples, but {most!r} holds {n}")
    return Part(numbered(where, n), {name: repeat(s, n, demand.batched(name)) for name, s in samples.items()}, notes)


def numbered(where: str, n: int) -> tuple[str, ...]:
    """Name n samples of one source: ``file[0]``, ``file[1]``, ..., or plain ``file`` when it is the only one."""
    return (where,) if n == 1 else tuple(f"{where}[{i}]" for i in range(n))


def repeat(samples: Samples, n: int, batched: bool) -> Samples:
    """Give a single sample to each of n; whole inputs and n samples stay as they are."""
    if not batched or len(samples.array) == n:
        return samples
    array = np.repeat(samples.array, n, axis=0)
    return Samples(array, samples.originals * n, samples.placements * n, samples.preprocess, samples.notes)


def _choose(arrays: Mapping[str, NDArray[Any]], demand: Demand, where: str) -> str:
    """Pick the array of an archive that is meant for the primary input: pictures before arrays that fit."""
    if len(arrays) == 1:
        return next(iter(arrays))
    spec = demand.specs[demand.primary]
    channels = {d for d in (spec.shape or ())[1:] if d in (1, 3)}
    pictures = [name for name, a in arrays.items() if as_pictures(a, spec)]
    alike = [name for name in pictures if (3 if arrays[name].shape[-1] == 3 else 1) in channels]
    fitting = [name for name, a in arrays.items() if as_fitting(a.shape, spec, True) and _numeric(a, demand)]
    for found in (alike, pictures, fitting):
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(
                f"{where}: {', '.join(found)} all fit input {demand.primary!r}; name the one meant {demand.primary!r}"
            )
    held = ", ".join(f"{name} {a.dtype} {list(a.shape)}" for name, a in arrays.items())
    raise InputError(f"{where} holds {held}; none is called {demand.primary!r} or fits {spec.describe()}")


def _numeric(array: NDArray[Any], demand: Demand) -> bool:
    wanted = numpy_dtype(demand.specs[demand.primary])
    return array.dtype.kind in "biuf" and (wanted is None or wanted.kind not in "biu" or array.dtype.kind in "biu")


def join(parts: Sequence[Part], demand: Demand) -> Part:
    """Put the samples of all parts one after another.

    Raises
    ------
    InputError
        Parts give different inputs, shapes that don't stack, or different values where one is shared.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.samples.keys() != first.samples.keys():
            raise InputError(
                f"{first.sources[0]} gives {', '.join(first.samples)}, but {part.sources[0]} gives"
                f" {', '.join(part.samples)}: give the same inputs from each"
            )
    samples = {name: _joined(name, parts, demand) for name in first.samples}
    return Part(
        tuple(source for part in parts for source in part.sources),
        samples,
        tuple(note for part in parts for note in part.notes),
    )


def _joined(name: str, parts: Sequence[Part], demand: Demand) -> Samples:
    pieces = [part.samples[name] for part in parts]
    first = pieces[0]
    for piece, part in zip(pieces[1:], parts[1:], strict=True):
        if not demand.batched(name):
            if not np.array_equal(piece.array, first.array):
                raise InputError(
                    f"input {name!r} has no batch axis, and differs in {part.sources[0]}: run it by itself"
                )
        elif piece.array.shape[1:] != first.array.shape[1:]:
            raise InputError(
                f"input {name!r}: {parts[0].sources[0]} gives {list(first.array.shape[1:])}, but {part.sources[0]}"
                f" gives {list(piece.array.shape[1:])}: samples of one run must agree in shape"
            )
    notes = tuple(dict.fromkeys(note for piece in pieces for note in piece.notes))
    if len(pieces) == 1 or not demand.batched(name):
        return Samples(first.array, first.originals, first.placements, first.preprocess, notes)
    return Samples(
        np.concatenate([piece.array for piece in pieces]),
        tuple(o for piece in pieces for o in piece.originals),
        tuple(p for piece in pieces for p in piece.placements),
        next((piece.preprocess for piece in pieces if piece.preprocess), None),
        notes,
    )
