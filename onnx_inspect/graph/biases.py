"""Which numbers a model adds on the way from an input to a tensor, whatever the input: its biases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_inspect.graph.constants import Scope, attribute
from onnx_inspect.graph.dependence import ancestors, dependent
from onnx_inspect.graph.model import Model

PER_CHANNEL = frozenset("Conv ConvTranspose InstanceNormalization GroupNormalization".split())  # bias at position 2
PER_FEATURE = frozenset("LayerNormalization Gemm".split())  # the same, along the last axes
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bias:
    """What is added to make a tensor.

    Attributes
    ----------
    tensor : str
        The sum: its gradient is the bias's at each position.
    values : ndarray, float64
        Broadcasts to the tensor.
    """

    tensor: str
    values: Floats


def biases(model: Model, origin: str, of: str, ranks: dict[str, int]) -> tuple[Bias, ...]:
    """Biases between an input and a tensor, in topological order.

    Of convolutions, linear layers and normalisations; constants that are added or subtracted; and the one implied by
    BatchNormalization at inference, ``b - mean * scale / sqrt(var + epsilon)``.

    Parameters
    ----------
    ranks : mapping of tensor name to int
        How many axes tensors have.
    """
    below, above = dependent(model.proto.graph, [origin]), ancestors(model, [of])
    scope = Scope(model, model.proto.graph)
    found = []
    for node in model.proto.graph.node:
        made = node.output[0] if node.output else ""
        if made in below and made in above and made in ranks and node.domain in ("", "ai.onnx"):
            values = _added(node, scope, below, ranks[made])
            if values is not None and values.any():
                found.append(Bias(made, values))
    return tuple(found)


def _added(node: onnx.NodeProto, scope: Scope, below: set[str], rank: int) -> Floats | None:
    if node.op_type == "BatchNormalization":
        scale, bias, mean, variance = (_value(scope, name) for name in node.input[1:5])
        if scale is None or bias is None or mean is None or variance is None:
            return None
        return _along_channels(bias - mean * scale / np.sqrt(variance + attribute(node, "epsilon", 1e-5)), rank)
    if node.op_type in PER_CHANNEL | PER_FEATURE:
        bias = _value(scope, node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if bias is None or node.input[0] not in below:
            return None
        if node.op_type in PER_CHANNEL:
            return _along_channels(bias, rank)
        return bias * attribute(node, "beta", 1.0) if node.op_type == "Gemm" else bias
    if node.op_type in ("Add", "Sub") and sum(name in below for name in node.input) == 1:
        second = node.input[0] in below
        bias = _value(scope, node.input[int(second)])
        return bias if bias is None or node.op_type == "Add" or not second else -bias
    return None


def _along_channels(values: Floats, rank: int) -> Floats:
    return values.reshape(-1, *(1,) * max(rank - 2, 0))


def _value(scope: Scope, name: str) -> Floats | None:
    found = scope.constant(name)
    return None if found is None else np.asarray(found.array(), np.float64)
