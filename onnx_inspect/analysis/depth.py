"""Which layers to look at when nobody names any."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from onnx_inspect.graph.dependence import descendants
from onnx_inspect.graph.model import Layer, Model, node_inputs

PLUMBING = frozenset(
    "Identity Cast CastLike QuantizeLinear Dropout Transpose Pad Reshape Flatten Squeeze Unsqueeze Shape Expand Slice"
    " Gather Split ConstantOfShape Range".split()
)
ELEMENTWISE = frozenset(
    "Relu LeakyRelu PRelu Clip Elu Selu Sigmoid HardSigmoid HardSwish Swish Mish Gelu Erf Tanh Softplus Softsign"
    " BatchNormalization Add Sub Mul Div Sum QuantizeLinear DequantizeLinear QLinearAdd QLinearLeakyRelu".split()
)
FEW = 4  # narrows along a network's depth: with fewer it is branched, and any layer may be chosen


def along_depth(model: Model, shapes: Mapping[str, tuple[int, ...]], *, most: int = 8) -> tuple[Layer, ...]:
    """Choose layers evenly along the network's depth, the last one included, in their order.

    Preferred are the narrows, which everything that reaches the output passes through: the outputs of residual blocks
    and of transformer blocks, not what lies inside. A layer is left out where the next one only activates, scales, adds
    to or moves what it holds.

    Parameters
    ----------
    shapes : mapping of tensor name to tuple of int
        Of one sample, for as many tensors as are known.
    most : int
        Layers at most.
    """
    live = set().union(*({spec.name} | descendants(model, spec.name) for spec in model.inputs))
    live = {name for name in live if _carries(model, name)}
    pool = [
        layer
        for layer in model.layers
        if layer.output.name in live
        and layer.op_type not in PLUMBING
        and math.prod(shapes.get(layer.output.name, (2,))) > 1
    ]
    ends = [layer for layer in pool if not _goes_on(model, layer, shapes)] or pool or list(model.layers)
    narrows = _narrows(model, live)
    through = [layer for layer in ends if layer.output.name in narrows]
    chosen = through if len(through) >= FEW else ends
    picked = np.unique(np.linspace(len(chosen) - 1, 0, min(most, len(chosen))).round().astype(int))
    return tuple(chosen[i] for i in picked)


def _carries(model: Model, name: str) -> bool:
    """Whether a tensor holds what the network computes, not shapes or indices."""
    spec = model.tensor(name)
    return spec.is_float or spec.dtype in ("", "int8", "uint8")


def _goes_on(model: Model, layer: Layer, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the only reader of a layer merely adds to it, scales or activates it."""
    readers = model.consumers.get(layer.output.name, [])
    if len(readers) != 1 or readers[0].op_type not in ELEMENTWISE or not readers[0].output:
        return False
    shape = shapes.get(layer.output.name)
    return shape is not None and shapes.get(readers[0].output[0]) == shape


def _narrows(model: Model, live: set[str]) -> set[str]:
    """Tensors that nothing passes by: whatever was computed before them isn't read any more after them."""
    nodes = model.proto.graph.node
    last = {name: place for place, node in enumerate(nodes) for name in node_inputs(node) if name in live}
    reach = max((last.get(spec.name, -1) for spec in model.inputs), default=-1)
    found = set()
    for place, node in enumerate(nodes):
        made = [name for name in node.output if name in live]
        if len(made) == 1 and reach <= place:
            found.add(made[0])
        reach = max([reach, *(last.get(name, -1) for name in made)])
    return found
