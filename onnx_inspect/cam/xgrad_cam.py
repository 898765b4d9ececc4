"""XGrad-CAM: gradients averaged by the activations they meet (Fu et al. 2020, arXiv:2008.02312).

``w_k = sum over positions of A_k dy/dA_k / sum over positions of A_k``, ``L = sum_k w_k A_k``: then the sum over L is
what the gradient and the activations say of the score (conservation). A channel that sums to 0 gets no weight. Cost:
one pass, and one of the tail and its gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.cam._probe import Maps, Probe

CLASS_AWARE = True
WEIGHTS_CHANNELS = True


@dataclass(frozen=True)
class Params:
    """XGrad-CAM has no parameters."""


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w), signed."""
    gradients = probe.layer_gradients()
    gradients = gradients.reshape(*gradients.shape[:2], -1)  # (N, K, cells)
    activations = probe.activations.reshape(gradients.shape).astype(np.float64)
    above, below = (activations * gradients).sum(axis=2), activations.sum(axis=2)  # (N, K)
    return probe.weighted(np.divide(above, below, out=np.zeros_like(above), where=below != 0))
