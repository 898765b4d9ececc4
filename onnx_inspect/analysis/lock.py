"""What a lockfile holds of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx_inspect.analysis import sketch as sketches
from onnx_inspect.analysis.sketch import Sketch
from onnx_inspect.errors import InputError

FORMAT, VERSION = "onnx-inspect.lock", 1


@dataclass(frozen=True)
class Inputs:
    """What the model was run on, without its content unless that was asked for.

    Attributes
    ----------
    words : tuple of str
        As they were given on the command line.
    named : tuple of (name, value)
        Inputs given by name.
    files : tuple of str
        Those among them that are files or folders; without any, the seed alone makes the inputs again.
    sources : tuple of str
        One for each sample.
    pictures : tuple of str
        SHA-256 of each sample's picture; "" where it is none.
    fed : tuple of str
        SHA-256 of what the model was fed of each sample.
    preprocess : mapping or None
        Between the two.
    content : mapping of input name to mapping or None
        What was fed itself, where that was asked for: a packed array, and whether all samples share it.
    """

    words: tuple[str, ...]
    named: tuple[tuple[str, str], ...]
    files: tuple[str, ...]
    sources: tuple[str, ...]
    pictures: tuple[str, ...]
    fed: tuple[str, ...]
    preprocess: Mapping[str, Any] | None
    content: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Lock:
    """What a model gave, so that it can be told later whether it still does.

    Attributes
    ----------
    model, digest : str
        File name, and SHA-256 of its bytes.
    provider : str
    seed : int
        Of random inputs, and of the sketches.
    inputs : Inputs
    entries : tuple of Sketch
        What the model is fed, in the order of its inputs.
    layers : tuple of Sketch
        In topological order.
    outputs : tuple of str
        Tensors among `layers` that are the model's outputs, in its order.
    classes : tuple of int or None
        The best class of each sample; None without class scores.
    """

    model: str
    digest: str
    provider: str
    seed: int
    inputs: Inputs
    entries: tuple[Sketch, ...]
    layers: tuple[Sketch, ...]
    outputs: tuple[str, ...]
    classes: tuple[int, ...] | None

    def to_json(self) -> dict[str, Any]:
        """What the file holds."""
        given = self.inputs
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model,
            "digest": self.digest,
            "provider": self.provider,
            "seed": self.seed,
            "inputs": {
                "words": list(given.words),
                "named": [list(pair) for pair in given.named],
                "files": list(given.files),
                "samples": [
                    {"source": source, "picture": picture, "fed": fed}
                    for source, picture, fed in zip(given.sources, given.pictures, given.fed, strict=True)
                ],
                "preprocess": None if given.preprocess is None else dict(given.preprocess),
                "content": None if given.content is None else dict(given.content),
            },
            "entries": [entry.to_json() for entry in self.entries],
            "layers": [layer.to_json() for layer in self.layers],
            "outputs": list(self.outputs),
            "classes": None if self.classes is None else list(self.classes),
        }


def from_text(text: str, source: str) -> Lock:
    """Read a lockfile's text.

    Raises
    ------
    InputError
        It is no lockfile, is damaged, or is of a newer version.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InputError(
            f"{source} is no lockfile: it isn't JSON ({error}); write one with onnx-inspect lock"
        ) from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"{source} is no lockfile: it doesn't say {FORMAT!r}; write one with onnx-inspect lock")
    if data.get("version") != VERSION:
        raise InputError(
            f"{source} is a lockfile of version {data.get('version')}, this program reads {VERSION}: write it anew with"
            " onnx-inspect lock"
        )
    try:
        return _lock(data)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{source} is a damaged lockfile ({type(error).__name__}: {error}): write it anew") from None


def _lock(data: dict[str, Any]) -> Lock:
    given = data["inputs"]
    samples = given["samples"]
    return Lock(
        model=str(data["model"]),
        digest=str(data["digest"]),
        provider=str(data["provider"]),
        seed=int(data["seed"]),
        inputs=Inputs(
            words=tuple(map(str, given["words"])),
            named=tuple((str(name), str(value)) for name, value in given["named"]),
            files=tuple(map(str, given["files"])),
            sources=tuple(str(sample["source"]) for sample in samples),
            pictures=tuple(str(sample["picture"]) for sample in samples),
            fed=tuple(str(sample["fed"]) for sample in samples),
            preprocess=given["preprocess"],
            content=given["content"],
        ),
        entries=tuple(sketches.from_json(entry) for entry in data["entries"]),
        layers=tuple(sketches.from_json(layer) for layer in data["layers"]),
        outputs=tuple(map(str, data["outputs"])),
        classes=None if data["classes"] is None else tuple(map(int, data["classes"])),
    )
