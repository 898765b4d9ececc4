"""A class of a segmentation: the sum of its scores over the pixels that the model gives to it.

The pixels are those of the input as it is, and stay the same for every variant; scores are taken before the last
ArgMax, Softmax or Sigmoid, at the model's own resolution, before it only enlarges them. (pytorch-grad-cam's
SemanticSegmentationTarget.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.errors import TargetError
from onnx_inspect.targets._base import Context, Index, Options, Outputs, Target
from onnx_inspect.targets._pixels import FixedPixels, predicted, segmenter
from onnx_inspect.targets._scores import label
from onnx_inspect.targets.category import find


@dataclass(frozen=True)
class SegmentTarget(Target):
    """A class's pixels; each input's largest class but class 0, the background, where `index` is None."""

    index: int | None = None
    text: str = ""

    def describe(self) -> str:
        """Give ``segment:class``."""
        return self.text or f"segment:{'largest' if self.index is None else self.index}"

    def tensors(self, context: Context) -> tuple[str, ...]:
        """Name the scores of pixels."""
        return (segmenter(context).tensor,)

    def fix(self, context: Context, outputs: Outputs) -> FixedPixels:
        """Find each input's pixels of the class."""
        where = segmenter(context)
        maps = where.maps(outputs)
        count = maps.shape[1]
        if self.index is not None and self.index >= count:
            raise TargetError(f"class {self.index} doesn't exist: the model scores classes 0 to {count - 1}")
        given = predicted(maps, where.threshold)  # (N, h, w)
        classes = np.array([self._class(pixels, count, context, n) for n, pixels in enumerate(given)])
        masks = given == classes[:, None, None]
        labels = context.batch.labels
        words = []
        for n, (index, mask) in enumerate(zip(classes, masks, strict=True)):
            name = label(labels, int(index)) if labels else f"class {index}"
            if not mask.any():
                raise TargetError(f"no pixel of {context.batch.sources[n]} is {name}: there is no segment to explain")
            words.append(f"{name}, {mask.mean():.1%} of the pixels")
        said = f"target: {'; '.join(words)}; choose another with --target segment:CLASS" if self.index is None else ""
        chosen = np.broadcast_to(classes[:, None, None], masks.shape)
        nothing = (None,) * len(words)
        return FixedPixels(
            tuple(words), np.full(len(words), -1), (said,) if said else (), where, masks, chosen, nothing
        )

    def _class(self, pixels: Index, count: int, context: Context, n: int) -> int:
        if self.index is not None:
            return self.index
        areas = np.bincount(pixels[pixels >= 0], minlength=count)
        if count > 1:
            areas[0] = 0
        if not areas.any():
            raise TargetError(f"all of {context.batch.sources[n]} is background: name a class, --target segment:CLASS")
        return int(np.argmax(areas))


def parse(text: str, options: Options) -> tuple[SegmentTarget]:
    """Read a class index or label; ``largest`` for each input's own.

    Raises
    ------
    TargetError
        An unknown class.
    """
    index = None if text == "largest" else find(text, options.labels)
    return (SegmentTarget(index, f"segment:{text}"),)
