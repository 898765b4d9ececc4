"""How the texts of a command line join its pictures and arrays in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError
from onnx_inspect.inputs import text as reading
from onnx_inspect.inputs.parts import Part
from onnx_inspect.inputs.samples import Samples
from onnx_inspect.inputs.tensors import cast
from onnx_inspect.inputs.text import Coder
from onnx_inspect.inputs.tokens import Hiding, TextInput, Tokens

if TYPE_CHECKING:
    from onnx_inspect.graph.model import TensorSpec
    from onnx_inspect.inputs.batch import Batch


@dataclass(frozen=True)
class Sentences:
    """What the texts give: samples, their tokens, and what else their model needs beside ids."""

    part: Part
    tokens: tuple[Tokens, ...]
    coder: Coder | None


SILENCE = Sentences(Part((), {}), (), None)


def ids_input(specs: Mapping[str, TensorSpec]) -> str | None:
    """The input that holds a text's ids, where all others only go with it; else None."""
    parts = reading.parts(specs)
    others = [spec for name, spec in specs.items() if name not in parts.values()]
    sure = not any(spec.is_float and not name_of_state(spec.name) for spec in others)
    return parts["ids"] if parts and sure else None


def name_of_state(name: str) -> bool:
    """Whether an input holds what a decoder remembers, rather than what it is given."""
    return name.lower().startswith("past")


def sentences(texts: Sequence[str], specs: Mapping[str, TensorSpec], tokenizer: Path | None) -> Sentences:
    """Encode texts for the inputs that take them; text goes as it is to an input of strings.

    Raises
    ------
    InputError
        The model takes no text, or a text can't be encoded.
    MissingExtra
        The package `tokenizers` isn't installed.
    """
    parts = reading.parts(specs)
    texts = reading.read_texts(texts)
    strings = [spec for spec in specs.values() if spec.dtype == "string"]
    if texts and not parts and len(strings) == 1:
        return Sentences(_as_strings(texts, strings[0]), (), None)
    if not parts:
        if texts:
            takes = ", ".join(f"{spec.name}: {spec.describe()}" for spec in specs.values())
            raise InputError(f"the model has no input for the ids of a text: it takes {takes}")
        return SILENCE
    read = reading.read_tokenizer(tokenizer) if tokenizer is not None else None
    coder = Coder(specs, parts, read, tokenizer.name if tokenizer is not None else "")
    if not texts:
        return Sentences(Part((), {}), (), coder)
    arrays, tokens, notes = coder.encode(texts)
    nothing = (None,) * len(texts)
    samples = {name: Samples(array, nothing, nothing) for name, array in arrays.items()}
    return Sentences(Part(tuple(texts), samples, notes), tokens, coder)


def _as_strings(texts: Sequence[str], spec: TensorSpec) -> Part:
    array = np.array(list(texts), dtype=object)
    array = array.reshape(-1, *(1,) * (len(spec.shape or (None,)) - 1))
    nothing = (None,) * len(texts)
    return Part(tuple(texts), {spec.name: Samples(cast(array, spec, "--text"), nothing, nothing)})


def completed(given: Mapping[str, Samples], said: Sentences) -> dict[str, Samples]:
    """Add the mask, segments and positions that nobody gave beside the ids, and a decoder's empty memories."""
    coder = said.coder
    if coder is None or coder.parts["ids"] not in given:
        return dict(given)
    ids = given[coder.parts["ids"]].array
    missing = [part for part, name in coder.parts.items() if name not in given]
    filled: dict[str, Samples] = {}
    if missing:
        arrays, notes = coder.complete(ids, _mask(given, coder))
        for name in (coder.parts[part] for part in missing):
            own = tuple(note for note in notes if f"{name!r}" in note)
            filled[name] = Samples(arrays[name], (), (), None, own)
    for name, spec in coder.specs.items():
        if name_of_state(name) and name not in given and spec.shape and len(spec.shape) == 4:
            filled[name] = _forgotten(spec, len(ids))
    return {**given, **filled}


def _forgotten(spec: TensorSpec, count: int) -> Samples:
    """Make a decoder's memory of nothing: (N, heads, 0, width)."""
    assert spec.shape is not None
    shape = [count, *(d if isinstance(d, int) else 0 for d in spec.shape[1:])]
    array = cast(np.zeros(shape, np.float32), spec, "an empty memory")
    return Samples(array, (), (), None, (f"input {spec.name!r}: empty, nothing went before",))


def _mask(given: Mapping[str, Samples], coder: Coder) -> NDArray[Any] | None:
    name = coder.parts.get("mask")
    return given[name].array if name is not None and name in given else None


def text_of(batch: Batch, said: Sentences) -> TextInput | None:
    """What of a batch is text: tokens as they were encoded, or named from ids that were given."""
    coder = said.coder
    if coder is None:
        return None
    name, mask = coder.parts["ids"], coder.parts.get("mask")
    tokens = said.tokens
    if not tokens:
        tokens = coder.read_ids(batch.arrays[name], batch.arrays[mask] if mask is not None else None)
    if len(tokens) != batch.n:
        tokens = tokens * batch.n  # one text for all samples
    ways = coder.ways()
    return TextInput(name, mask, tokens, ways, next(iter(ways.values()), Hiding(0, "id 0")), coder)
