"""Poly-CAM: maps of several depths multiplied, from the deepest to the most precise (Englebert et al. 2022).

arXiv:2204.13359. At the layer, and at the last maps of each finer resolution before it, channels are weighted by what
their masks do to the class's probability p, and the weighted sums are multiplied from deep to shallow:
``C_l = LNorm(ReLU(sum_k w_k A_k)) * U(C_l+1)``, ``LNorm(a) = a / U(D(a))``, D bilinear to the size of C_l+1. Masks M_k
are channels scaled to [0, 1] between their 0.1 and 99.9 percentiles, then enlarged. ``variant`` is ``plus`` (PCAM+),
``w = p(x * M)``; ``minus``, ``w = ReLU(p(x) - p(x * (1 - M)))``; or ``both``,
``w = ReLU(p(x * M) + p(x) - p(x * (1 - M)))``. The authors' code divides by the upper percentile alone, which is the
same for activations from 0 up. The map has the finest resolution, where finer means at least twice the cells, and is
cut at its own 99.9 percentile, as theirs.
Cost: one full pass for each channel of each of these layers, two for ``both``; constant channels share theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._anytime import Plan, coarse_size, maps
from onnx_inspect.cam._channels import ChannelMasks, channel_masks
from onnx_inspect.cam._params import one_of, score_kind
from onnx_inspect.cam._probe import Index, Maps, Probe, weighted_sum
from onnx_inspect.ops import resize

CLASS_AWARE = True
RESOLUTION = "finest"
PERCENTILES = (0.1, 99.9)
INVERSE = {"plus": (False,), "minus": (True,), "both": (False, True)}  # whether masks hide what their channel shows
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Params:
    """Which masks weigh the channels (``plus``, ``minus`` or ``both``), and which score is read."""

    variant: str = "plus"
    score: str = "probability"

    def __post_init__(self) -> None:
        """Check the values."""
        one_of("variant", self.variant, *INVERSE)
        score_kind(self.score)


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w) of the finest layer, non-negative where the activations are."""
    depths = (probe.activations, *probe.finer())
    levels = [channel_masks(probe, activations, enlarge=clipped) for activations in depths]
    ends = np.cumsum([len(level.chosen) for level in levels])  # of each level's masks among all
    distinct, inverse = int(ends[-1]), np.array(INVERSE[params.variant])
    of = np.concatenate([level.of for level in levels])

    def rows(positions: Index) -> Maps:
        turns, which = np.divmod(positions, distinct)
        depth = np.searchsorted(ends, which, side="right")
        masks = np.empty((len(which), *probe.inputs.shape[2:]), np.float32)
        for number in np.unique(depth):
            here = depth == number
            masks[here] = levels[number].make(which[here] - ends[number] + len(levels[number].chosen))
        masks[inverse[turns]] = 1 - masks[inverse[turns]]
        return probe.inputs[of[which]] * masks[:, None]

    probability = params.score == "probability"
    base = probe.base_scores(probability=probability)[of]

    def made(scores: Floats) -> Maps:
        scores = np.clip(scores, 0, 1) if probability and probe.logits else scores  # predicted ones may lie outside
        weights = np.split(weighed(scores.reshape(len(inverse), distinct), base, params.variant), ends[:-1])
        each = zip(levels, weights, depths, strict=True)
        return refined([weighted_sum(level.spread(own), activations) for level, own, activations in each])

    size = coarse_size(depths[-1].shape[2:])
    own = [np.flatnonzero(of == n)[:, None] for n in range(len(probe.inputs))]
    plan = Plan(
        rows=rows,
        of=np.tile(of, len(inverse)),
        make=made,
        masks=[which + distinct * np.arange(len(inverse)) for which in own],
        features=lambda n: np.concatenate([level.features(n, size) for level in levels]),
        probability=probability,
        weight=lambda n, _: np.concatenate([_shares(level, n) for level in levels]),
    )
    return maps(probe, plan)


def weighed(scores: Floats, base: Floats, variant: str) -> Floats:
    """Weights (V,) of masks, from the scores that they, their inverses or both leave, (1 or 2, V), and the whole's."""
    if variant == "plus":
        return np.asarray(scores[0])
    kept = scores[0] if variant == "both" else 0.0
    return np.maximum(kept + base - scores[-1], 0)


def refined(sums: list[Maps]) -> Maps:
    """Multiply weighted sums of channels (N, h, w), from deep to shallow, to the last one's resolution.

    What is above the product's upper percentile is cut: a quotient of little by next to nothing may be any size.
    """
    found = np.maximum(sums[0], 0)
    for finer in (np.maximum(one, 0) for one in sums[1:]):
        around = resize(resize(finer, found.shape[1:]), finer.shape[1:])
        found = finer / np.maximum(around, np.float32(1e-12)) * resize(found, finer.shape[1:])
    highest = np.percentile(found, PERCENTILES[1], axis=tuple(range(1, found.ndim)), keepdims=True)
    return np.asarray(np.minimum(found, highest), np.float32)


def clipped(channels: Maps, size: tuple[int, ...]) -> Maps:
    """Masks of channels (B, h, w): scaled to [0, 1] between their percentiles, then enlarged."""
    low, high = np.percentile(channels, PERCENTILES, axis=tuple(range(1, channels.ndim)), keepdims=True)
    scaled = np.clip((channels - low) / np.where(high > low, high - low, 1.0), 0, 1)
    return resize(scaled.astype(np.float32), size)


def _shares(level: ChannelMasks, n: int) -> Floats:
    """How much of its level's sum hangs on each mask of an input."""
    lengths = level.lengths(n)
    return np.asarray(lengths / (np.linalg.norm(lengths) or 1.0))
