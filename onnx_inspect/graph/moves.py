"""Where elements go in operations that only move them: windows, shifts, merged patches, and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_inspect.graph.constants import Scope, attribute

Places = NDArray[np.int32]  # a number for each element
Shapes = Mapping[str, tuple[int, ...]]

RESHAPING = frozenset("Identity Cast Dropout Reshape Flatten Squeeze Unsqueeze".split())
MOVING = RESHAPING | frozenset("Transpose Slice Split Concat Gather Pad".split())
PADDED = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}  # ONNX's names, numpy's


def moved(node: onnx.NodeProto, sources: Sequence[Places], shapes: Shapes, scope: Scope) -> list[Places] | None:
    """Numbers of the elements of a node's outputs, from those of its inputs' elements.

    Parameters
    ----------
    node : NodeProto
        One of `MOVING`.
    sources : sequence of ndarray
        Of its inputs that hold data: all of a Concat's, else the first.
    shapes : mapping
        Concrete, by tensor.

    Returns
    -------
    list of ndarray, or None
        One for each output, -1 for what is padded; None where constants or shapes that decide aren't known.
    """
    data = sources[0]
    if node.op_type in RESHAPING:
        shape = shapes.get(node.output[0])
        return None if shape is None or np.prod(shape, dtype=np.int64) != data.size else [data.reshape(shape)]
    if node.op_type == "Transpose":
        return [data.transpose(attribute(node, "perm", None))]
    if node.op_type == "Concat":
        return [np.concatenate(sources, axis=attribute(node, "axis", 0))]
    if node.op_type == "Gather":
        index = _constant(node, 1, scope)
        return None if index is None else [np.take(data, index.astype(np.intp), axis=attribute(node, "axis", 0))]
    if node.op_type == "Split":
        axis = attribute(node, "axis", 0)
        lengths = [shapes[name][axis] for name in node.output if name in shapes]
        if len(lengths) != len(node.output) or sum(lengths) != data.shape[axis]:
            return None
        return np.split(data, np.cumsum(lengths)[:-1], axis=axis)
    return _sliced(node, data, scope) if node.op_type == "Slice" else _padded(node, data, scope)


def _sliced(node: onnx.NodeProto, data: Places, scope: Scope) -> list[Places] | None:
    starts, ends = _numbers(node, 1, "starts", scope), _numbers(node, 2, "ends", scope)
    if starts is None or ends is None:
        return None
    axes, steps = _numbers(node, 3, "axes", scope), _numbers(node, 4, "steps", scope)
    given = len(node.input)
    if (axes is None and given > 3 and node.input[3]) or (steps is None and given > 4 and node.input[4]):
        return None
    index = [slice(None)] * data.ndim
    for i, axis in enumerate(axes if axes is not None else range(len(starts))):
        step = steps[i] if steps is not None else 1
        end = None if step < 0 and ends[i] < -data.shape[axis] else ends[i]
        index[axis] = slice(starts[i], end, step)
    return [data[tuple(index)]]


def _padded(node: onnx.NodeProto, data: Places, scope: Scope) -> list[Places] | None:
    pads, mode = _numbers(node, 1, "pads", scope), PADDED.get(attribute(node, "mode", "constant"))
    axes = _numbers(node, 3, "", scope)
    if pads is None or mode is None or min(pads, default=0) < 0 or (len(node.input) > 3 and node.input[3] and not axes):
        return None
    half = len(pads) // 2
    widths = [(0, 0)] * data.ndim
    for i, axis in enumerate(axes if axes is not None else range(half)):
        widths[axis] = pads[i], pads[i + half]
    if mode == "constant":
        return [np.pad(data, widths, constant_values=-1)]
    return [np.pad(data, widths, mode=mode)]  # type: ignore[call-overload]


def _numbers(node: onnx.NodeProto, position: int, name: str, scope: Scope) -> list[int] | None:
    """Integers that a node takes as an input, or as an attribute in early opsets."""
    given = attribute(node, name, None) if name else None
    if given is not None:
        return [int(v) for v in given]
    found = _constant(node, position, scope)
    return None if found is None else [int(v) for v in found.ravel()]


def _constant(node: onnx.NodeProto, position: int, scope: Scope) -> NDArray[np.int64] | None:
    if len(node.input) <= position or not node.input[position]:
        return None
    found = scope.constant(node.input[position])
    return None if found is None or found.size > 2**16 else found.array()
