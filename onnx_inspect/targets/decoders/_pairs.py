"""Which two of a detector's outputs are its scores and its boxes, where there are only two."""

from __future__ import annotations

from onnx_inspect.targets.decoders import Shapes

FEWEST = 1000  # boxes of a grid; a transformer that predicts a set has fewer


def pair(outputs: Shapes) -> tuple[str, str] | None:
    """Name scores (N, n, classes) and boxes (N, n, 4); None where there is no such pair, or several."""
    flat = {name: shape for name, shape in outputs.items() if len(shape) == 3}
    boxes = [name for name, shape in flat.items() if shape[2] == 4]
    if len(boxes) != 1:
        return None
    scores = [n for n, shape in flat.items() if n != boxes[0] and shape[1] == flat[boxes[0]][1] and shape[2] > 1]
    return (scores[0], boxes[0]) if len(scores) == 1 else None
