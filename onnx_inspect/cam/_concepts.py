"""What a method answers that finds several parts in the activations: a map of each, and what it stands for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.intp]
Maps = NDArray[np.float32]


@dataclass(frozen=True)
class Concepts:
    """Parts that recur in a layer's activations, shared by all inputs.

    Attributes
    ----------
    strengths : ndarray, (N, R, h, w), float32
        How much of each is where, >= 0, in the activations' unit.
    vectors : ndarray, (R, K), float32
        What each is made of: channels, of length 1.
    classes : ndarray, (R, C), int
        The classes that each speaks for most, best first; C is 0 where the model scores none.
    gains : ndarray, (R, C), float64
        What their scores lose without it.
    names : tuple of str
        In words; filled in by those who know the labels.
    """

    strengths: Maps
    vectors: Maps
    classes: Index
    gains: NDArray[np.float64]
    names: tuple[str, ...] = ()

    @property
    def strongest(self) -> Maps:
        """One map of each input, (N, h, w): the strength of whichever is the strongest at a place."""
        return np.asarray(self.strengths.max(axis=1), np.float32)

    @property
    def shares(self) -> NDArray[np.float64]:
        """How much of each input is each of them, (N, R); rows sum to 1, or are 0 where nothing is found."""
        sums = self.strengths.reshape(*self.strengths.shape[:2], -1).sum(axis=2, dtype=np.float64)
        return sums / np.maximum(sums.sum(axis=1, keepdims=True), 1e-30)
