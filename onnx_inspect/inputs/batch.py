"""What the engine is fed: N samples for every input of a model, and the pictures they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.inputs.placement import Placement
from onnx_inspect.inputs.preprocess import Preprocess
from onnx_inspect.inputs.tokens import TextInput


@dataclass(frozen=True)
class Batch:
    """N samples, ready to run.

    Attributes
    ----------
    arrays : mapping of input name to ndarray, (N, ...)
        In the dtype the model declares; read-only. An input in `shared` holds its whole value instead.
    primary : str
        The input that is perturbed, explained and drawn: the picture, where there is one.
    sources : tuple of str
        What each sample is.
    originals : tuple of ndarray, (H, W, 3), uint8, or None
        What to draw a sample on: the picture read, or one made from the array fed.
    placements : tuple of Placement or None
        How each original lies in the model's input plane.
    preprocess : Preprocess or None
        Between pixels and the primary input's numbers; None where nobody knows it.
    labels : tuple of str or None
        Class names.
    notes : tuple of str
        Choices made for the user, one line each.
    shared : frozenset of str
        Inputs without a batch axis 0 (a scalar, a recurrent state): the same array goes with every sample. Where such
        an input has the batch on another axis, that axis is 1 long, so samples must be run one by one.
    text : TextInput or None
        What one of the inputs holds of a text.
    """

    arrays: Mapping[str, NDArray[Any]]
    primary: str
    sources: tuple[str, ...]
    originals: tuple[NDArray[np.uint8] | None, ...]
    placements: tuple[Placement | None, ...]
    preprocess: Preprocess | None
    labels: tuple[str, ...] | None
    notes: tuple[str, ...]
    shared: frozenset[str] = frozenset()
    text: TextInput | None = None

    def __post_init__(self) -> None:
        sizes = {len(self.originals), len(self.placements), self.n}
        sizes |= {len(array) for name, array in self.arrays.items() if name not in self.shared}
        if sizes != {self.n} or self.primary not in self.arrays:
            raise ValueError(f"a Batch of {self.n} {self.primary!r} holds {sorted(sizes)} samples")
        for array in (*self.arrays.values(), *(o for o in self.originals if o is not None)):
            array.flags.writeable = False

    @property
    def n(self) -> int:
        """How many samples."""
        return len(self.sources)

    @property
    def read_as(self) -> TextInput | None:
        """The text, where it is what is perturbed, explained and drawn; None where that is a picture or a signal."""
        return self.text if self.text is not None and self.text.name == self.primary else None
