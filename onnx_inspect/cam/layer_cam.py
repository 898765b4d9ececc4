"""LayerCAM: activations weighted position by position by positive gradients (Jiang et al. 2021).

``L = sum_k relu(dy/dA_k) A_k`` (the paper's outer ReLU is left to the drawing): made for early layers, whose maps are
fine, and for several layers together (``--combine max``). Cost: one pass, and one of the tail and its gradient.
Paper: "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", IEEE Transactions on Image
Processing 30.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.cam._probe import Maps, Probe

CLASS_AWARE = True


@dataclass(frozen=True)
class Params:
    """LayerCAM has no parameters."""


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w), non-negative where the activations are."""
    weights = np.maximum(probe.layer_gradients(), 0)
    return (probe.activations * weights).sum(axis=1, dtype=np.float64).astype(np.float32)
