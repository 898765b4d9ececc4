"""Grad-CAM elementwise: gradients times activations, kept where they are positive, as in pytorch-grad-cam (2021).

``L = sum_k relu(A_k dy/dA_k)``: HiRes-CAM without what speaks against the target. Cost: one pass, and one of the tail
and its gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.cam._probe import Maps, Probe

CLASS_AWARE = True


@dataclass(frozen=True)
class Params:
    """It has no parameters."""


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w), non-negative."""
    products = np.maximum(probe.activations * probe.layer_gradients(), 0)
    return products.sum(axis=1, dtype=np.float64).astype(np.float32)
