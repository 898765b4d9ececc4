"""What the model says when cells of an input (rectangles or superpixels) are dimmed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._anytime import Plan, maps
from onnx_inspect.cam._masking import background, masked
from onnx_inspect.cam._params import one_of
from onnx_inspect.cam._probe import Index, Maps, Probe
from onnx_inspect.cam._superpixels import grid, slic


def check_segmentation(kind: str) -> None:
    """Refuse a segmentation that is neither ``slic`` nor ``grid``.

    Raises
    ------
    ValueError
    """
    one_of("segmentation", kind, "slic", "grid")


def segment(inputs: Maps, kind: str, count: int, compactness: float) -> list[Index]:
    """Cut each input into about `count` superpixels: a label from 0 for every pixel, (H, W); volumes into cuboids."""
    if kind == "grid" or inputs.ndim > 4:
        return [grid(inputs.shape[2:], count)] * len(inputs)
    return [slic(picture, count, compactness) for picture in inputs]


def dimmed(
    probe: Probe,
    labels: Sequence[Index],
    designs: Sequence[Maps],
    make: Callable[[list[NDArray[np.float64]]], Maps],
    *,
    fill: str,
    probability: bool,
    first: int = 0,
) -> Maps:
    """Run inputs whose cells are shown by given shares, and make maps of what they score.

    Parameters
    ----------
    labels : sequence of N ndarrays, (H, W), int
        Each input's cells, numbered from 0.
    designs : sequence of N ndarrays, (R, cells), float32
        Share of each cell that is shown, in [0, 1]: 0 puts the fill in its place. R may differ between inputs.
    make : callable
        Each input's scores, N ndarrays (R,) -> the maps.
    first : int
        Rows of each design that can't be done without.
    """
    of = np.repeat(np.arange(len(designs)), [len(design) for design in designs])
    ends = np.cumsum([len(design) for design in designs])
    starts = ends - [len(design) for design in designs]
    hidden = background(probe.inputs, fill)
    size = probe.inputs.shape[2:]

    def rows(positions: Index) -> Maps:
        masks = np.empty((len(positions), *size), np.float32)
        for n in np.unique(of[positions]):
            here = of[positions] == n
            masks[here] = designs[n][positions[here] - starts[n]][:, labels[n]]
        return masked(probe.inputs, hidden, of[positions], masks)

    plan = Plan(
        rows=rows,
        of=of,
        make=lambda scores: make(np.split(scores, ends[:-1])),
        masks=[np.arange(start, end)[:, None] for start, end in zip(starts, ends, strict=True)],
        features=lambda n: designs[n],
        probability=probability,
        first=first,
    )
    return maps(probe, plan)


def paint(labels: Sequence[Index], values: Sequence[NDArray[np.float64]]) -> Maps:
    """Give every pixel its cell's value: (N, H, W) from labels (H, W) and values (cells,) of each input."""
    return np.stack([v[cells] for cells, v in zip(labels, values, strict=True)]).astype(np.float32)
