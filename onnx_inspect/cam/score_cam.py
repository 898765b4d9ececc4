"""Score-CAM: channels weighted by the score of the input they mask (Wang et al. 2020, arXiv:1910.01279).

``H_k = N(U(A_k))``, ``s_k = f_c(x * H_k) - f_c(x_b)``, ``alpha = softmax over k (s)``, ``L = sum_k alpha_k A_k`` (the
paper's ReLU is left to the drawing). U is bilinear with half-pixel centres, N scales to [0, 1]; the mask multiplies the
preprocessed input; the baseline's score cancels in the softmax. Constant channels mask everything and share one run.

Scores are logits where the graph has them before a last Softmax: probabilities of an unlikely class are so small that
the softmax over channels turns uniform and the map into the mean activation (``score=probability`` gives that variant).
Cost: K + 1 full passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.cam._probe import Index, Maps, Probe
from onnx_inspect.ops import normalise, resize, softmax

CLASS_AWARE = True


@dataclass(frozen=True)
class Params:
    """Which scores weigh the channels: ``logit`` or ``probability``."""

    score: str = "logit"

    def __post_init__(self) -> None:
        """Check the choice."""
        if self.score not in ("logit", "probability"):
            raise ValueError(f"score is 'logit' or 'probability', got {self.score!r}")


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w), non-negative where the activations are."""
    count, channels = probe.activations.shape[:2]
    size = (probe.inputs.shape[2], probe.inputs.shape[3])
    flat = probe.activations.reshape(count * channels, *probe.activations.shape[2:])
    constant = np.ptp(flat.reshape(len(flat), -1), axis=1) == 0
    # One blank variant per input stands for all its constant channels, whose masks are all 0.
    blank = np.arange(count) + len(flat)
    variants = np.concatenate([np.flatnonzero(~constant), blank])
    of = np.concatenate([variants[:-count] // channels, np.arange(count)])

    def rows(positions: Index) -> Maps:
        chosen = variants[positions]
        masks = np.zeros((len(chosen), *size), np.float32)
        masked = chosen < len(flat)
        masks[masked] = normalise(resize(flat[chosen[masked]], size))[0]
        return probe.inputs[of[positions]] * masks[:, None]

    scores = probe.scores(rows, of, probability=params.score == "probability")
    weights = np.repeat(scores[-count:], channels)  # (N * K,), the blank's score where nothing else is put in
    weights[variants[:-count]] = scores[:-count]
    alpha = softmax(weights.reshape(count, channels))
    return np.einsum("nk,nkhw->nhw", alpha, probe.activations, optimize=True).astype(np.float32)
