"""Grad-CAM: channels weighted by the mean of their gradients (Selvaraju et al. 2017, arXiv:1610.02391).

``w_k = mean over positions of dy/dA_k``, ``L = sum_k w_k A_k`` (the paper's ReLU is left to the drawing); y is the
logit where the graph has one. The gradient is itself a graph of ONNX nodes, run by the same runtime. On global
average pooling and one linear layer it is CAM over the number of positions. The mean over positions loses where a
gradient lies: for a detector's box, whose gradient lies at the box, hires-cam keeps it. Cost: one pass, and one of the
tail and its gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.cam._probe import Maps, Probe

CLASS_AWARE = True
WEIGHTS_CHANNELS = True


@dataclass(frozen=True)
class Params:
    """Grad-CAM has no parameters."""


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w), signed."""
    gradients = probe.layer_gradients()
    return probe.weighted(gradients.reshape(*gradients.shape[:2], -1).mean(axis=2, dtype=np.float64))
