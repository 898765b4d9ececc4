"""Saliency: the gradient of the score by the input, its largest channel (Simonyan et al. 2013, arXiv:1312.6034).

``L = max over channels |dy/dx|``, y the logit where the graph has one: what an infinitesimal change of a pixel does,
whatever its direction. Noisy on deep networks: smooth-grad is its average. Cost: one pass, and one with its gradient.
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
    """Saliency has no parameters."""


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, H, W), non-negative."""
    of = np.arange(len(probe.inputs))
    return np.abs(probe.input_gradients(lambda rows: probe.inputs[rows], of)).max(axis=1)
