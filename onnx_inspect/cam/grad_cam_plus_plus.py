"""Grad-CAM++: gradients weighted by how much each position counts (Chattopadhyay et al. 2018, arXiv:1710.11063).

``a = g^2 / (2 g^2 + sum over positions(A) g^3)``, ``w_k = sum over positions of a relu(g)``, ``L = sum_k w_k A_k``.
This is the paper's closed form, for the score ``exp(y)``, whose own factor cancels in `a` and scales `w` alike
everywhere. Where the denominator is 0, `a` is 0. Cost: one pass, and one of the tail and its gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.cam._probe import Maps, Probe

CLASS_AWARE = True
WEIGHTS_CHANNELS = True


@dataclass(frozen=True)
class Params:
    """Grad-CAM++ has no parameters."""


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w), non-negative where the activations are."""
    gradients = probe.layer_gradients().astype(np.float64)
    gradients = gradients.reshape(*gradients.shape[:2], -1)  # (N, K, cells)
    total = probe.activations.reshape(gradients.shape).sum(axis=2, keepdims=True, dtype=np.float64)  # (N, K, 1)
    below = 2 * gradients**2 + total * gradients**3
    shares = np.divide(gradients**2, below, out=np.zeros_like(below), where=below != 0)
    return probe.weighted((shares * np.maximum(gradients, 0)).sum(axis=2))
