"""LIME: a linear model of the score over superpixels, fitted around the input (Ribeiro et al. 2016, arXiv:1602.04938).

Superpixels are shown or hidden at random (z in {0, 1}^M, half of them each; the whole input is always among them),
a ridge regression ``f(x_z) ~ b + w.z`` is weighted by nearness, ``pi(z) = sqrt(exp(-d^2 / width^2))`` with d the cosine
distance of z to the whole input, and every pixel gets its superpixel's weight (LIME's own image explainer: 1000
samples, width 0.25, ridge 1). Superpixels are SLIC's (`segmentation=grid` for rectangles), numbered from 0. Hidden
superpixels become 0, the preprocessing's mean (``fill=mean``: the input's own; LIME's default: each superpixel's own).
LIME reads probabilities; the default here is logits, which stay linear where a probability is saturated or tiny.
Cost: one full pass a sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._cells import check_segmentation, dimmed, paint, segment
from onnx_inspect.cam._masking import check_fill
from onnx_inspect.cam._params import at_least, between, score_kind
from onnx_inspect.cam._probe import Maps, Probe

CLASS_AWARE = True
RESOLUTION = "input"
USES_LAYER = False


@dataclass(frozen=True)
class Params:
    """Samples, about how many superpixels of which kind, the kernel's width, the ridge's strength, fill and score."""

    samples: int = 1000
    segments: int = 50
    segmentation: str = "slic"
    compactness: float = 0.5
    width: float = 0.25
    ridge: float = 1.0
    fill: str = "zero"
    score: str = "logit"

    def __post_init__(self) -> None:
        """Check the values."""
        at_least("samples", self.samples, 2)
        at_least("segments", self.segments, 1)
        check_segmentation(self.segmentation)
        between("compactness", self.compactness, 0, np.inf)
        between("width", self.width, 0, np.inf)
        at_least("ridge", self.ridge, 0)
        check_fill(self.fill)
        score_kind(self.score)


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, H, W), signed: what showing a superpixel adds to the score."""
    labels = probe.cells or segment(probe.inputs, params.segmentation, params.segments, params.compactness)
    seed = int(probe.rng.integers(2**63))  # every input draws the same stream, however many there are
    designs = [_samples(np.random.default_rng(seed), params.samples, int(cells.max()) + 1) for cells in labels]

    def made(scores: list[NDArray[np.float64]]) -> Maps:
        return paint(labels, [_fit(z.astype(np.float64), y, params) for z, y in zip(designs, scores, strict=True)])

    probability = params.score == "probability"
    return dimmed(probe, labels, designs, made, fill=params.fill, probability=probability, first=1)


def _samples(rng: np.random.Generator, count: int, cells: int) -> Maps:
    shown = rng.integers(0, 2, (count, cells)).astype(np.float32)
    shown[0] = 1
    return shown


def _fit(z: NDArray[np.float64], y: NDArray[np.float64], params: Params) -> NDArray[np.float64]:
    """Weights (M,) of a ridge regression with a free intercept, samples weighted by their nearness."""
    distance = 1 - np.sqrt(z.mean(axis=1))  # cosine distance to all ones
    near = np.sqrt(np.exp(-((distance / params.width) ** 2)))
    share = near / near.sum()
    gains = y - y[0]  # exactly 0 where the score never moves
    columns, answers = z - share @ z, gains - share @ gains
    normal = (columns * near[:, None]).T @ columns + params.ridge * np.eye(z.shape[1])
    right = (columns * near[:, None]).T @ answers
    return np.asarray(np.linalg.lstsq(normal, right, rcond=None)[0])
