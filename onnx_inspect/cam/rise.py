"""RISE: the average of random masks, weighted by the score that they leave (Petsiuk et al. 2018, arXiv:1806.07421).

A mask is an s x s grid of cells kept with probability p, enlarged bilinearly to (s + 1) ceil(H / s) pixels and cropped
at random; ``S = 1/(M p) sum_m f(x * m) m``, an estimate of the score to expect where a pixel is shown.

``estimator=centred`` (default) has the same expectation and less noise:
``S = mean(f) + 1/(M p) sum_m (f_m - mean(f)) m``; without it the masks' uneven coverage times the mean score is noise
that drowns a map of logits. ``plain`` is the paper's sum; ``coverage`` divides by ``sum_m m`` at each pixel instead
(Xplique). The paper takes 4000 to 8000 masks; here 1000. All inputs of a batch share the masks.
Cost: one full pass a mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.cam._grids import draw
from onnx_inspect.cam._masking import background, check_fill, masked
from onnx_inspect.cam._params import at_least, between, one_of, score_kind
from onnx_inspect.cam._probe import Index, Maps, Probe

CLASS_AWARE = True
RESOLUTION = "input"
USES_LAYER = False


@dataclass(frozen=True)
class Params:
    """Number of masks, cells along a side, share of cells kept, fill, score and estimator."""

    masks: int = 1000
    cells: int = 7
    keep: float = 0.5
    fill: str = "zero"
    score: str = "probability"
    estimator: str = "centred"

    def __post_init__(self) -> None:
        """Check the values."""
        at_least("masks", self.masks, 2)
        at_least("cells", self.cells, 1)
        between("keep", self.keep, 0, 1)
        check_fill(self.fill)
        score_kind(self.score)
        one_of("estimator", self.estimator, "centred", "plain", "coverage")


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, H, W): the score expected where a pixel is shown, in the score's unit."""
    count = len(probe.inputs)
    masks = draw(probe.rng, params.masks, params.cells, params.keep, (probe.inputs.shape[2], probe.inputs.shape[3]))
    hidden = background(probe.inputs, params.fill)
    of = np.tile(np.arange(count), len(masks))  # all inputs under one mask, then under the next

    def rows(positions: Index) -> Maps:
        chosen, where = np.unique(positions // count, return_inverse=True)
        return masked(probe.inputs, hidden, of[positions], masks.make(chosen)[where])

    scores = probe.scores(rows, of, probability=params.score == "probability").reshape(-1, count).T  # (N, M)
    if params.estimator == "coverage":
        shown = masks.weighted_sum(np.ones((1, len(masks))))
        return np.asarray(masks.weighted_sum(scores) / np.maximum(shown, 1e-6), np.float32)
    mean = scores.mean(axis=1, keepdims=True) if params.estimator == "centred" else np.zeros((count, 1))
    spread = masks.weighted_sum(scores - mean) / (len(masks) * params.keep)
    return np.asarray(mean[:, :, None] + spread, np.float32)
