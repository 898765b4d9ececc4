"""SS-CAM: Score-CAM's channel scores averaged over noisy masks (Wang et al. 2020, arXiv:2006.14255).

``s_k = mean_i f_c(x * (H_k + e_i))`` with ``H_k = N(U(A_k))`` as in Score-CAM and ``e_i ~ N(0, sigma^2)`` for every
pixel, 35 draws, sigma = 2; ``alpha = softmax over k (s)``, ``L = sum_k alpha_k A_k`` (the paper's ReLU is left to the
drawing). ``noise=input`` is the paper's second variant: ``s_k = mean_i f_c(x * H_k + e_i)``, the noise in units of the
input's own standard deviation.

All channels and inputs share the draws (torch-cam draws anew for each): every score has the same distribution, and
their differences, which are all that the softmax reads, less noise. Scores are logits where the graph has them, as in
Score-CAM. Constant channels share one mask.
Cost: 35 K full passes; under a budget the masks that the map hangs on most come first, each with as many draws as leave
room for 64 masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.cam import _anytime
from onnx_inspect.cam._channels import channel_masks
from onnx_inspect.cam._params import at_least, one_of, score_kind
from onnx_inspect.cam._probe import Index, Maps, Probe

CLASS_AWARE = True
WEIGHTS_CHANNELS = True


@dataclass(frozen=True)
class Params:
    """Draws, the noise's standard deviation, what it is added to (``mask`` or ``input``), and which score is read."""

    samples: int = 35
    sigma: float = 2.0
    noise: str = "mask"
    score: str = "logit"

    def __post_init__(self) -> None:
        """Check the values."""
        at_least("samples", self.samples, 1)
        at_least("sigma", self.sigma, 0)
        one_of("noise", self.noise, "mask", "input")
        score_kind(self.score)


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w), non-negative where the activations are."""
    masks = channel_masks(probe)
    seed = int(probe.rng.integers(2**63))
    spread = probe.inputs.reshape(len(probe.inputs), -1).std(axis=1, dtype=np.float64).astype(np.float32)  # (N,)

    def rows(which: Index, draws: Index) -> Maps:
        shown = masks.make(which)
        variants = np.empty((len(which), *probe.inputs.shape[1:]), np.float32)
        for draw in np.unique(draws):
            here = draws == draw
            inputs = probe.inputs[masks.of[which[here]]]
            noise = params.sigma * _noise(seed, int(draw), inputs.shape[1:], params.noise)
            if params.noise == "mask":
                variants[here] = inputs * (shown[here, None] + noise)
            else:
                strength = spread[masks.of[which[here]]].reshape(-1, *(1,) * (inputs.ndim - 1))
                variants[here] = inputs * shown[here, None] + strength * noise
        return variants

    return _anytime.maps(probe, masks.plan(probe, rows, repeats=params.samples, draws=True, score=params.score))


def _noise(seed: int, draw: int, shape: tuple[int, ...], kind: str) -> Maps:
    """Standard normal values of one draw: one for each pixel of a mask, or of every input channel."""
    size = (1, *shape[1:]) if kind == "mask" else shape
    return np.random.default_rng([seed, draw]).standard_normal(size, np.float32)
