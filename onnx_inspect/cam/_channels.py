"""How a layer's channels become masks of the input, each distinct mask once: what Score-CAM's family shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._probe import Index, Maps, Probe
from onnx_inspect.ops import normalise, resize


@dataclass(frozen=True)
class ChannelMasks:
    """One mask for each channel that varies, and one blank mask an input for all its constant channels.

    Attributes
    ----------
    maps : ndarray, (N * K, h, w), float32
    shape : (int, int)
        Inputs and channels, (N, K).
    size : (int, int)
        Height and width of a mask.
    chosen : ndarray, (V,), int
        Channel of each distinct mask, as a position in `maps`; N * K and above for the blank ones.
    of : ndarray, (V,), int
        The input that each distinct mask belongs to.
    """

    maps: Maps
    shape: tuple[int, int]
    size: tuple[int, int]
    chosen: Index
    of: Index

    def make(self, which: Index) -> Maps:
        """Masks ``N(U(A_k))`` at some positions of `chosen`, (B, H, W), in [0, 1]."""
        channels = self.chosen[which]
        masks = np.zeros((len(which), *self.size), np.float32)
        varies = channels < len(self.maps)
        masks[varies] = normalise(resize(self.maps[channels[varies]], self.size))[0]
        return masks

    def spread(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores of the distinct masks (V,) for every channel, (N, K)."""
        count, channels = self.shape
        whole = np.repeat(scores[-count:], channels)
        whole[self.chosen[:-count]] = scores[:-count]
        return whole.reshape(count, channels)


def channel_masks(probe: Probe) -> ChannelMasks:
    """Make masks of the input from the layer's channels."""
    count, channels = probe.activations.shape[:2]
    maps = probe.activations.reshape(count * channels, *probe.activations.shape[2:])
    varies = np.flatnonzero(np.ptp(maps.reshape(len(maps), -1), axis=1) != 0)
    return ChannelMasks(
        maps=maps,
        shape=(count, channels),
        size=(probe.inputs.shape[2], probe.inputs.shape[3]),
        chosen=np.concatenate([varies, len(maps) + np.arange(count)]),
        of=np.concatenate([varies // channels, np.arange(count)]),
    )
