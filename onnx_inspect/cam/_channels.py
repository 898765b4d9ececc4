"""How a layer's channels become masks of the input, each distinct mask once: what Score-CAM's family shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._anytime import Plan, coarse
from onnx_inspect.cam._probe import Index, Maps, Probe
from onnx_inspect.cam._surrogate import Surrogate
from onnx_inspect.ops import normalise, resize, softmax


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

    def features(self, n: int) -> Maps:
        """What the masks of an input have in common: themselves, before they are enlarged; 0 for the blank one."""
        channels = self.chosen[self.of == n]
        shown = np.zeros((len(channels), *self.maps.shape[1:]), np.float32)
        shown[channels < len(self.maps)] = normalise(self.maps[channels[channels < len(self.maps)]])[0]
        return coarse(shown).reshape(len(shown), -1)

    def weight(self, n: int, known: Surrogate) -> NDArray[np.float64]:
        """How much of ``sum_k softmax(s)_k A_k`` hangs on each mask: of its channels, the shares they might have."""
        channels = self.chosen[self.of == n]
        sizes = np.zeros(len(self.maps) + self.shape[0])
        np.add.at(sizes, self.speaker, (self.maps.astype(np.float64) ** 2).sum(axis=(1, 2)))
        hoped = softmax(known.mean.mean(axis=1) + known.spread)
        return np.asarray(hoped * np.sqrt(sizes[channels]))

    def plan(
        self, probe: Probe, rows: Callable[[Index, Index], Maps], *, repeats: int = 1, draws: bool = False, score: str
    ) -> Plan:
        """Plan Score-CAM's family: channels weighted by the softmax of their masks' mean scores.

        Parameters
        ----------
        rows : callable
            (which of the distinct masks, which of its repeats) -> variants of the input.
        repeats : int
            How often each mask is run, in one way or another.
        draws : bool
            Whether repeats differ only by noise.
        score : {'logit', 'probability'}
        """
        distinct = len(self.chosen)

        def made(scores: NDArray[np.float64]) -> Maps:
            return probe.weighted(softmax(self.spread(scores.reshape(repeats, distinct).mean(axis=0))))

        own = [np.flatnonzero(self.of == n)[:, None] for n in range(self.shape[0])]
        return Plan(
            rows=lambda positions: rows(positions % distinct, positions // distinct),  # a block meets few repeats
            of=np.tile(self.of, repeats),
            make=made,
            masks=[which + distinct * np.arange(repeats) for which in own],
            features=self.features,
            probability=score == "probability",
            draws=draws,
            weight=self.weight,
        )


def channel_masks(probe: Probe) -> ChannelMasks:
    """Make masks of the input from the layer's channels."""
    count, channels = probe.activations.shape[:2]
    maps = probe.activations.reshape(count * channels, *probe.activations.shape[2:])
    varies = np.ptp(maps.reshape(len(maps), -1), axis=1) != 0
    blank = len(maps) + np.arange(count)
    chosen = np.concatenate([np.flatnonzero(varies), blank])
    return ChannelMasks(
        maps=maps,
        shape=(count, channels),
        size=(probe.inputs.shape[2], probe.inputs.shape[3]),
        chosen=chosen,
        of=np.concatenate([chosen[:-count] // channels, np.arange(count)]),
        speaker=np.where(varies, np.arange(len(maps)), np.repeat(blank, channels)),
    )
