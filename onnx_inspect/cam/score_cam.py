"""Score-CAM: channels weighted by the score of the input they mask (Wang et al. 2020, arXiv:1910.01279).

``H_k = N(U(A_k))``, ``s_k = f_c(x * H_k) - f_c(x_b)``, ``alpha = softmax over k (s)``, ``L = sum_k alpha_k A_k`` (the
paper's ReLU is left to the drawing). U is bilinear with half-pixel centres, N scales to [0, 1]; the mask multiplies the
preprocessed input; the baseline's score cancels in the softmax. Constant channels mask everything and share one run.

Scores are logits where the graph has them before a last Softmax: probabilities of an unlikely class are so small that
the softmax over channels turns uniform and the map into the mean activation (``score=probability`` gives that variant).
Cost: K + 1 full passes. With ``passes=n`` an estimate from n of them: masks are grouped by k-means, the mask nearest to
each group's centre is run, and stands for the group's scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from onnx_inspect.cam._channels import channel_masks
from onnx_inspect.cam._probe import Index, Maps, Probe
from onnx_inspect.ops import normalise, softmax

CLASS_AWARE = True
WEIGHTS_CHANNELS = True


@dataclass(frozen=True)
class Params:
    """Which scores weigh the channels (``logit`` or ``probability``), and how many masks to run (0: all)."""

    score: str = "logit"
    passes: int = 0

    def __post_init__(self) -> None:
        """Check the choices."""
        if self.score not in ("logit", "probability"):
            raise ValueError(f"score is 'logit' or 'probability', got {self.score!r}")
        if self.passes < 0:
            raise ValueError(f"passes is 0 for all masks, or how many to run, got {self.passes}")


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w), non-negative where the activations are."""
    masks = channel_masks(probe, _speakers(probe, params.passes) if params.passes else None)

    def rows(positions: Index) -> Maps:
        return probe.inputs[masks.of[positions]] * masks.make(positions)[:, None]

    scores = probe.scores(rows, masks.of, probability=params.score == "probability")
    return probe.weighted(softmax(masks.spread(scores)))


def _speakers(probe: Probe, passes: int) -> Index:
    """Whose mask is run for each channel, (N, K): its own, or its group's central one."""
    count, channels = probe.activations.shape[:2]
    masks = normalise(probe.activations)[0].reshape(count, channels, -1)
    speaker = np.arange(count * channels).reshape(count, channels)
    for n in range(count):
        alive = np.flatnonzero(masks[n].any(axis=1))
        if passes < len(alive):
            speaker[n, alive] = n * channels + alive[_central(masks[n, alive], passes, probe.rng)]
    return speaker


def _central(masks: Maps, groups: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Group masks (K, h*w) by k-means; return for each the member nearest to its group's centre, (K,)."""
    from sklearn.cluster import KMeans

    with threadpool_limits(1):
        means = KMeans(groups, n_init=1, random_state=int(rng.integers(2**31))).fit(masks)
    distance = ((masks - means.cluster_centers_[means.labels_]) ** 2).sum(axis=1)
    nearest = [np.flatnonzero(means.labels_ == g)[np.argmin(distance[means.labels_ == g])] for g in range(groups)]
    return np.asarray(nearest, np.intp)[means.labels_]
