"""Whether what follows a layer is pooling and one linear map, and which: the condition under which CAM is exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_inspect.errors import MethodError
from onnx_inspect.graph.constants import Scope, attribute
from onnx_inspect.graph.dependence import ancestors
from onnx_inspect.graph.model import Model
from onnx_inspect.ops import one_blas_thread

PASSING = frozenset("Identity Dropout Cast QuantizeLinear DequantizeLinear".split())
MOVING = frozenset("Reshape Flatten Squeeze Unsqueeze Transpose".split())


@dataclass(frozen=True)
class LinearHead:
    """``scores = weight @ mean over positions of A + bias``.

    Attributes
    ----------
    weight : ndarray, (classes, K), float32, or None
        None where the channels are the classes themselves.
    bias : ndarray, (classes,) or (1,), or one number
    """

    weight: NDArray[np.float32] | None
    bias: NDArray[np.float32] | np.float32

    def row(self, target: int, channels: int) -> NDArray[np.float32]:
        """Weights of one class, (K,)."""
        if self.weight is None:
            return np.eye(1, channels, target, dtype=np.float32)[0]
        return self.weight[target]

    def scores(self, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class scores (B, classes) of channel means, (B, K)."""
        if self.weight is None:
            return pooled + self.bias
        with one_blas_thread():
            return np.asarray(pooled @ self.weight.T + self.bias)


def linear_head(model: Model, tensor: str, scores: str, cells: int) -> LinearHead:
    """Read the weights of CAM from the graph between a layer's maps (of `cells` positions) and the class scores.

    Dropout, casts and quantisation steps are looked through: whether the result holds is for a run to prove.

    Raises
    ------
    MethodError
        Something on the way is no pooling or linear map; the message names the node.
    """
    scope = Scope(model, model.proto.graph)
    weight: NDArray[np.float32] | None = None
    bias: NDArray[np.float32] | np.float32 = np.float32(0)
    pooled = False
    name, needed = tensor, ancestors(model, [scores])
    while name != scores:
        node = _only_reader(model, name, scores, needed)
        if node.op_type in PASSING or (node.op_type in MOVING and (pooled or node.op_type != "Flatten")):
            name = node.output[0]
            continue
        if _pools(node, scope, cells):
            pooled = True
        elif node.op_type == "Conv" and _is_pointwise(node, scope):
            matrix = _constant(scope, node.input[1])
            weight, bias = _compose(matrix.reshape(len(matrix), -1), weight, bias)
            bias = bias + _bias(scope, node, 2)
        elif pooled and node.op_type == "Gemm" and node.input[0] == name and not attribute(node, "transA", 0):
            matrix = _constant(scope, node.input[1]) * np.float32(attribute(node, "alpha", 1.0))
            weight, bias = _compose(matrix if attribute(node, "transB", 0) else matrix.T, weight, bias)
            bias = bias + _bias(scope, node, 2) * np.float32(attribute(node, "beta", 1.0))
        elif pooled and node.op_type == "MatMul" and node.input[0] == name:
            matrix = _constant(scope, node.input[1])
            if matrix.ndim != 2:
                raise _broken(node, tensor)
            weight, bias = _compose(matrix.T, weight, bias)
        elif pooled and node.op_type == "Add":
            bias = bias + _constant(scope, next((n for n in node.input if n != name), "")).ravel()
        else:
            raise _broken(node, tensor)
        name = node.output[0]
    if not pooled:
        raise MethodError(
            f"cam needs global average pooling after the layer: none lies between {tensor!r} and the scores"
        )
    return LinearHead(weight, bias)


def _only_reader(model: Model, name: str, scores: str, needed: set[str]) -> onnx.NodeProto:
    """The one node by which a tensor decides the scores."""
    readers = [n for n in model.consumers.get(name, []) if n.op_type != "Shape" and needed.intersection(n.output)]
    if len(readers) != 1:
        raise MethodError(
            f"cam needs global average pooling and one linear layer, but {name!r} feeds {len(readers)} nodes on the way"
            f" to {scores!r}; choose a later layer or another method"
        )
    return readers[0]


def _broken(node: onnx.NodeProto, tensor: str) -> MethodError:
    return MethodError(
        f"cam needs global average pooling and one linear layer after {tensor!r}, but {node.op_type} {node.name!r}"
        " stands between; choose a later layer (--layer) or another method, for instance recipro-cam"
    )


def _pools(node: onnx.NodeProto, scope: Scope, cells: int) -> bool:
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type == "ReduceMean":
        axes = attribute(node, "axes", None)
        if axes is None and len(node.input) > 1 and (given := scope.constant(node.input[1])) is not None:
            axes = [int(v) for v in given.array().ravel()]
        return axes is not None and 0 not in axes
    if node.op_type == "AveragePool":
        kernel = attribute(node, "kernel_shape", [0])
        pads = attribute(node, "pads", [0])
        return bool(np.prod(kernel) == cells and not any(pads))
    return False


def _is_pointwise(node: onnx.NodeProto, scope: Scope) -> bool:
    found = scope.constant(node.input[1])
    return (
        found is not None
        and int(np.prod(found.shape[2:])) == 1
        and attribute(node, "group", 1) == 1
        and set(attribute(node, "strides", [1])) == {1}
        and not any(attribute(node, "pads", [0]))
    )


def _constant(scope: Scope, name: str) -> NDArray[np.float32]:
    found = scope.constant(name)
    if found is None:
        raise MethodError(f"cam needs a linear layer with constant weights, but {name!r} depends on the input")
    return found.array().astype(np.float32)


def _bias(scope: Scope, node: onnx.NodeProto, position: int) -> NDArray[np.float32] | np.float32:
    if len(node.input) <= position or not node.input[position]:
        return np.float32(0)
    return _constant(scope, node.input[position]).ravel()


def _compose(
    matrix: NDArray[np.float32], weight: NDArray[np.float32] | None, bias: NDArray[np.float32] | np.float32
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Put ``matrix @`` before what was found so far."""
    moved = matrix @ np.broadcast_to(bias, matrix.shape[1])
    return (matrix if weight is None else matrix @ weight), moved
