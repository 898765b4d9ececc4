"""FullGrad: the input's share of the score and that of every bias (Srinivas and Fleuret 2019, arXiv:1905.00780).

``y = x dy/dx + sum over biases b dy/db`` holds exactly on networks of rectifiers: ``L = psi(x dy/dx) + sum over layers
and channels of psi(b dy/db)``, with psi(s) = |s|, scaled to [0, 1] over the layer, enlarged to the input. Biases are
those of convolutions, of normalisations (of BatchNormalization the one that it implies) and constants that are added;
what has no place on the input, like a classifier's biases, has no map. How far the shares add up to the score is said
beside the map: other activations than ReLU leave a gap. Cost: one pass, and two with gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_inspect.cam._probe import Maps, Probe
from onnx_inspect.ops import resize

CLASS_AWARE = True
RESOLUTION = "input"
USES_LAYER = False


@dataclass(frozen=True)
class Params:
    """FullGrad has no parameters."""


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, H, W), non-negative; input and biases weigh alike, as in the paper."""
    of = np.arange(len(probe.inputs))
    own = probe.inputs * probe.input_gradients(lambda rows: probe.inputs[rows], of)  # (N, C, H, W)
    totals = own.reshape(len(own), -1).sum(axis=1, dtype=np.float64)
    maps = [_psi(share, probe.inputs.shape[2:]) for share in own]
    for n in of:
        for share in probe.bias_shares(int(n)):
            totals[n] += share.sum(dtype=np.float64)
            if share[0].size > 1:
                maps[n] = maps[n] + _psi(share, probe.inputs.shape[2:])
    if probe.account is not None:
        probe.account.close(totals, probe.base_scores())
    return np.stack(maps).astype(np.float32)


def _psi(share: Maps, size: tuple[int, ...]) -> Maps:
    """One layer's shares (K, h, w) as a map of the input's size (H, W), in [0, K]."""
    positive = np.abs(share)
    positive = positive - positive.min()
    positive = positive / (positive.max() or 1)
    return resize(positive.sum(axis=0)[None].astype(np.float32), size)[0]
