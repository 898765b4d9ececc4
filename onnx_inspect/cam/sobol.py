"""Sobol: each cell's total share in the score's variance under random dimming (Fel et al. 2021, arXiv:2111.04138).

The input is cut into s x s rectangles, each shown by a share in [0, 1]. With quasi-random designs A and B of n rows,
and C_i = A with column i from B, ``S_i = sum (f(A) - f(C_i))^2 / (2 n Var f(A))`` (Jansen's estimator of the total
Sobol index). For a score that is additive in the cells it is each cell's share of the variance, and they sum to 1.
It has no sign: evidence against the target scores as high as evidence for it. The designs are a Sobol sequence shifted
at random; f(B) isn't needed and isn't run. The map is the s x s indices, enlarged bilinearly.
Cost: n (s^2 + 1) full passes: 2080 with the defaults.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._cells import dimmed
from onnx_inspect.cam._masking import check_fill
from onnx_inspect.cam._params import at_least, score_kind
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
    """Cells along a side, rows of a design (a power of two), fill and score."""

    cells: int = 8
    designs: int = 32
    fill: str = "zero"
    score: str = "logit"

    def __post_init__(self) -> None:
        """Check the values."""
        at_least("cells", self.cells, 1)
        at_least("designs", self.designs, 2)
        if self.designs & (self.designs - 1):
            raise ValueError(f"designs is a power of two, for a balanced Sobol sequence, got {self.designs}")
        check_fill(self.fill)
        score_kind(self.score)


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, H, W), non-negative: total Sobol indices, 0 where the score never moves."""
    size = (probe.inputs.shape[2], probe.inputs.shape[3])
    shape = (min(params.cells, size[0]), min(params.cells, size[1]))
    labels = rectangles(size, shape)
    design = replicated(probe.rng, params.designs, shape[0] * shape[1]).astype(np.float32)
    count = len(probe.inputs)
    probability = params.score == "probability"

    def made(scores: list[Floats]) -> Maps:
        indices = np.stack([total_indices(values, params.designs) for values in scores])
        return resize(indices.reshape(count, *shape).astype(np.float32), size)

    return dimmed(probe, [labels] * count, [design] * count, made, fill=params.fill, probability=probability)


def replicated(rng: np.random.Generator, designs: int, cells: int) -> Floats:
    """Rows of A, then of C_1 to C_M, (n (M + 1), M), each value in [0, 1)."""
    from scipy.stats.qmc import Sobol

    sequence = Sobol(2 * cells, scramble=False).random_base2(designs.bit_length() - 1)
    shifted = (sequence + rng.random(2 * cells)) % 1.0
    first, second = shifted[:, :cells], shifted[:, cells:]
    mixed = np.repeat(first[None], cells, axis=0)  # (M, n, M)
    own = np.arange(cells)
    mixed[own, :, own] = second.T
    return np.concatenate([first[None], mixed]).reshape(-1, cells)


def total_indices(scores: Floats, designs: int) -> Floats:
    """Jansen's estimate of the total Sobol indices (M,) from the scores of `replicated`'s rows."""
    first, mixed = scores[:designs], scores[designs:].reshape(-1, designs)
    variance = float(first.var(ddof=1))
    if not variance > 1e-14 * float((first**2).mean()):
        return np.zeros(len(mixed))
    return np.asarray(((first - mixed) ** 2).sum(axis=1) / (2 * designs * variance))
