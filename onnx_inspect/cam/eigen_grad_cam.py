"""Eigen-Grad-CAM: the first principal component of activations times gradients, as in pytorch-grad-cam (2021).

``L = (A * dy/dA) v1`` with the product as (positions, channels), centred over positions, and v1 its first right
singular vector; the vector's sign is chosen so that the map goes with the sum over channels, which is HiRes-CAM.
Cost: one pass, and one of the tail and its gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.cam._component import principal_component
from onnx_inspect.cam._probe import Maps, Probe

CLASS_AWARE = True


@dataclass(frozen=True)
class Params:
    """Eigen-Grad-CAM has no parameters."""


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w), signed; 0 where nothing varies."""
    return principal_component(np.ones(probe.activations.shape[:2]), probe.activations * probe.layer_gradients())
