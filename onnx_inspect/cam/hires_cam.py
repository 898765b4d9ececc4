"""HiRes-CAM: gradients and activations multiplied position by position (Draelos and Carin 2020, arXiv:2011.08891).

``L = sum_k A_k dy/dA_k``: only positions that the score hangs on light up, which averaging gradients over positions
blurs. On global average pooling and one linear layer it is Grad-CAM. Cost: one pass, and one of the tail and its
gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.cam._probe import Maps, Probe

CLASS_AWARE = True


@dataclass(frozen=True)
class Params:
    """HiRes-CAM has no parameters."""


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w), signed."""
    return (probe.activations * probe.layer_gradients()).sum(axis=1, dtype=np.float64).astype(np.float32)
