"""How operators that only give numbers another shape or order are differentiated."""

from __future__ import annotations

import numpy as np

from onnx_inspect.graph.rules._rule import Gradients, rule
from onnx_inspect.graph.rules._step import Step


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(step: Step) -> Gradients:
    """The gradient takes the input's shape back."""
    return {0: step.like(step.g, step.inputs[0])} if step.wants(0) else {}


@rule("Transpose")
def transpose(step: Step) -> Gradients:
    """The gradient is transposed back."""
    order = step.attribute("perm") or list(range(step.rank(step.inputs[0])))[::-1]
    return {0: step.op("Transpose", step.g, perm=[int(a) for a in np.argsort(order)])}


@rule("Expand")
def expand(step: Step) -> Gradients:
    """Summed over the axes that were repeated."""
    return {0: step.sum_to(step.g, 0)}
