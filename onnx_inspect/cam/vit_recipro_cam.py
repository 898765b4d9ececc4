"""ViT-Recipro-CAM: positions weighted by the score that their neighbourhood reaches alone (Byun and Lee 2023).

arXiv:2310.02588. For each position (i, j) the patch tokens are multiplied by a 3x3 window centred there, its weights
[1 2 1; 2 4 2; 1 2 1] / 16, and all others become 0; the class token and registers are kept: ``S_ij = f_c``, a logit.
Recipro-CAM differs: it keeps one position, or spreads that position's own vector over its neighbours, and reads
probabilities; here each neighbour keeps its own vector. ``gaussian=false`` keeps the centre token alone.

The paper masks the tokens at the input of the last block, after its LayerNorm and on the skip connection. One layer is
masked here. At the output of the last block's first LayerNorm (give it with --layer) the score read from a class token
is the paper's exactly, because a patch token's own skip is read by nobody; at the residual Add before the block the
LayerNorm undoes the window's weights, and zeroed tokens become its bias.
At the border the window is cut, and by default scaled up to sum to 1 again, so that equal tokens give an equal map;
``border=clip`` leaves it cut, as the authors do.
Cost: one pass and h * w passes of the tail only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._params import one_of, score_kind
from onnx_inspect.cam._probe import Index, Maps, Probe

CLASS_AWARE = True
PLANES_ONLY = True
WINDOW = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16
OFFSETS = [(di, dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)]


@dataclass(frozen=True)
class Params:
    """Whether neighbours are kept too, what happens to the window at the border, and which score is read."""

    gaussian: bool = True
    border: str = "renormalise"
    score: str = "logit"

    def __post_init__(self) -> None:
        """Check the values."""
        one_of("border", self.border, "renormalise", "clip")
        score_kind(self.score)


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w): logits, or probabilities in [0, 1]."""
    count, channels, height, width = probe.activations.shape
    cells = height * width
    of = np.repeat(np.arange(count), cells)

    def rows(positions: Index) -> Maps:
        inputs, (i, j) = of[positions], np.divmod(positions % cells, width)
        variants = np.zeros((len(positions), channels, height, width), np.float32)
        own, whole = np.arange(len(positions)), _whole(i, j, (height, width), params)
        for di, dj in OFFSETS if params.gaussian else [(0, 0)]:
            inside = (i + di >= 0) & (i + di < height) & (j + dj >= 0) & (j + dj < width)
            n, y, x = inputs[inside], i[inside] + di, j[inside] + dj
            weight = WINDOW[di + 1, dj + 1] / whole[inside]
            variants[own[inside], :, y, x] = probe.activations[n, :, y, x] * weight[:, None]
        return variants

    scores = probe.tail_scores(rows, of, probability=params.score == "probability")
    return scores.reshape(count, height, width).astype(np.float32)


def _whole(i: Index, j: Index, size: tuple[int, int], params: Params) -> NDArray[np.float32]:
    """What windows centred at (i, j) are divided by: their sum inside the map, 1, or the lone centre's own weight."""
    if not params.gaussian:
        return np.full(len(i), WINDOW[1, 1])
    if params.border == "clip":
        return np.ones(len(i), np.float32)
    # Of the 1, 2, 1 along each axis, the part inside the map.
    down, across = (4 - (at == 0) - (at == side - 1) for at, side in zip((i, j), size, strict=True))
    return np.asarray(down * across / 16, np.float32)
