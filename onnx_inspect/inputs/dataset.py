"""What a data set is: many samples and their classes, found at once, each read only when it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError
from onnx_inspect.inputs import dataset_arrays, dataset_files
from onnx_inspect.inputs.dataset_labels import Marks, resolve
from onnx_inspect.inputs.files import exists
from onnx_inspect.inputs.parts import Part
from onnx_inspect.inputs.samples import Demand

if TYPE_CHECKING:
    from onnx_inspect.graph.model import TensorSpec

ARRAYS = (".npz", ".npy")


class Entries(Protocol):
    """Where samples come from; its own state is small, so that it can be sent to other processes.

    `concurrent` where several threads may read at one time with profit: not where rows are unpacked in their order.
    """

    @property
    def concurrent(self) -> bool:
        """Whether several threads read faster than one."""

    def __len__(self) -> int:
        """How many samples."""

    def source(self, index: int) -> str:
        """What a sample is."""

    def read(self, indices: range, demand: Demand) -> list[Part | InputError]:
        """Samples in their order, several in one part where they lie in one file; an error stands for one sample."""

    def identity(self) -> str:
        """What tells these entries from others."""


@dataclass(frozen=True)
class Dataset:
    """N samples in a fixed order, none of them read yet.

    Attributes
    ----------
    entries : Entries
    words : tuple of str
        How it was named.
    marks : Marks or None
        What the data set itself says of each sample's class; None where it says nothing.
    labels : ndarray, (N,), int64
        Class of each sample; -1 where nobody says it.
    classes : tuple of str or None
        Names by label.
    comparable : bool
        Whether labels are the model's own class indices, so that its predictions may be called wrong.
    notes : tuple of str
        Choices made for the user, one line each.
    """

    entries: Entries
    words: tuple[str, ...]
    marks: Marks | None
    labels: NDArray[np.int64]
    classes: tuple[str, ...] | None
    comparable: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def labelled(self) -> bool:
        """Whether any sample has a class."""
        return bool((self.labels >= 0).any())

    @property
    def digest(self) -> str:
        """What tells this data set from others: its entries, their order and classes, not the pixels."""
        text = hashlib.blake2b(self.entries.identity().encode(), digest_size=16)
        text.update(np.ascontiguousarray(self.labels).data)
        return text.hexdigest()

    def aligned(self, names: Sequence[str] | None, count: int | None) -> Dataset:
        """The same samples, their labels put into the model's order of classes where that can be told.

        Parameters
        ----------
        names : sequence of str or None
            The model's class names.
        count : int or None
            How many classes it scores; None where it scores none.
        """
        if self.marks is None:
            return self
        found = resolve(self.marks, names, count)
        notes = (*self.notes, *((found.note,) if found.note else ()))
        return replace(self, labels=found.labels, classes=found.classes, comparable=found.comparable, notes=notes)


def find(words: Sequence[str], specs: Mapping[str, TensorSpec], primary: str) -> Dataset:
    """Find the samples of a data set, without reading any.

    Parameters
    ----------
    words : sequence of str
        One folder with a folder for each class; several folders, one for each class; a ``.csv`` or ``.tsv`` of paths
        and labels; a ``.txt`` or ``.lst`` with a path, or a path and a label, in each line; an ``.npz`` with ``x`` or
        ``images`` and ``y`` or ``labels``, or keyed by the model's inputs; an ``.npy``; or pictures, folders and globs.
    specs : mapping of input name to TensorSpec
        What the model takes.
    primary : str
        The input that pictures are for.

    Raises
    ------
    InputError
        Nothing there, or a file that doesn't say what it should.
    """
    if not words:
        raise InputError("no data set given: name a folder with a folder for each class, a .csv, .npz, list, or files")
    path = Path(words[0]).expanduser()
    single = len(words) == 1 and exists(path) and path.is_file()
    entries: Entries
    if single and path.suffix.lower() in ARRAYS:
        entries, marks, notes = dataset_arrays.find(path, specs, primary)
    else:
        entries, marks, notes = dataset_files.find(words, table=single)
    if not len(entries):
        raise InputError(f"data set {' '.join(words)[:200]} holds no samples")
    known = resolve(marks, None, None) if marks is not None else None
    nothing = np.full(len(entries), -1, np.int64)
    labels, classes = (known.labels, known.classes) if known is not None else (nothing, None)
    return Dataset(entries, tuple(words), marks, labels, classes, False, notes)
