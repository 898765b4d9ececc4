"""HSIC: how much the score depends on each cell being shown (Novello, Fel and Vigouroux 2022, arXiv:2206.06219).

The input is cut into s x s rectangles, shown or hidden by n binary masks, a Latin hypercube: every cell is shown in
half of them. ``HSIC_i = tr(K_i H L H) / (n - 1)^2`` with ``K_i(m, m') = 1/2 + 1[m_i = m'_i]`` (the paper's ANOVA kernel
for binary masks), ``L(y, y') = exp(-(y - y')^2 / (2 w^2))``, w the scores' median, and H the centring. It is 0 where
the score is independent of the cell, and has no sign: evidence against the target scores as high as evidence for it.
The median's size is meaningful for probabilities; logits may have any origin, so their width is the median distance
between two scores (``width=distance``, the default; ``width=median`` for the paper's).
The map is the s x s values, enlarged bilinearly.
Cost: one full pass a mask: 500 with the defaults.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._cells import dimmed
from onnx_inspect.cam._masking import check_fill
from onnx_inspect.cam._params import at_least, one_of, score_kind
from onnx_inspect.cam._probe import Maps, Probe
from onnx_inspect.cam._superpixels import rectangles
from onnx_inspect.ops import resize

CLASS_AWARE = True
PLANES_ONLY = True
RESOLUTION = "input"
USES_LAYER = False
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Params:
    """Masks, cells along a side, the output kernel's width, fill and score."""

    masks: int = 500
    cells: int = 8
    width: str = "distance"
    fill: str = "zero"
    score: str = "logit"

    def __post_init__(self) -> None:
        """Check the values."""
        at_least("masks", self.masks, 2)
        at_least("cells", self.cells, 1)
        one_of("width", self.width, "distance", "median")
        check_fill(self.fill)
        score_kind(self.score)


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, H, W), non-negative: dependence of the score on each cell."""
    size = (probe.inputs.shape[2], probe.inputs.shape[3])
    shape = (min(params.cells, size[0]), min(params.cells, size[1]))
    labels = rectangles(size, shape)
    masks = _balanced(probe.rng, params.masks, shape[0] * shape[1])
    count = len(probe.inputs)
    probability = params.score == "probability"

    def made(scores: list[Floats]) -> Maps:
        values = np.stack([dependence(masks, y, params.width) for y in scores])
        return resize(values.reshape(count, *shape).astype(np.float32), size)

    return dimmed(probe, [labels] * count, [masks] * count, made, fill=params.fill, probability=probability)


def _balanced(rng: np.random.Generator, count: int, cells: int) -> Maps:
    """Binary masks (n, M), each cell shown in half of them: a Latin hypercube, rounded."""
    halves = np.tile(np.arange(count) < count // 2, (cells, 1))
    return rng.permuted(halves, axis=1).T.astype(np.float32)


def dependence(masks: Maps, scores: Floats, width: str = "distance") -> Floats:
    """HSIC of each binary column (n, M) with the scores (n,), as (M,)."""
    distance = np.abs(scores[:, None] - scores)
    scale = float(np.median(distance)) if width == "distance" else abs(float(np.median(scores)))
    if not distance.max() > 1e-7 * float(np.abs(scores).max(initial=0.0)):
        return np.zeros(masks.shape[1])  # the score never moves
    scale = scale or float(distance.max())
    kernel = np.exp(-(distance**2) / (2 * scale**2))
    # For binary m, 1[m = m'] = (1 + z z') / 2 with z = 2 m - 1, and centring removes what is constant.
    z = 2 * masks.astype(np.float64) - 1
    z -= z.mean(axis=0)
    return np.asarray(np.einsum("ni,nm,mi->i", z, kernel, z, optimize=True) / (2 * (len(z) - 1) ** 2))
