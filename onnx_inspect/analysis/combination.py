"""How several maps become one: maps of several layers, or the weighted channels of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from onnx_inspect import ops
from onnx_inspect.analysis.saliency import to_unit
from onnx_inspect.cam._probe import Attribution, Maps
from onnx_inspect.errors import MethodError

WAYS: Mapping[str, Callable[[Maps], Maps]] = {
    "mean": lambda stack: stack.mean(axis=0),
    "max": lambda stack: stack.max(axis=0),
    "product": lambda stack: stack.prod(axis=0),
}


def combine(attributions: Sequence[Attribution], how: str) -> Attribution:
    """Make one Attribution of a method's maps at several layers.

    Each map is cut at 0 and scaled to [0, 1] first, then resized to the finest of the grids; a flat one counts as 0.

    Parameters
    ----------
    how : {'mean', 'max', 'product'}

    Returns
    -------
    Attribution
        Values in [0, 1]; passes and seconds are the sums.

    Raises
    ------
    MethodError
        An unknown way.
    """
    if how not in WAYS:
        raise MethodError(f"unknown way to combine layers {how!r}; there are: {', '.join(WAYS)}")
    first = attributions[0]
    if len(attributions) == 1:
        return first
    if first.concepts is not None:
        raise MethodError(f"{first.method} finds other concepts at each layer, which can't become one map")
    size = tuple(max(extents) for extents in zip(*(a.values.shape[1:] for a in attributions), strict=True))
    stack = np.stack([ops.resize(np.stack([to_unit(m) for m in a.values]), size) for a in attributions])
    return replace(
        first,
        values=np.asarray(WAYS[how](stack), np.float32),
        layer=" + ".join(a.layer for a in attributions),
        params={**first.params, "combine": how},
        passes=sum(a.passes for a in attributions),
        tail_passes=sum(a.tail_passes for a in attributions),
        seconds=sum(a.seconds for a in attributions),
    )
