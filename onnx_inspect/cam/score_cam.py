"""Score-CAM: channels weighted by the score of the input they mask (Wang et al. 2020, arXiv:1910.01279).

``H_k = N(U(A_k))``, ``s_k = f_c(x * H_k) - f_c(x_b)``, ``alpha = softmax over k (s)``, ``L = sum_k alpha_k A_k`` (the
paper's ReLU is left to the drawing). U is bilinear with half-pixel centres, N scales to [0, 1]; the mask multiplies the
preprocessed input; the baseline's score cancels in the softmax. Constant channels mask everything and share one run.

Scores are logits where the graph has them before a last Softmax: probabilities of an unlikely class are so small that
the softmax over channels turns uniform and the map into the mean activation (``score=probability`` gives that variant).
Cost: K + 1 full passes; under a budget the masks that the map hangs on most come first.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx_inspect.cam import _anytime
from onnx_inspect.cam._channels import channel_masks
from onnx_inspect.cam._params import score_kind
from onnx_inspect.cam._probe import Index, Maps, Probe

CLASS_AWARE = True
WEIGHTS_CHANNELS = True


@dataclass(frozen=True)
class Params:
    """Which scores weigh the channels: ``logit`` or ``probability``."""

    score: str = "logit"

    def __post_init__(self) -> None:
        """Check the choice."""
        score_kind(self.score)


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w), non-negative where the activations are."""
    masks = channel_masks(probe)

    def rows(which: Index, _: Index) -> Maps:
        return probe.inputs[masks.of[which]] * masks.make(which)[:, None]

    return _anytime.maps(probe, masks.plan(probe, rows, score=params.score))
