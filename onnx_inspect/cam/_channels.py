"""How a layer's channels become masks of the input, each distinct mask once: what Score-CAM's family shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._anytime import Plan, coarse_size
from onnx_inspect.cam._probe import Index, Maps, Probe
from onnx_inspect.cam._surrogate import Surrogate
from onnx_inspect.ops import normalise, resize, softmax

Enlarge = Callable[[Maps, tuple[int, ...]], Maps]


@dataclass(frozen=True)
class ChannelMasks:
    """One mask for each channel that varies, and one blank mask an input for all its constant channels.

    Attributes
    ----------
    maps : ndarray, (N * K, h, w), float32
    shape : (int, int)
        Inputs and channels, (N, K).
    size : tuple of int
        Height and width of a mask; depth, height and width of a volume's.
    chosen : ndarray, (V,), int
        Channel of each distinct mask, as a position in `maps`; N * K and above for the blank ones.
    of : ndarray, (V,), int
        The input that each distinct mask belongs to.
    speaker : ndarray, (N * K,), int
        The mask whose score counts for each channel: one of `chosen`.
    enlarge : callable
        Channels (B, h, w) and a size -> masks of that size, in [0, 1].
    """

    maps: Maps
    shape: tuple[int, int]
    size: tuple[int, ...]
    chosen: Index
    of: Index
    speaker: Index
    enlarge: Enlarge

    def make(self, which: Index) -> Maps:
        """Masks at some positions of `chosen`, (B, H, W), in [0, 1]; 0 for the blank ones."""
        return self._sized(which, self.size)

    def spread(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores of the distinct masks (V,) for every channel, (N, K)."""
        whole = np.zeros(len(self.maps) + self.shape[0])
        whole[self.chosen] = scores
        return whole[self.speaker].reshape(self.shape)

    def features(self, n: int, size: tuple[int, ...] | None = None) -> Maps:
        """What the masks of an input have in common: themselves, at a coarse resolution, (Q, F)."""
        found = self._sized(np.flatnonzero(self.of == n), size or coarse_size(self.maps.shape[1:]))
        return found.reshape(len(found), -1)

    def lengths(self, n: int) -> NDArray[np.float64]:
        """Length ``sqrt(sum_k |A_k|^2)`` of the channels that each mask of an input speaks for, (Q,)."""
        sizes = np.zeros(len(self.maps) + self.shape[0])
        np.add.at(sizes, self.speaker, (self.maps.astype(np.float64) ** 2).reshape(len(self.maps), -1).sum(axis=1))
        return np.sqrt(sizes[self.chosen[self.of == n]])

    def weight(self, n: int, known: Surrogate) -> NDArray[np.float64]:
        """How much of ``sum_k softmax(s)_k A_k`` hangs on each mask: of its channels, the shares they might have."""
        return softmax(known.mean.mean(axis=1) + known.spread) * self.lengths(n)

    def _sized(self, which: Index, size: tuple[int, ...]) -> Maps:
        channels = self.chosen[which]
        masks = np.zeros((len(which), *size), np.float32)
        varies = channels < len(self.maps)
        if varies.any():
            masks[varies] = self.enlarge(self.maps[channels[varies]], size)
        return masks

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


def stretched(maps: Maps, size: tuple[int, ...]) -> Maps:
    """Score-CAM's masks ``N(U(A_k))``: enlarged, then scaled to [0, 1]."""
    return normalise(resize(maps, size), axes=len(size))[0]


def channel_masks(probe: Probe, activations: Maps | None = None, *, enlarge: Enlarge = stretched) -> ChannelMasks:
    """Make masks of the input from the layer's channels, or from those of another layer."""
    activations = probe.activations if activations is None else activations
    count, channels = activations.shape[:2]
    maps = activations.reshape(count * channels, *activations.shape[2:])
    varies = np.ptp(maps.reshape(len(maps), -1), axis=1) != 0
    blank = len(maps) + np.arange(count)
    chosen = np.concatenate([np.flatnonzero(varies), blank])
    return ChannelMasks(
        maps=maps,
        shape=(count, channels),
        size=probe.inputs.shape[2:],
        chosen=chosen,
        of=np.concatenate([chosen[:-count] // channels, np.arange(count)]),
        speaker=np.where(varies, np.arange(len(maps)), np.repeat(blank, channels)),
        enlarge=enlarge,
    )
