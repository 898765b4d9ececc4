"""IS-CAM: Score-CAM's channel scores averaged along a path of scaled inputs (Naidu et al. 2020, arXiv:2010.03023).

``s_k = 1/n sum_i f_c(c_i x * H_k)`` with ``H_k = N(U(A_k))`` as in Score-CAM and n = 10;
``alpha = softmax over k (s)``, ``L = sum_k alpha_k A_k`` (the paper's ReLU is left to the drawing). Scales are summed
up along the path, ``c_i = sum_{j<=i} j/n`` (``path=cumulative``, as torch-cam has it), and end at 5.5 times the masked
input for n = 10; ``path=linear`` is ``c_i = i/n``, which ends at the masked input itself. Scores are logits where the
graph has them, as in Score-CAM. Constant channels share one mask.
Cost: 10 K full passes; under a budget the masks that the map hangs on most come first, each with all its steps.
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
    """Steps of the path, how it grows (``cumulative`` or ``linear``), and which score is read."""

    steps: int = 10
    path: str = "cumulative"
    score: str = "logit"

    def __post_init__(self) -> None:
        """Check the values."""
        at_least("steps", self.steps, 1)
        one_of("path", self.path, "cumulative", "linear")
        score_kind(self.score)


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w), non-negative where the activations are."""
    masks = channel_masks(probe)
    scales = np.arange(1, params.steps + 1, dtype=np.float64) / params.steps
    if params.path == "cumulative":
        scales = np.cumsum(scales)

    def rows(which: Index, steps: Index) -> Maps:
        shown = masks.make(which)
        scaled = shown * scales[steps].reshape(-1, *(1,) * (shown.ndim - 1)).astype(np.float32)
        return probe.inputs[masks.of[which]] * scaled[:, None]

    return _anytime.maps(probe, masks.plan(probe, rows, repeats=params.steps, score=params.score))
