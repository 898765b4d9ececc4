"""ShapleyCAM: Grad-CAM with the second order of the score's Taylor series (Cai 2025, arXiv:2501.06261).

``w_k = mean over positions of (g - H A / 2)_k``, ``L = sum_k w_k A_k``: g is the gradient of the score by the
activations A, H the matrix of its second derivatives, as in pytorch-grad-cam; the paper's own score is y + log p, which
bends where the logit of a piecewise linear network doesn't. There, and on a linear tail, H is 0 and this is Grad-CAM;
it differs behind attention, GELU, SiLU and normalisation. Cost: one pass, one of the tail and its gradient, and one of
these and their gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.cam._probe import Maps, Probe

CLASS_AWARE = True
WEIGHTS_CHANNELS = True


@dataclass(frozen=True)
class Params:
    """ShapleyCAM has no parameters."""


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w), signed."""
    values = probe.layer_gradients().astype(np.float64) - 0.5 * probe.layer_curvature()
    return probe.weighted(values.reshape(*values.shape[:2], -1).mean(axis=2))
