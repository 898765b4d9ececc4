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

from onnx_inspect.cam._params import one_of, score_kind
from onnx_inspect.cam._probe import Index, Maps, Probe

CLASS_AWARE = True
WINDOW = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16


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
    count, _, height, width = probe.activations.shape
    cells = height * width
    of = np.repeat(np.arange(count), cells)

    def rows(positions: Index) -> Maps:
        windows = _windows(positions % cells, (height, width), params)
        return probe.activations[of[positions]] * windows[:, None]

    scores = probe.tail_scores(rows, of, probability=params.score == "probability")
    return scores.reshape(count, height, width).astype(np.float32)


def _windows(cells: Index, size: tuple[int, int], params: Params) -> Maps:
    """Weights of all positions, (B, h, w), with the window centred on each of the cells."""
    i, j = np.divmod(cells, size[1])
    padded = np.zeros((len(cells), size[0] + 2, size[1] + 2), np.float32)
    own = np.arange(len(cells))
    for di, dj in np.ndindex(3, 3):
        padded[own, i + di, j + dj] = WINDOW[di, dj] if params.gaussian else float(di == dj == 1)
    windows = padded[:, 1:-1, 1:-1]
    return windows / windows.sum(axis=(1, 2), keepdims=True) if params.border == "renormalise" else windows
