"""Which tensor of a model scores each pixel for each class, and which pixels are explained in it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import TargetError
from onnx_inspect.graph.classifier import CARRIERS
from onnx_inspect.graph.constants import attribute
from onnx_inspect.graph.spatial import spatial
from onnx_inspect.targets._base import Box, Context, Fixed, Floats, Index, Outputs
from onnx_inspect.targets._plane import mirrored_box

Masks = NDArray[np.bool_]
ENLARGING = frozenset("Resize Upsample QuantizeLinear DequantizeLinear Cast Identity".split())
PICTURE = 4  # maps that may be a picture's channels
CLOSING = {"ArgMax": 0, "Softmax": -1, "LogSoftmax": -1, "Sigmoid": 1}  # and their axes where none is said


@dataclass(frozen=True)
class Segmenter:
    """Where class scores of pixels are.

    Attributes
    ----------
    tensor : str
        Scores before an ArgMax, a Softmax or a Sigmoid, and before they are only enlarged.
    axis : int
        Of the classes.
    threshold : float
        Above it a single class counts as predicted.
    sure : bool
        Whether the model closes them as scores are closed, or has many: three maps alone may be a picture.
    """

    tensor: str
    axis: int
    threshold: float
    sure: bool

    def maps(self, outputs: Outputs) -> NDArray[np.floating]:
        """Scores as (B, classes, h, w)."""
        return np.moveaxis(outputs[self.tensor], self.axis, 1)


def segmenter(context: Context) -> Segmenter:
    """Find the maps of class scores.

    Raises
    ------
    TargetError
        No output is one.
    """
    model = context.model
    readings = spatial(model, context.shapes)
    for output in model.outputs:
        name = output.name
        while (node := model.producers.get(name)) is not None and node.op_type in CARRIERS - {"Transpose", "Reshape"}:
            name = node.input[0]
        threshold, axis = 0.5, None
        if node is not None and node.op_type in CLOSING:
            axis = int(attribute(node, "axis", CLOSING[node.op_type])) if node.op_type != "Sigmoid" else None
            threshold, name = 0.0, node.input[0]
        shape = context.shapes.get(name, ())
        if len(shape) != 4 or not model.tensor(name).is_float:
            continue
        if axis is None:
            reading = readings.get(name)
            axis = 3 if reading is not None and reading.form == "channels-last" else 1
        axis %= 4
        if axis in (1, 3) and min(shape[2:] if axis == 1 else shape[1:3]) > 1:
            sure = node is not None and node.op_type in CLOSING
            return Segmenter(_before_enlarging(context, name, axis), axis, threshold, sure or shape[axis] > PICTURE)
    forms = "; ".join(f"{o.name!r} is {o.describe()}" for o in model.outputs[:3])
    raise TargetError(f"{model.source} gives no class scores for pixels: {forms}")


def _before_enlarging(context: Context, name: str, axis: int) -> str:
    """Follow scores up through what only enlarges or rounds them: the same scores, for fewer pixels."""
    model, found = context.model, name
    count = context.shapes[name][axis]
    while (node := model.producers.get(name)) is not None and node.op_type in ENLARGING:
        name = node.input[0]
        shape = context.shapes.get(name, ())
        if len(shape) != 4 or shape[axis] != count or min(shape[2:] if axis == 1 else shape[1:3]) < 2:
            break
        found = name if model.tensor(name).is_float else found
    return found


def predicted(maps: NDArray[np.floating], threshold: float) -> Index:
    """Class of each pixel, (B, h, w); of a single class 0 where it is predicted and -1 elsewhere."""
    if maps.shape[1] == 1:
        return np.where(maps[:, 0] > threshold, 0, -1)
    return np.argmax(maps, axis=1)


@dataclass(frozen=True)
class FixedPixels(Fixed):
    """Pixels of each input, (N, h, w), each scored for the class `chosen` (N, h, w).

    Attributes
    ----------
    place : tuple of Box or None
        What is outlined for each input.
    """

    where: Segmenter
    masks: Masks
    chosen: Index
    place: tuple[Box | None, ...]

    @property
    def boxes(self) -> tuple[Box | None, ...]:
        """The regions, where they are boxes."""
        return self.place

    def read(self, outputs: Outputs, of: Index) -> Floats:
        """Sum of the pixels' scores."""
        maps = self.where.maps(outputs)
        totals = np.empty((len(of), 1))
        for row, n in enumerate(of):
            y, x = np.nonzero(self.masks[n])
            totals[row, 0] = maps[row, self.chosen[n, y, x], y, x].sum(dtype=np.float64)
        return totals

    def slopes(self, outputs: Outputs, of: Index) -> dict[str, Floats]:
        """1 for each pixel's class, 0 for the others."""
        slopes = np.zeros(self.where.maps(outputs).shape)
        for row, n in enumerate(of):
            y, x = np.nonzero(self.masks[n])
            slopes[row, self.chosen[n, y, x], y, x] = 1.0
        return {self.where.tensor: np.moveaxis(slopes, 1, self.where.axis)}

    def mirrored(self) -> FixedPixels:
        """The pixels flipped."""
        place = tuple(None if box is None else mirrored_box(box) for box in self.place)
        return replace(self, masks=self.masks[..., ::-1], chosen=self.chosen[..., ::-1], place=place)
