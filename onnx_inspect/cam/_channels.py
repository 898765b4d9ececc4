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
    speaker : ndarray, (N * K,), int
        The mask whose score counts for each channel: one of `chosen`.
    """

    maps: Maps
    shape: tuple[int, int]
    size: tuple[int, int]
    chosen: Index
    of: Index
    speaker: Index

    def make(self, which: Index) -> Maps:
        """Masks ``N(U(A_k))`` at some positions of `chosen`, (B, H, W), in [0, 1]."""
        channels = self.chosen[which]
        masks = np.zeros((len(which), *self.size), np.float32)
        varies = channels < len(self.maps)
        masks[varies] = normalise(resize(self.maps[channels[varies]], self.size))[0]
        return masks

    def spread(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores of the distinct masks (V,) for every channel, (N, K)."""
        whole = np.zeros(len(self.maps) + self.shape[0])
        whole[self.chosen] = scores
        return whole[self.speaker].reshape(self.shape)


def channel_masks(probe: Probe, speaker: Index | None = None) -> ChannelMasks:
    """Make masks of the input from the layer's channels; each speaks for itself unless `speaker`, (N, K), says else."""
    count, channels = probe.activations.shape[:2]
    maps = probe.activations.reshape(count * channels, *probe.activations.shape[2:])
    varies = np.ptp(maps.reshape(len(maps), -1), axis=1) != 0
    own = np.arange(len(maps)) if speaker is None else speaker.ravel()
    blank = len(maps) + np.arange(count)
    spoken = np.where(varies, own, np.repeat(blank, channels))
    chosen = np.concatenate([np.unique(spoken[varies]), blank])
    return ChannelMasks(
        maps=maps,
        shape=(count, channels),
        size=(probe.inputs.shape[2], probe.inputs.shape[3]),
        chosen=chosen,
        of=np.concatenate([chosen[:-count] // channels, np.arange(count)]),
        speaker=spoken,
    )
