"""D-RISE: random masks weighted by how like the detection remains (Petsiuk et al. 2020, arXiv:2006.03204).

``S = sum_m s(x * m) m`` over random masks m as RISE draws them, with
``s = max over proposals j of IoU(box, box_j) * objectness_j * cos(P, P_j)`` between the box that is explained, with its
vector P of class scores, and every proposal that the detector makes of the masked input, before any is dropped. Where
a detector has no objectness its largest class score serves; P is 1 and 0 for a box whose class is given. The paper's
5000 masks of 16 x 16 cells, each kept with probability 0.5.

The sum is scaled and, by default, centred as RISE's, which leaves its expectation and takes noise off; ``plain`` is the
paper's. For other targets take `rise`; for a box's score of one class, without the comparison of classes, too.
Cost: one full pass a mask: 5000; under a budget those that were not run get predicted scores, see `_anytime`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnx_inspect.cam._grids import averaged, check_estimator, draw
from onnx_inspect.cam._masking import check_fill
from onnx_inspect.cam._params import at_least, between
from onnx_inspect.cam._probe import Maps, Probe
from onnx_inspect.errors import MethodError

CLASS_AWARE = True
PLANES_ONLY = True
RESOLUTION = "input"
USES_LAYER = False
READING = "detection"


@dataclass(frozen=True)
class Params:
    """Number of masks, cells along a side, share of cells kept, fill and estimator."""

    masks: int = 5000
    cells: int = 16
    keep: float = 0.5
    fill: str = "zero"
    estimator: str = "centred"

    def __post_init__(self) -> None:
        """Check the values."""
        at_least("masks", self.masks, 2)
        at_least("cells", self.cells, 1)
        between("keep", self.keep, 0, 1)
        check_fill(self.fill)
        check_estimator(self.estimator)


def attribute(probe: Probe, params: Params) -> Maps:
    """Compute the maps, (N, H, W): the likeness expected where a pixel is shown, in [0, 1] but for noise.

    Raises
    ------
    MethodError
        The target is no detection.
    """
    if READING not in probe.readings:
        raise MethodError(
            "d-rise explains a box that a detector finds, which this target is not: give --target box:best or"
            " box:x0,y0,x1,y1, or take --method rise"
        )
    column = np.full(len(probe.inputs), probe.readings[READING])
    return averaged(
        replace(probe, classes=column, logits=False),
        draw(probe.rng, params.masks, params.cells, params.keep, (probe.inputs.shape[2], probe.inputs.shape[3])),
        keep=params.keep,
        fill=params.fill,
        probability=False,
        estimator=params.estimator,
    )
