"""Gradient times input: each pixel's share of a linear score (Shrikumar, Greenside and Kundaje 2017, arXiv:1605.01713).

``L = sum over channels of x dy/dx``, signed. On a model that is linear in its input the shares add up to the score less
the score of zeros. Cost: one pass, and one with its gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.cam._probe import Maps, Probe

CLASS_AWARE = True
RESOLUTION = "input"
USES_LAYER = False
ON_TOKENS = True


@dataclass(frozen=True)
class Params:
    """It has no parameters."""


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, H, W), signed."""
    gradients = probe.input_gradients(lambda rows: probe.inputs[rows], np.arange(len(probe.inputs)))
    return (probe.inputs * gradients).sum(axis=1, dtype=np.float64).astype(np.float32)
