"""FEM: channels' unusually strong positions, weighted by the channels' means (Fuad et al., IPTA 2020, hal-02963298).

``B_k = 1[A_k >= mu_k + c sigma_k]`` with mu_k and sigma_k over a channel's positions and c = 2;
``L = sum_k mu_k B_k``. pytorch-grad-cam weighs the activations by the share of strong positions instead,
``L = sum_k mean(B_k) A_k`` (``variant=grad-cam``). A map of few cells may hold no position that strong: the answer is
then 0 everywhere, and flagged. It looks at no class: the map is the same for every target.
Cost: one pass up to the layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.cam._params import at_least, one_of
from onnx_inspect.cam._probe import Maps, Probe

CLASS_AWARE = False


@dataclass(frozen=True)
class Params:
    """How many standard deviations above its channel's mean a position must lie, and whose formula is used."""

    sigmas: float = 2.0
    variant: str = "paper"

    def __post_init__(self) -> None:
        """Check the values."""
        at_least("sigmas", self.sigmas, 0)
        one_of("variant", self.variant, "paper", "grad-cam")


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w): signed where the channels' means are."""
    activations = probe.activations.astype(np.float64)  # (N, K, h, w)
    cells = tuple(range(2, activations.ndim))
    mean = activations.mean(axis=cells, keepdims=True)
    strong = activations >= mean + params.sigmas * activations.std(axis=cells, keepdims=True)
    if params.variant == "grad-cam":
        maps = (strong.mean(axis=cells, keepdims=True) * activations).sum(axis=1)
    else:
        maps = (mean * strong).sum(axis=1)
    return maps.astype(np.float32)
