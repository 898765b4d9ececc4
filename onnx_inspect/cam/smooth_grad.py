"""SmoothGrad: saliency averaged over noisy copies of the input (Smilkov et al. 2017, arXiv:1706.03825).

``L = max over channels |mean over n of dy/dx at x + noise_n|`` with normal noise whose standard deviation is a share
`noise` of the input's range; ``squared=true`` averages squares instead (SmoothGrad-Squared). The noise stems from the
seed. Cost: `samples` passes with their gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.cam._params import at_least
from onnx_inspect.cam._probe import Index, Maps, Probe

CLASS_AWARE = True
RESOLUTION = "input"
USES_LAYER = False
ON_TOKENS = True


@dataclass(frozen=True)
class Params:
    """How many copies, the noise as a share of the input's range, and whether squares are averaged."""

    samples: int = 50
    noise: float = 0.15
    squared: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        at_least("samples", self.samples, 1)
        at_least("noise", self.noise, 0)


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, H, W), non-negative."""
    seeds = probe.rng.integers(2**63, size=len(probe.inputs) * params.samples)
    maps = [_map(probe, n, params, seeds[n * params.samples :]) for n in range(len(probe.inputs))]
    return np.stack(maps)


def _map(probe: Probe, n: int, params: Params, seeds: Index) -> Maps:
    one = probe.inputs[n]
    deviation = params.noise * float(one.max() - one.min())

    def rows(positions: Index) -> Maps:
        noise = [np.random.default_rng(seeds[p]).standard_normal(one.shape, np.float32) for p in positions]
        return one + np.float32(deviation) * np.stack(noise)

    gradients = probe.input_gradients(rows, np.full(params.samples, n))
    mean = (gradients**2 if params.squared else gradients).mean(axis=0, dtype=np.float64)
    return np.abs(mean).max(axis=0).astype(np.float32)
