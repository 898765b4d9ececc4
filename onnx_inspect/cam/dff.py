"""DFF: the parts that recur in the activations, as segments (deep feature factorisation, Collins et al. 2018).

arXiv:1806.10206. Channels, lowered by their minimum over all inputs where that is not 0, make a matrix V of all
positions of all inputs by K channels; ``V ~ W H`` with W and H >= 0 and R parts. A row of H is a concept, a column of W
its heat map in every input: the same colour means the same concept in all pictures of a batch. Each position belongs to
the concept that is strongest there, rows of H having length 1. Nothing is random: the factors start from V's singular
vectors.

A concept is named by the classes that it speaks for: those whose scores lose most when it is taken out of the
activations, ``A - w h``, of the input that shows the most of it (after a linear tail that is the mean of w times what
the tail makes of h). It looks at no target.
Cost: one pass up to the layer, and one of the tail for each concept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._concepts import Concepts
from onnx_inspect.cam._factors import factorise
from onnx_inspect.cam._params import between
from onnx_inspect.cam._probe import Index, Maps, Probe

CLASS_AWARE = False
SHARED = True  # inputs of a batch are explained together
Floats = NDArray[np.float64]
NAMED = 3  # classes that a concept is named by, at most


@dataclass(frozen=True)
class Params:
    """How many concepts, and how many rounds the factorisation may take."""

    concepts: int = 4
    rounds: int = 200

    def __post_init__(self) -> None:
        """Check the values."""
        between("concepts", self.concepts, 0, 13)  # as many as colours can be told apart
        between("rounds", self.rounds, 0, np.inf)


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, h, w), non-negative: the strength of whichever concept is the strongest."""
    return concepts(probe, params).strongest


def concepts(probe: Probe, params: Params) -> Concepts:
    """Find the concepts of a batch."""
    count, channels, *grid = probe.activations.shape
    lowest = probe.activations.min(axis=(0, *range(2, probe.activations.ndim)))  # (K,)
    positions = np.moveaxis(probe.activations, 1, -1).reshape(-1, channels).astype(np.float64)
    weights, vectors = factorise(positions - lowest, params.concepts, params.rounds)
    strengths = np.moveaxis(weights.reshape(count, *grid, -1), -1, 1)
    classes, gains = _meaning(probe, strengths, vectors, lowest)
    return Concepts(np.ascontiguousarray(strengths, np.float32), vectors.astype(np.float32), classes, gains)


def _meaning(probe: Probe, strengths: Floats, vectors: Floats, lowest: Maps) -> tuple[Index, Floats]:
    """Classes that each concept speaks for, (R, C), and what their scores lose without it."""
    if not probe.every_class:
        return np.zeros((len(vectors), 0), np.intp), np.zeros((len(vectors), 0))
    of = strengths.reshape(*strengths.shape[:2], -1).sum(axis=2).argmax(axis=0)  # (R,): who shows the most of it
    floor = lowest.reshape(-1, *(1,) * (strengths.ndim - 2))

    def rows(which: Index) -> Maps:
        own = np.stack([np.multiply.outer(vectors[r], strengths[of[r], r]) for r in which])  # (B, K, *grid)
        return np.maximum(probe.activations[of[which]] - own, floor).astype(np.float32)

    losses = probe.base[of] - probe.score_activations(rows, of)
    classes = np.argsort(-losses, axis=1, kind="stable")[:, :NAMED]
    return classes, np.take_along_axis(losses, classes, axis=1)
