"""How a map becomes smoother by looking at changed copies of the input (pytorch-grad-cam's aug_smooth)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from onnx_inspect.analysis.saliency import to_unit
from onnx_inspect.cam._probe import Maps
from onnx_inspect.errors import MethodError
from onnx_inspect.forms import present_input, restore_input
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.scene import Scene

FACTORS = (0.9, 1.0, 1.1)  # of the preprocessed input
AUGMENTATIONS = tuple((flip, factor) for flip in (False, True) for factor in FACTORS)


def augmented(view: Scene, attribute: Callable[[Scene], Maps]) -> Maps:
    """Average the maps of six copies of each input, each cut at 0 and scaled to [0, 1], flipped back where it was.

    The target is the one that the input itself settles: the same class, the box or the pixels flipped with the picture.

    Returns
    -------
    ndarray, (N, h, w), float32, in [0, 1]
    """
    if view.batch.read_as is not None:
        raise MethodError("--smooth augment flips and scales pictures: a text has no such variants")
    total: Maps | None = None
    for flip, factor in AUGMENTATIONS:
        settled = None
        if view.target is not None:
            settled = view.fixed.mirrored() if flip else view.fixed
        values = attribute(view.of(_changed(view.batch, flip, factor), settled=settled))
        values = values[..., ::-1] if flip else values
        units = np.stack([to_unit(one) for one in values])
        total = units if total is None else total + units
    assert total is not None
    return np.asarray(total / len(AUGMENTATIONS), np.float32)


def _changed(batch: Batch, flip: bool, factor: float) -> Batch:
    """The batch with its perturbed input flipped from left to right and multiplied."""
    shown = present_input(batch) * np.float32(factor)
    array = restore_input(np.ascontiguousarray(shown[..., ::-1] if flip else shown), batch)
    return replace(batch, arrays={**batch.arrays, batch.primary: array})
