"""A class's score: by index or label, or each input's own best, second best, ... one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_inspect.errors import TargetError
from onnx_inspect.targets._base import Context, Fixed, Floats, Index, Options, Outputs, Target
from onnx_inspect.targets._scores import are_probabilities, label, matrix


@dataclass(frozen=True)
class ClassTarget(Target):
    """A class by its index, or each input's own one of some rank.

    Attributes
    ----------
    index : int or None
    rank : int
        0 for each input's best class, 1 for its second best; counts where `index` is None.
    name : str
        The label, where it was given by one.
    """

    index: int | None = None
    rank: int = 0
    name: str = ""

    def describe(self) -> str:
        """Give the label, the index, or ``top-2`` for the second best."""
        return self.name or (f"top-{self.rank + 1}" if self.index is None else str(self.index))

    def indices(self, scores: Floats) -> Index:
        """Class of each row of `scores`, (N, classes), as (N,).

        Raises
        ------
        TargetError
            The class is not among the scores.
        """
        count = scores.shape[1]
        wanted = self.rank if self.index is None else self.index
        if not 0 <= wanted < count:
            what = f"class {wanted}" if self.index is not None else f"a class of rank {wanted + 1}"
            raise TargetError(f"{what} doesn't exist: the model scores classes 0 to {count - 1}")
        if self.index is not None:
            return np.full(len(scores), self.index, np.intp)
        return np.argsort(-scores, axis=1, kind="stable")[:, self.rank]

    def tensors(self, context: Context) -> tuple[str, ...]:
        """Name the class scores: the logits where they can be had."""
        return (scores_of(context),)

    def fix(self, context: Context, outputs: Outputs) -> FixedClass:
        """Choose each input's class."""
        name = scores_of(context)
        scores = matrix(outputs[name])
        classes = self.indices(scores)
        words = tuple(label(context.batch.labels, int(c)) for c in classes)
        return FixedClass(words, classes, (), name, scores.shape[1], squash_of(context, scores))


@dataclass(frozen=True)
class FixedClass(Fixed):
    """One class of each input, out of `count` whose scores are the tensor `tensor`."""

    tensor: str
    count: int
    activation: str

    @property
    def columns(self) -> Index:
        """The classes."""
        return self.classes

    @property
    def serves_all(self) -> bool:
        """Every class has its column."""
        return True

    @property
    def squash(self) -> str:
        """What the model itself, or custom, makes of its class scores."""
        return self.activation

    @property
    def mix(self) -> Floats:
        """1 for the class, 0 for the others."""
        mix = np.zeros((len(self.classes), self.count))
        mix[np.arange(len(mix)), self.classes] = 1.0
        return mix

    def read(self, outputs: Outputs, of: Index) -> Floats:
        """Scores of all classes."""
        return matrix(outputs[self.tensor])

    def slopes(self, outputs: Outputs, of: Index) -> dict[str, Floats]:
        """1 for the class, 0 for the others."""
        return {self.tensor: self.mix[of].reshape(outputs[self.tensor].shape)}


@dataclass(frozen=True)
class EveryClass(Target):
    """All classes, one after the other; :meth:`each` needs to know how many there are."""

    labels: tuple[str, ...] | None = None

    def describe(self) -> str:
        """Give its word."""
        return "all"

    def tensors(self, context: Context) -> tuple[str, ...]:
        """Name the class scores."""
        return (scores_of(context),)

    def each(self, count: int) -> tuple[ClassTarget, ...]:
        """A target for each class."""
        return tuple(ClassTarget(i, name=label(self.labels, i) if self.labels else "") for i in range(count))

    def fix(self, context: Context, outputs: Outputs) -> Fixed:
        """Refuse: these are several targets."""
        raise TargetError("'all' is one map for each class: explain the classes one by one")


@dataclass(frozen=True)
class GivenClasses(Target):
    """A class of its own for each input, chosen elsewhere: by another model, for one.

    Attributes
    ----------
    indices : tuple of int
    """

    indices: tuple[int, ...]

    def describe(self) -> str:
        """Give its word."""
        return "given"

    def tensors(self, context: Context) -> tuple[str, ...]:
        """Name the class scores."""
        return (scores_of(context),)

    def fix(self, context: Context, outputs: Outputs) -> FixedClass:
        """Take the classes as they are."""
        name = scores_of(context)
        scores = matrix(outputs[name])
        if wrong := [index for index in self.indices if not 0 <= index < scores.shape[1]]:
            ClassTarget(wrong[0]).indices(scores)  # says so
        words = tuple(label(context.batch.labels, index) for index in self.indices)
        classes = np.array(self.indices, np.intp)
        return FixedClass(words, classes, (), name, scores.shape[1], squash_of(context, scores))


def parse(text: str, options: Options) -> tuple[Target, ...]:
    """Read a class index, a label (whole, a synonym, or a unique part), ``top-3`` (three targets) or ``all``.

    Raises
    ------
    TargetError
        The label is unknown or fits several classes, or there are no labels to look it up in.
    """
    if text == "all":
        return (EveryClass(options.labels),)
    if ranks := re.fullmatch(r"top-?(\d+)", text):
        if not int(ranks[1]):
            raise TargetError("top-0 names no class: top-1 is the best")
        return tuple(ClassTarget(rank=rank) for rank in range(int(ranks[1])))
    return (ClassTarget(find(text, options.labels), name="" if text.lstrip("-").isdigit() else text),)


def find(text: str, labels: Sequence[str] | None) -> int:
    """Look up a class: its index, or a label (whole, one of its synonyms, or a unique part).

    Raises
    ------
    TargetError
        The label is unknown or fits several classes, or there are no labels to look it up in.
    """
    if text.lstrip("-").isdigit():
        index = int(text)
        if index < 0 or (labels is not None and index >= len(labels)):
            raise TargetError(f"class {index} doesn't exist" + (f": there are {len(labels)} labels" if labels else ""))
        return index
    if not labels:
        raise TargetError(f"target {text!r} is a label, but no labels are known: give --labels FILE or a class index")
    wanted = text.strip().lower()
    whole = [i for i, label in enumerate(labels) if label.lower() == wanted]
    synonym = [i for i, label in enumerate(labels) if wanted in [part.strip().lower() for part in label.split(",")]]
    part = [i for i, label in enumerate(labels) if wanted in label.lower()]
    for found in (whole, synonym, part):
        if len(found) == 1:
            return found[0]
        if found:
            several = ", ".join(f"{i} {labels[i]!r}" for i in found[:4])
            raise TargetError(
                f"target {text!r} fits {len(found)} classes ({several}, ...): name one, or give its index"
            )
    near = difflib.get_close_matches(text, labels, n=3, cutoff=0.5)
    hint = f"; closest: {', '.join(map(repr, near))}" if near else ""
    raise TargetError(f"target {text!r} is none of the {len(labels)} labels{hint}")


def scores_of(context: Context) -> str:
    """Tensor of the class scores.

    Raises
    ------
    TargetError
        There is none.
    """
    if context.classifier is None:
        raise TargetError(context.reason)
    return context.classifier.scores


def squash_of(context: Context, scores: Floats) -> str:
    """What makes probabilities of class scores: nothing where they are probabilities, or a single unbounded number."""
    own = context.classifier.squash if context.classifier is not None else ""
    if own:
        return "sigmoid" if own == "Sigmoid" else "softmax"
    return "" if scores.shape[1] == 1 or are_probabilities(scores) else "softmax"
