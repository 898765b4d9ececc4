"""A Probe around any function of the input, for methods that see nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.cam._probe import Index, Probe, Rows
from onnx_inspect.errors import MethodError

Score = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # (B, C, H, W) or (B, K, h, w) -> (B, classes)


def make(
    score: Score,
    inputs: NDArray[np.float32],
    *,
    activations: NDArray[np.float32] | None = None,
    tail: Score | None = None,
    classes: int = 0,
    logits: bool = True,
    seed: int = 0,
    block: int = 50,
) -> Probe:
    """Scores are computed in float64, so that a test's tolerance is the method's own."""
    count = len(inputs)

    def in_blocks(rows: Rows, of: Index, function: Score) -> NDArray[np.float64]:
        starts = range(0, len(of), block)
        return np.concatenate(
            [function(rows(np.arange(s, min(s + block, len(of)))).astype(np.float64)) for s in starts]
        )

    def refuse(rows: Rows, of: Index) -> NDArray[np.float64]:
        raise AssertionError("there is no tail")

    def nonlinear(tolerance: float) -> NDArray[np.float32]:
        raise MethodError("what follows the layer is no pooling and linear layer")

    return Probe(
        inputs=inputs,
        activations=np.zeros((count, 1, 1, 1), np.float32) if activations is None else activations,
        classes=np.full(count, classes),
        base=score(inputs.astype(np.float64)),
        score_inputs=lambda rows, of: in_blocks(rows, of, score),
        score_activations=(lambda rows, of: in_blocks(rows, of, tail)) if tail is not None else refuse,
        logits=logits,
        weights=nonlinear,
        rng=np.random.default_rng(seed),
    )


@pytest.fixture
def make_probe() -> Callable[..., Probe]:
    return make
