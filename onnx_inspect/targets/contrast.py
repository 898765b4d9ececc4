"""What tells a class from similar ones: its score less a share of theirs (Finer-CAM, Zhang et al. 2025).

arXiv:2501.11309: ``f_c - gamma * mean over d of f_d``, on logits, for any method. A larger gamma leaves finer details;
0 is the class alone. The default of 1 is pytorch-grad-cam's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_inspect.errors import TargetError
from onnx_inspect.targets._base import Context, Fixed, Floats, Index, Options, Outputs, Target
from onnx_inspect.targets._scores import label, matrix
from onnx_inspect.targets.category import ClassTarget, find, scores_of

SIMILAR = 3  # classes that a class is told from where none are named, as in the paper


@dataclass(frozen=True)
class ContrastTarget(Target):
    """A class against others.

    Attributes
    ----------
    main : ClassTarget
    others : tuple of int
        Where empty, each input's three classes with the scores closest to the class's own.
    gamma : float
    text : str
        As it was given; made of the indices where "".
    """

    main: ClassTarget
    others: tuple[int, ...] = ()
    gamma: float = 1.0
    text: str = ""

    def describe(self) -> str:
        """Give ``class~others``."""
        return self.text or f"{self.main.describe()}~{','.join(map(str, self.others))}"

    def tensors(self, context: Context) -> tuple[str, ...]:
        """Name the class scores: the logits where they can be had."""
        return (scores_of(context),)

    def fix(self, context: Context, outputs: Outputs) -> FixedMix:
        """Choose each input's class and those to tell it from."""
        name = scores_of(context)
        scores = matrix(outputs[name])
        classes = self.main.indices(scores)
        others = [self._others(row, int(c)) for row, c in zip(scores, classes, strict=True)]
        coefficients = np.zeros_like(scores)
        for n, (c, unlike) in enumerate(zip(classes, others, strict=True)):
            coefficients[n, unlike] = -self.gamma / len(unlike)
            coefficients[n, c] += 1.0
        labels = context.batch.labels
        words = tuple(
            f"{label(labels, int(c))} ~ {', '.join(label(labels, int(d)) for d in unlike)}"
            for c, unlike in zip(classes, others, strict=True)
        )
        return FixedMix(words, np.full(len(scores), -1), (), name, coefficients)

    def _others(self, scores: Floats, main: int) -> Index:
        if self.others:
            if max(self.others) >= len(scores):
                raise TargetError(
                    f"class {max(self.others)} doesn't exist: the model scores classes 0 to {len(scores) - 1}"
                )
            return np.array(self.others)
        if len(scores) < 2:
            raise TargetError("a contrast needs a second class, but the model gives one score")
        nearest = np.argsort(np.abs(scores - scores[main]), kind="stable")
        return nearest[nearest != main][:SIMILAR]


@dataclass(frozen=True)
class FixedMix(Fixed):
    """A weighted sum of class scores for each input."""

    tensor: str
    coefficients: Floats

    @property
    def mix(self) -> Floats:
        """The weights, (N, classes)."""
        return self.coefficients

    def read(self, outputs: Outputs, of: Index) -> Floats:
        """The sums."""
        return np.einsum("bc,bc->b", matrix(outputs[self.tensor]), self.coefficients[of])[:, None]

    def slopes(self, outputs: Outputs, of: Index) -> dict[str, Floats]:
        """The weights."""
        return {self.tensor: self.coefficients[of].reshape(outputs[self.tensor].shape)}


def parse(text: str, options: Options) -> tuple[ContrastTarget]:
    """Read ``cat~dog,fox``; without a class before the ~ each input's best, without others the most similar ones.

    Raises
    ------
    TargetError
        A label is unknown or fits several classes.
    """
    first, _, rest = text.partition("~")
    main = ClassTarget() if first.strip() in ("", "top-1", "top1") else ClassTarget(find(first.strip(), options.labels))
    others = _labels(rest.strip(), options.labels) if rest.strip() else ()
    if main.index in others:
        raise TargetError(f"target {text!r} tells class {main.index} from itself")
    return (ContrastTarget(main, others, options.gamma, text),)


def _labels(text: str, labels: Sequence[str] | None) -> tuple[int, ...]:
    """One label that may hold commas itself, or several between commas."""
    if labels and text.lower() in [label.lower() for label in labels]:
        return (find(text, labels),)
    return tuple(find(part.strip(), labels) for part in text.split(",") if part.strip())
