"""Ablation-CAM: channels weighted by what the score loses without them (Desai and Ramaswamy, WACV 2020).

``w_k = (y - y_k) / |y|`` with y the target's score and y_k the score when channel k is set to 0 (``fill=mean``: to its
mean); ``L = sum_k w_k A_k`` (the paper's ReLU is left to the drawing). The sign survives a negative score; a score of 0
is not divided by.
Cost: one pass and K passes of the tail only; none of these where the tail is pooling and a linear layer, because
``y - y_k`` is then the channel's mean times its weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._anytime import Plan, coarse, maps
from onnx_inspect.cam._probe import Index, Maps, Probe

CLASS_AWARE = True
WEIGHTS_CHANNELS = True


@dataclass(frozen=True)
class Params:
    """What replaces an ablated channel: ``zero`` or its own ``mean``."""

    fill: str = "zero"

    def __post_init__(self) -> None:
        """Check the choice."""
        if self.fill not in ("zero", "mean"):
            raise ValueError(f"fill is 'zero' or 'mean', got {self.fill!r}")


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w), signed."""
    activations = probe.activations
    count, channels = activations.shape[:2]
    flat = activations.reshape(count, channels, -1)
    of = np.repeat(np.arange(count), channels)
    fills = flat.mean(axis=2) if params.fill == "mean" else np.zeros((count, channels), np.float32)

    def rows(positions: Index) -> Maps:
        inputs, ablated = of[positions], positions % channels
        variants = flat[inputs]
        variants[np.arange(len(positions)), ablated] = fills[inputs, ablated][:, None]
        return variants.reshape(len(positions), *activations.shape[1:])

    base = probe.base_scores()

    def made(losses: NDArray[np.float64]) -> Maps:
        return probe.weighted(losses / np.where(base == 0, 1.0, np.abs(base))[:, None])

    linear = probe.linear_weights()
    if linear is not None:
        return made(linear * (flat.mean(axis=2, dtype=np.float64) - fills))
    plan = Plan(
        rows=rows,
        of=of,
        make=lambda scores: made(base[:, None] - scores.reshape(count, channels)),
        masks=list(np.arange(len(of)).reshape(count, channels, 1)),
        features=lambda n: coarse(activations[n]).reshape(channels, -1),
        tail=True,
        weight=lambda n, known: np.linalg.norm(flat[n].astype(np.float64), axis=1),
    )
    return maps(probe, plan)
