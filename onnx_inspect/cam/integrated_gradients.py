"""Integrated gradients: shares of the score that add up (Sundararajan, Taly and Yan 2017, arXiv:1703.01365).

``L = sum over channels of (x - x') * mean over steps of dy/dx at x' + t (x - x')``, with the midpoints of `steps`
equal parts of [0, 1] for t. Completeness: the map sums to ``f(x) - f(x')`` as the steps get finer, exactly so on a
linear model; how far it does is said beside the map. The baseline x' is of zeros, of each channel's mean, or a blur of
the input (``fill``). Cost: `steps` passes with their gradients, and one of the baseline.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.cam._masking import background, check_fill
from onnx_inspect.cam._params import at_least
from onnx_inspect.cam._probe import Index, Maps, Probe

CLASS_AWARE = True
RESOLUTION = "input"
USES_LAYER = False
ON_TOKENS = True


@dataclass(frozen=True)
class Params:
    """How many steps, and the baseline that they start from."""

    steps: int = 50
    fill: str = "zero"

    def __post_init__(self) -> None:
        """Check the values."""
        at_least("steps", self.steps, 1)
        check_fill(self.fill)


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, H, W), signed, in the score's own unit."""
    base = background(probe.inputs, params.fill)
    start = np.zeros_like(probe.inputs) if base is None else np.broadcast_to(base, probe.inputs.shape)
    times = (np.arange(params.steps, dtype=np.float32) + 0.5) / params.steps
    maps = []
    for n, one in enumerate(probe.inputs):
        way = one - start[n]

        def rows(positions: Index, n: int = n, way: Maps = way) -> Maps:
            return start[n] + times[positions][:, None, None, None] * way

        gradients = probe.input_gradients(rows, np.full(params.steps, n))
        maps.append((way * gradients.mean(axis=0, dtype=np.float64)).sum(axis=0))
    if probe.account is not None:
        of = np.arange(len(probe.inputs))
        change = probe.base_scores() - probe.scores(lambda rows: start[rows], of)
        probe.account.close(np.array([one.sum(dtype=np.float64) for one in maps]), change)
    return np.stack(maps).astype(np.float32)
