"""Mean activation: the channels' average, the class-blind baseline that every other map must beat.

``L = 1/K sum_k A_k``: activation-based attention (Zagoruyko and Komodakis, ICLR 2017, arXiv:1612.03928, F_sum) over K.
``absolute=true`` averages ``|A_k|``, as they do where activations may be negative. It looks at no class: the map is the
same for every target.
Cost: one pass up to the layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.cam._probe import Maps, Probe

CLASS_AWARE = False


@dataclass(frozen=True)
class Params:
    """Whether signs are dropped before averaging."""

    absolute: bool = False


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w), signed where the activations are."""
    values = np.abs(probe.activations) if params.absolute else probe.activations
    return values.mean(axis=1, dtype=np.float64).astype(np.float32)
