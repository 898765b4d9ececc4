"""What is being explained, read from the command line: one file per kind, named by the word before the colon."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_inspect import discover
from onnx_inspect.errors import TargetError
from onnx_inspect.targets._base import Box, Context, Fixed, Floats, Index, Options, Outputs, Target
from onnx_inspect.targets._pixels import segmenter
from onnx_inspect.targets._plane import to_picture
from onnx_inspect.targets._scores import are_probabilities, dequantised, label, matrix, probabilities
from onnx_inspect.targets.box import BoxTarget
from onnx_inspect.targets.category import ClassTarget, EveryClass, GivenClasses
from onnx_inspect.targets.contrast import ContrastTarget
from onnx_inspect.targets.output import OutputTarget
from onnx_inspect.targets.region import RegionTarget
from onnx_inspect.targets.regression import RegressionTarget
from onnx_inspect.targets.segment import SegmentTarget
from onnx_inspect.targets.similar import SimilarTarget

__all__ = [
    "Box",
    "BoxTarget",
    "ClassTarget",
    "Context",
    "ContrastTarget",
    "EveryClass",
    "Fixed",
    "Floats",
    "GivenClasses",
    "Index",
    "OutputTarget",
    "Outputs",
    "RegionTarget",
    "RegressionTarget",
    "SegmentTarget",
    "SimilarTarget",
    "Target",
    "are_probabilities",
    "dequantised",
    "label",
    "matrix",
    "parse",
    "probabilities",
    "suggest",
    "to_picture",
]


def parse(
    text: str, labels: Sequence[str] | None = None, *, gamma: float = 1.0, decoder: str | None = None
) -> tuple[Target, ...]:
    """Read a target; ``top-3`` gives three.

    Parameters
    ----------
    text : str
        A class index or label; ``top-3``; ``all``; ``cat~dog,fox``; ``regression``; ``output:NAME[0,3]``;
        ``box:x0,y0,x1,y1@class``, ``box:best``; ``segment:class``; ``region:x0,y0,x1,y1``; ``similar:@other.png``.
        A label that looks like one of these is written ``category:label``.
    labels : sequence of str, optional
    gamma : float
        Share of the other classes that a contrast takes off.
    decoder : str, optional
        How a detector's outputs are read.

    Raises
    ------
    TargetError
        Nothing of the kind exists.

    Examples
    --------
    >>> [target.describe() for target in parse("top-2")]
    ['top-1', 'top-2']
    >>> parse("cat~dog", ["cat", "dog"])[0].describe()
    'cat~dog'
    """
    text = text.strip()
    if not text:
        raise TargetError("an empty target: give a class index or label, or leave it out")
    options = Options(tuple(labels) if labels is not None else None, gamma, decoder)
    if labels is None or text not in labels:
        word, colon, rest = text.partition(":")
        kinds = discover.names(__name__)
        if word in kinds and (colon or word == "regression"):
            return tuple(discover.load(__name__, word).parse(rest, options))
        if "~" in text:
            return tuple(discover.load(__name__, "contrast").parse(text, options))
    return tuple(discover.load(__name__, "category").parse(text, options))


def suggest(context: Context) -> Target | None:
    """Choose what to explain where nobody says it: each input's best class, best box, or largest segment."""
    if context.classifier is not None:
        return ClassTarget()
    for target in (BoxTarget(), SegmentTarget()):
        try:
            target.tensors(context)
        except TargetError:
            continue
        return target if isinstance(target, BoxTarget) or segmenter(context).sure else None
    return None
