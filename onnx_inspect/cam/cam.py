"""CAM: the class's own weights over the last maps (Zhou et al. 2016, arXiv:1512.04150).

``L = sum_k W[c, k] A_k``, without the bias and without a ReLU. Exact where global average pooling and one linear layer
follow the maps: the mean of `L` over positions plus the bias is the class's score. On such a tail Grad-CAM equals it up
to a positive constant. A quantised tail is linear but for its rounding, and is let pass. Cost: one pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx_inspect.cam._probe import Maps, Probe

CLASS_AWARE = True
WEIGHTS_CHANNELS = True
TOLERANCE = 0.1  # of the scores' range: a quantised tail rounds at every step


@dataclass(frozen=True)
class Params:
    """CAM has no parameters."""


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w), signed.

    Raises
    ------
    MethodError
        What follows the layer is not global average pooling and one linear layer.
    """
    return probe.weighted(probe.weights(TOLERANCE))
