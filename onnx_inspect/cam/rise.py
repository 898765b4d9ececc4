"""RISE: the average of random masks, weighted by the score that they leave (Petsiuk et al. 2018, arXiv:1806.07421).

A mask is an s x s grid of cells kept with probability p, enlarged bilinearly to (s + 1) ceil(H / s) pixels and cropped
at random; ``S = 1/(M p) sum_m f(x * m) m``, an estimate of the score to expect where a pixel is shown.

``estimator=centred`` (default) has the same expectation and less noise:
``S = mean(f) + 1/(M p) sum_m (f_m - mean(f)) m``; without it the masks' uneven coverage times the mean score is noise
that drowns a map of logits. ``plain`` is the paper's sum; ``coverage`` divides by ``sum_m m`` at each pixel instead
(Xplique). The paper takes 4000 to 8000 masks; here 1000. All inputs of a batch share the masks.
Cost: one full pass a mask; under a budget those that were not run get predicted scores, see `_anytime`.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx_inspect.cam._grids import averaged, check_estimator, draw
from onnx_inspect.cam._masking import check_fill
from onnx_inspect.cam._params import at_least, between, score_kind
from onnx_inspect.cam._probe import Maps, Probe

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
        check_estimator(self.estimator)


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, H, W): the score expected where a pixel is shown, in the score's unit."""
    return averaged(
        probe,
        draw(probe.rng, params.masks, params.cells, params.keep, probe.inputs.shape[2:]),
        keep=params.keep,
        fill=params.fill,
        probability=params.score == "probability",
        estimator=params.estimator,
    )
