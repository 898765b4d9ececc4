"""ViT-CX: clusters of a layer's channels as masks, each scored by what it causes (Xie et al. 2023, arXiv:2211.03064).

Each channel of the patch tokens (their embedding) is enlarged and scaled to [0, 1]; channels closer than 0.1 in cosine
distance are merged (agglomerative, complete linkage), their sum scaled to [0, 1] again: n masks M_i. With noise
``Z_i = 0.1 randn (1 - M_i)`` on what a mask hides, ``s_i = p(x * M_i + Z_i) - p(x + Z_i) + p(x)``: the score that the
mask keeps, less what the noise alone does; ``S = sum_i s_i M_i / (n sum_j M_j)`` at each pixel, as coverage is uneven.

The layer should be the last block's (the authors take its first LayerNorm), but any layer's maps will do. The noise
is in units of the input's own standard deviation, which is 1 for the authors' preprocessing. Constant channels mask
nothing and are left out; pixels that no mask shows get 0. The masks are kept at the layer's resolution.
Cost: two full passes a cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._anytime import Plan, coarse, maps
from onnx_inspect.cam._params import at_least, between, score_kind
from onnx_inspect.cam._probe import Index, Maps, Probe
from onnx_inspect.ops import resize

CLASS_AWARE = True
PLANES_ONLY = True
RESOLUTION = "input"
BLOCK = 64  # masks that exist at one time while they are measured or summed


@dataclass(frozen=True)
class Params:
    """Cosine distance below which channels are merged, the noise's size, and which score is read."""

    distance: float = 0.1
    noise: float = 0.1
    score: str = "probability"

    def __post_init__(self) -> None:
        """Check the values."""
        between("distance", self.distance, 0, 2)
        at_least("noise", self.noise, 0)
        score_kind(self.score)


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, H, W), signed: a weighted mean of scores over n. A layer of constants gives a zero map."""
    size = (probe.inputs.shape[2], probe.inputs.shape[3])
    masks = [clusters(activation, size, params.distance) for activation in probe.activations]
    counts = [len(m) for m in masks]
    stacked = np.concatenate(masks)  # (n_1 + n_2 + ..., h, w)
    of = np.repeat(np.arange(len(masks)), counts)
    rank = np.concatenate([np.arange(count) for count in counts])  # of a mask within its input
    seed = int(probe.rng.integers(2**63))
    spread = (params.noise * probe.inputs.std(axis=(1, 2, 3), dtype=np.float64)).astype(np.float32)

    def rows(positions: Index) -> Maps:
        chosen, where = np.unique(positions // 2, return_inverse=True)
        shown = resize(stacked[chosen], size)[:, None]
        noise = np.stack([spread[of[c]] * _noise(seed, int(rank[c]), probe.inputs.shape[1:]) for c in chosen])
        hidden = noise * (1 - shown)
        whole = (positions % 2 == 1)[:, None, None, None]
        return probe.inputs[of[positions // 2]] * np.where(whole, np.float32(1), shown[where]) + hidden[where]

    probability = params.score == "probability"
    base = probe.base_scores(probability=probability)
    ends = np.cumsum(counts)

    def made(scores: NDArray[np.float64]) -> Maps:
        kept, noisy = scores.reshape(-1, 2).T
        effects = np.split(kept - noisy + base[of], ends[:-1])
        return np.stack([_average(m, s, size) for m, s in zip(masks, effects, strict=True)]).astype(np.float32)

    pairs = np.arange(2 * len(of)).reshape(-1, 2)
    plan = Plan(
        rows=rows,
        of=np.repeat(of, 2),
        make=made,
        masks=np.split(pairs, ends[:-1]),
        features=lambda n: coarse(masks[n]).reshape(counts[n], -1),
        probability=probability,
    )
    return maps(probe, plan) if len(of) else made(np.zeros(0))


def clusters(activation: Maps, size: tuple[int, int], distance: float) -> Maps:
    """Masks (n, h, w) at the layer's resolution, within [0, 1] once enlarged; the widest first."""
    from scipy.cluster.hierarchy import fcluster, linkage

    maps = _scaled(activation[np.ptp(activation.reshape(len(activation), -1), axis=1) > 0], size)
    if len(maps) < 2:
        return maps
    # <U a, U b> without enlarging: U is separable, so its Gram matrices over rows and columns are enough.
    down, across = (resize(np.eye(n, dtype=np.float32), (m, n)) for n, m in zip(maps.shape[1:], size, strict=True))
    seen = (down.T @ down).astype(np.float64) @ maps @ (across.T @ across).astype(np.float64)
    products = np.tensordot(maps.astype(np.float64), seen, ((1, 2), (1, 2)))
    lengths = np.sqrt(np.diag(products))
    apart = np.maximum(1 - products / np.outer(lengths, lengths), 0)
    upper = np.triu_indices(len(maps), 1)
    label = fcluster(linkage(apart[upper], "complete"), distance, "distance")
    merged = np.stack([maps[label == value].sum(axis=0, dtype=np.float64) for value in np.unique(label)])
    masks = _scaled(merged.astype(np.float32), size)
    return masks[np.argsort(-masks.mean(axis=(1, 2)), kind="stable")]


def _scaled(maps: Maps, size: tuple[int, int]) -> Maps:
    """Shift and scale each map so that it runs from 0 to 1 once it is enlarged."""
    parts = []
    for start in range(0, len(maps), BLOCK):
        block = maps[start : start + BLOCK].astype(np.float64)
        large = resize(maps[start : start + BLOCK], size)
        low, high = (extreme(axis=(1, 2), keepdims=True).astype(np.float64) for extreme in (large.min, large.max))
        parts.append(((block - low) / np.maximum(high - low, 1e-30)).astype(np.float32))
    return np.concatenate(parts) if parts else maps


def _noise(seed: int, rank: int, shape: tuple[int, ...]) -> Maps:
    return np.random.default_rng([seed, rank]).standard_normal(shape, np.float32)


def _average(masks: Maps, effects: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """``sum s_i M_i / (n sum M_j)``, (H, W); 0 where no mask shows anything."""
    total, shown = np.zeros(size), np.zeros(size)
    for start in range(0, len(masks), BLOCK):
        large = resize(masks[start : start + BLOCK], size).astype(np.float64)
        total += np.tensordot(effects[start : start + BLOCK], large, 1)
        shown += large.sum(axis=0)
    return np.divide(total, len(masks) * shown, out=np.zeros(size), where=shown > 1e-6)
