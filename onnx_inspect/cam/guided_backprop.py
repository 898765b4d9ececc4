"""Guided backpropagation: only what raises the score passes rectifiers (Springenberg et al. 2014, arXiv:1412.6806).

``L = max over channels |r|``, where r is the gradient by the input with every rectifier (ReLU, ReLU6) passing on only
positive gradients, on top of its own rule. Sharp, but it is no gradient of the score: it hardly depends on the class
(Adebayo et al. 2018), so read it as a drawing of edges that the network uses. Without rectifiers it is saliency. Cost:
one pass, and one with its gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.cam._probe import Maps, Probe

CLASS_AWARE = True
RESOLUTION = "input"
USES_LAYER = False


@dataclass(frozen=True)
class Params:
    """Guided backpropagation has no parameters."""


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, H, W), non-negative."""
    of = np.arange(len(probe.inputs))
    return np.abs(probe.guided_gradients(lambda rows: probe.inputs[rows], of)).max(axis=1)
