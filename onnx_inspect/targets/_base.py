"""What every kind of target is: which tensors it reads of a model, and how they become one number for each row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import MethodError
from onnx_inspect.graph.classifier import Classifier
from onnx_inspect.graph.model import Model
from onnx_inspect.inputs.batch import Batch

Floats = NDArray[np.float64]
Index = NDArray[np.intp]
Outputs = Mapping[str, NDArray[Any]]  # by tensor name, (B, ...)
Shapes = Mapping[str, tuple[int, ...]]  # by tensor name, of a single sample, its batch axis included
Box = tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True)
class Context:
    """What a target may look at while it finds its tensors.

    Attributes
    ----------
    shapes : mapping of tensor name to tuple of int
        Of one sample, batch axis included.
    size : (int, int)
        Height and width of the input's plane.
    classifier : Classifier or None
        Where the class scores are; `reason` says why there are none.
    run : callable
        Runs the whole model on other inputs: feeds and tensor names -> tensors, (B, ...).
    """

    model: Model
    batch: Batch
    shapes: Shapes
    size: tuple[int, int]
    classifier: Classifier | None
    reason: str
    run: Callable[[Outputs, Sequence[str]], dict[str, NDArray[Any]]]


@dataclass(frozen=True)
class Fixed(ABC):
    """A target settled for a batch: its classes, pixels or boxes chosen from what the model says of the inputs.

    Attributes
    ----------
    words : tuple of str
        What is explained, for each input.
    classes : ndarray, (N,), int
        Class index of each input; -1 where the target is no class.
    notes : tuple of str
        Choices made for the user.
    """

    words: tuple[str, ...]
    classes: Index
    notes: tuple[str, ...]

    @property
    def columns(self) -> Index:
        """Column of :meth:`read`'s rows that each input's target is, (N,)."""
        return np.zeros(len(self.words), np.intp)

    @property
    def squash(self) -> str:
        """What makes probabilities of the rows: ``softmax``, ``sigmoid``, or "" where nothing does."""
        return ""

    @property
    def mix(self) -> Floats | None:
        """Coefficients (N, classes) of the class scores that make the target; None where other tensors make it."""
        return None

    @property
    def readings(self) -> Mapping[str, int]:
        """Columns of :meth:`read`'s rows that read the target in another way, by its name."""
        return {}

    @property
    def serves_all(self) -> bool:
        """Whether :meth:`read` gives the scores of all targets of the kind, of which this is one column."""
        return False

    @property
    def boxes(self) -> tuple[Box | None, ...]:
        """The box that is explained in each input, in [0, 1] of its plane; None where there is none."""
        return (None,) * len(self.words)

    @abstractmethod
    def read(self, outputs: Outputs, of: Index) -> Floats:
        """Scores (B, columns) of variants, from the model's tensors for them and the input that each stems from."""

    @property
    def linear(self) -> bool:
        """Whether :meth:`slopes` are the same whatever the tensors hold."""
        return True

    def slopes(self, outputs: Outputs, of: Index) -> dict[str, Floats]:
        """Derivatives of each row's target score by the model's tensors, (B, ...) each, at `outputs`.

        Raises
        ------
        MethodError
            The target's score isn't differentiated.
        """
        raise MethodError(
            f"{self.words[0]!r} has no gradient: use a method that needs none, such as recipro-cam or rise"
        )

    def mirrored(self) -> Fixed:
        """The same target for inputs flipped from left to right."""
        return self


class Target(ABC):
    """What is explained, before a model has been asked."""

    @abstractmethod
    def describe(self) -> str:
        """The target in the words of the command line: also its part of an array's name."""

    @abstractmethod
    def tensors(self, context: Context) -> tuple[str, ...]:
        """Names of the tensors to read.

        Raises
        ------
        TargetError
            The model has nothing of the kind.
        """

    @abstractmethod
    def fix(self, context: Context, outputs: Outputs) -> Fixed:
        """Settle the target for the batch, from the tensors (N, ...) that the inputs themselves give.

        Raises
        ------
        TargetError
            Such a class, box or region doesn't exist.
        """


@dataclass(frozen=True)
class Options:
    """What goes with a target's text.

    Attributes
    ----------
    labels : tuple of str or None
    gamma : float
        Share of the other classes that a contrast takes off.
    decoder : str or None
        How a detector's outputs are read; found by their shapes where None.
    """

    labels: tuple[str, ...] | None = None
    gamma: float = 1.0
    decoder: str | None = None
