"""What one picture looked like to a network at each checkpoint: maps over time, and how they are scaled together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.saliency import CamPanel, Map, Picture


@dataclass(frozen=True)
class Strip:
    """One picture over the checkpoints.

    Attributes
    ----------
    source : str
    what : str
        What is shown: a channel of a layer, or a method's map of a class.
    labels : tuple of str
        Of the checkpoints.
    captions : tuple of str
        What is told of each frame.
    maps : tuple of ndarray, (h, w), float32
        Of a channel: raw. Of a saliency map: in [0, 1] on the picture, NaN where the network saw nothing.
    picture : ndarray, (H, W, 3), uint8, or None
    over : bool
        Whether the maps lie over the picture; else each is shown by itself.
    """

    source: str
    what: str
    labels: tuple[str, ...]
    captions: tuple[str, ...]
    maps: tuple[Map, ...]
    picture: Picture | None
    over: bool


def of_channel(
    layer: str, channel: int, maps: NDArray[Any], source: str, labels: Sequence[str], picture: Picture | None
) -> Strip:
    """One channel's maps, (T, h, w), of one input."""
    means = [f"mean |a| {float(np.abs(m.astype(np.float64)).mean()):.3g}" for m in maps]
    frames = tuple(np.asarray(m, np.float32) for m in maps)
    what = f"channel {channel} of {layer}, one scale for all"
    return Strip(source, what, tuple(labels), tuple(means), frames, picture, False)


def of_panels(panels: Sequence[CamPanel], labels: Sequence[str], what: str) -> Strip:
    """One method's maps of one input, a panel for each checkpoint."""
    frames = [panel.maps[0] for panel in panels]
    captions = [f.problem or (f.target if f.score is None else f"{f.target}  {f.score:.3g}") for f in frames]
    maps = tuple(np.zeros_like(f.values) if f.problem else f.values for f in frames)
    return Strip(panels[-1].source, what, tuple(labels), tuple(captions), maps, panels[-1].picture, True)


def strongest_channel(maps: NDArray[Any]) -> int:
    """The channel of (N, K, h, w) with the highest mean magnitude."""
    return int(np.abs(maps.astype(np.float64)).mean(axis=(0, 2, 3)).argmax())
