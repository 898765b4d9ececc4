"""Recipro-CAM: positions weighted by the score they reach alone (Byun and Lee 2022, arXiv:2209.14074).

For each position (i, j) only A[:, i, j] is kept and the rest set to 0: ``S_ij = softmax(f)_c``. With ``gaussian=true``
the vector is spread over its 3x3 neighbourhood by [1 2 1; 2 4 2; 1 2 1] / 16 (off by default, as the authors have it).
``score=logit`` takes scores before the softmax (as OpenVINO does): for pooling and a linear layer without bias they
are CAM's divided by the number of positions. Tokens before the grid (class, registers) are kept in every run.
Cost: one pass and h * w passes of the tail only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.cam._probe import Index, Maps, Probe

CLASS_AWARE = True
KERNEL = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16


@dataclass(frozen=True)
class Params:
    """Which score a position gets (``probability`` or ``logit``), and whether it is spread over its neighbours."""

    score: str = "probability"
    gaussian: bool = False

    def __post_init__(self) -> None:
        """Check the choice."""
        if self.score not in ("logit", "probability"):
            raise ValueError(f"score is 'logit' or 'probability', got {self.score!r}")


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w): probabilities in [0, 1], or logits."""
    activations = probe.activations
    count, channels, height, width = activations.shape
    cells = height * width
    of = np.repeat(np.arange(count), cells)

    def rows(positions: Index) -> Maps:
        inputs, (i, j) = of[positions], np.divmod(positions % cells, width)
        variants = np.zeros((len(positions), channels, height, width), np.float32)
        own = np.arange(len(positions))
        vectors = activations[inputs, :, i, j]  # (B, K)
        if not params.gaussian:
            variants[own, :, i, j] = vectors
            return variants
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                inside = (i + di >= 0) & (i + di < height) & (j + dj >= 0) & (j + dj < width)
                spread = vectors[inside] * KERNEL[di + 1, dj + 1]
                variants[own[inside], :, i[inside] + di, j[inside] + dj] = spread
        return variants

    scores = probe.tail_scores(rows, of, probability=params.score == "probability")
    return scores.reshape(count, height, width).astype(np.float32)
