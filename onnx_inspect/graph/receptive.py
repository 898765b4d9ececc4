"""Which part of the input can change a position of a layer: receptive fields, followed through the graph exactly.

Every tensor gets, for each axis of the input's plane, the first and last position that any of its own positions hangs
on. Windows (convolutions, poolings, Resize, Pad) widen it by what they read: kernel, stride, dilation and padding.
Branches that meet give the smallest interval that holds both. What moves values without mixing them (Reshape,
Transpose, Slice, Split, Gather) carries it along. An operator that isn't known here may read everything, so a field is
never too small. Channels aren't told apart: a field is that of all channels at one position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_inspect.graph import windows
from onnx_inspect.graph.constants import Scope, attribute
from onnx_inspect.graph.fields import BEYOND, Field, Places, reshaped, union
from onnx_inspect.graph.model import Model, node_inputs
from onnx_inspect.graph.moves import Shapes

POINTWISE = frozenset(
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BatchNormalization BiasGelu BitShift BitwiseAnd BitwiseNot BitwiseOr"
    " BitwiseXor Bernoulli Cast CastLike Ceil Celu Clip Cos Cosh DequantizeLinear Div Dropout DynamicQuantizeLinear Elu"
    " Equal Erf Exp Expand FastGelu Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN"
    " LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow QLinearAdd"
    " QLinearLeakyRelu QLinearMul QLinearSigmoid QuantizeLinear QuickGelu Reciprocal Relu Round Selu Shrink Sigmoid"
    " Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor LRN".split()
)
SHAPES = frozenset({"Shape", "Size", "ConstantOfShape", "Range", "EyeLike"})  # their values hang on no input's values
CONVOLUTIONS = frozenset("Conv ConvInteger QLinearConv FusedConv NhwcConv NhwcFusedConv".split())
POOLINGS = frozenset("MaxPool AveragePool LpPool QLinearAveragePool".split())
GLOBAL = frozenset("GlobalAveragePool GlobalMaxPool GlobalLpPool QLinearGlobalAveragePool".split())
MATRICES = {"MatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3, "FusedMatMul": 1}  # where the second factor stands
RESHAPES = frozenset("Reshape Flatten Squeeze Unsqueeze".split())


def receptive(model: Model, shapes: Shapes, tensor: str, start: Field) -> dict[str, Field]:
    """Receptive fields of all tensors that hang on an input.

    Parameters
    ----------
    shapes : mapping of tensor name to tuple of int
        Concrete ones for one sample.
    tensor : str
        The input.
    start : Field
        Its own field: see :func:`onnx_inspect.graph.fields.plane`.

    Returns
    -------
    dict of tensor name to Field
        What no value of the input reaches isn't in it.
    """
    known = {name: tuple(t.dims) for name, t in model.constants.items()} | dict(shapes)
    walk = _Walk(known, Scope(model, model.proto.graph), {tensor: start})
    for node in model.proto.graph.node:
        if node.op_type not in SHAPES and any(name in walk.found for name in node_inputs(node)):
            for name, field in zip_longest(node.output, walk.made(node)):
                if name and field is not None:
                    walk.found[name] = field
    return walk.found


@dataclass(frozen=True)
class _Walk:
    shapes: Mapping[str, tuple[int, ...]]
    scope: Scope
    found: dict[str, Field]

    def made(self, node: onnx.NodeProto) -> list[Field]:
        """Fields of what a node makes."""
        kind, out = node.op_type, self.shapes.get(node.output[0]) if node.output else None
        first = self.found.get(node.input[0]) if node.input else None
        before = self.shapes.get(node.input[0]) if node.input else None
        single: Field | None = None
        if kind in POINTWISE:
            single = union(*(self.found[n] for n in node_inputs(node) if n in self.found))
        elif out is None or before is None:
            pass
        elif kind in MATRICES:
            single = self._matrix(node, MATRICES[kind])
        elif kind == "Gemm":
            single = self._gemm(node)
        elif kind == "Concat":
            single = self._concat(node, out)
        elif first is not None:
            if kind == "Split":
                return self._split(node, first.ranked(len(before)), before)
            single = self._one(node, first.ranked(len(before)), before, out)
        return [single or self._all(node, self.shapes.get(name)) for name in node.output]

    def _one(self, node: onnx.NodeProto, field: Field, before: tuple[int, ...], out: tuple[int, ...]) -> Field | None:
        """Field of what a node makes of one tensor; None where the operator isn't known."""
        kind = node.op_type
        if kind in CONVOLUTIONS or kind in POOLINGS or kind == "ConvTranspose":
            return self._window(node, field, before, out)
        if kind in GLOBAL:
            return field.over(range(1, len(before)))
        if kind in RESHAPES:
            return reshaped(field, before, out)
        if kind == "Transpose":
            order = attribute(node, "perm", None) or list(range(len(before)))[::-1]
            return field.moved(lambda array: array.transpose(order))
        if kind.startswith("Reduce") or kind in ("ArgMax", "ArgMin"):
            return self._reduced(node, field, len(before))
        if kind in ("Softmax", "LogSoftmax", "Hardmax", "LayerNormalization", "LpNormalization", "CumSum"):
            return self._along(node, field, len(before))
        if kind in ("InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization"):
            return field.over(range(1, len(before)))
        if kind == "Pad":
            return self._pad(node, field, before, out)
        if kind == "Slice":
            return self._slice(node, field, before)
        if kind == "Gather":
            return self._gather(node, field, before)
        if kind in ("Resize", "Upsample"):
            return self._resize(node, field, before, out)
        if kind in ("DepthToSpace", "SpaceToDepth"):
            return self._blocks(node, field, before, out)
        return None

    def _all(self, node: onnx.NodeProto, shape: tuple[int, ...] | None) -> Field:
        rank = len(shape) if shape is not None else 0
        return union(*(self.found[n].whole(rank) for n in node_inputs(node) if n in self.found))

    def _window(
        self, node: onnx.NodeProto, field: Field, before: tuple[int, ...], out: tuple[int, ...]
    ) -> Field | None:
        last = node.op_type.startswith("Nhwc") or bool(attribute(node, "channels_last", 0))
        where = 3 if node.op_type == "QLinearConv" else 1
        weight = self.shapes.get(node.input[where]) if len(node.input) > where else None
        kernel = windows.kernel_of(node, None if node.op_type in POOLINGS else weight)
        if kernel is None or len(kernel) != len(before) - 2:
            return None
        taps = windows.transposed if node.op_type == "ConvTranspose" else windows.convolution
        if node.op_type not in POOLINGS:
            field = field.over([len(before) - 1 if last else 1])
        for axis in range(len(kernel)):
            place = axis + (1 if last else 2)
            field = field.tapped(place, taps(node, kernel, axis, before[place], out[place]))
        return field

    def _resize(
        self, node: onnx.NodeProto, field: Field, before: tuple[int, ...], out: tuple[int, ...]
    ) -> Field | None:
        stated = self._constant(node, 2 if node.op_type == "Resize" and len(node.input) > 2 else 1)
        scales = attribute(node, "scales", None) if stated is None or stated.size != len(before) else stated.tolist()
        for axis, (read, made) in enumerate(zip(before, out, strict=True)):
            if read == made:
                continue
            taps = windows.resized(node, read, made, float(scales[axis]) if scales else None)
            if taps is None:
                return None
            field = field.tapped(axis, taps)
        return field

    def _pad(self, node: onnx.NodeProto, field: Field, before: tuple[int, ...], out: tuple[int, ...]) -> Field | None:
        stated = self._constant(node, 1)
        pads = attribute(node, "pads", None) if stated is None else stated.astype(int).tolist()
        if pads is None:
            return None
        named = self._constant(node, 3)
        axes = range(len(before)) if named is None else [int(a) % len(before) for a in named]
        mode = attribute(node, "mode", "constant")
        for axis, ahead in zip(axes, pads, strict=False):
            if before[axis] != out[axis] or ahead:
                field = field.tapped(axis, windows.padded(ahead, before[axis], out[axis], str(mode)))
        return field

    def _slice(self, node: onnx.NodeProto, field: Field, before: tuple[int, ...]) -> Field | None:
        parts = [self._constant(node, n) for n in range(1, 5)]
        starts = attribute(node, "starts", None) if parts[0] is None else parts[0].tolist()
        stops = attribute(node, "ends", None) if parts[1] is None else parts[1].tolist()
        if starts is None or stops is None:
            return None
        axes = attribute(node, "axes", None) if parts[2] is None else parts[2].tolist()
        steps = [1] * len(starts) if parts[3] is None else parts[3].tolist()
        for axis, start, stop, step in zip(axes or range(len(starts)), starts, stops, steps, strict=False):
            read = before[axis % len(before)]
            stop = None if step < 0 and stop < -read else stop  # what lies before the first
            places = np.arange(read)[slice(int(start), None if stop is None else int(stop), int(step))]
            field = field.tapped(axis % len(before), places[:, None])
        return field

    def _gather(self, node: onnx.NodeProto, field: Field, before: tuple[int, ...]) -> Field | None:
        places, axis = self._constant(node, 1), int(attribute(node, "axis", 0)) % len(before)
        if places is None:
            return None
        flat = field.tapped(axis, places.reshape(-1, 1).astype(np.int64) % before[axis])

        def change(array: Places) -> Places:
            own = places.shape if array.shape[axis] == places.size and places.size else (1,) * places.ndim
            return array.reshape(*array.shape[:axis], *own, *array.shape[axis + 1 :])

        return flat.moved(change)

    def _split(self, node: onnx.NodeProto, field: Field, before: tuple[int, ...]) -> list[Field]:
        axis = int(attribute(node, "axis", 0)) % len(before)
        shapes = [self.shapes.get(name) for name in node.output]
        if any(shape is None for shape in shapes):
            return [self._all(node, shape) for shape in shapes]
        sizes = [shape[axis] for shape in shapes if shape is not None]
        ends = np.cumsum([0, *sizes])
        return [field.tapped(axis, np.arange(ends[n], ends[n + 1])[:, None]) for n in range(len(sizes))]

    def _blocks(self, node: onnx.NodeProto, field: Field, before: tuple[int, ...], out: tuple[int, ...]) -> Field:
        """DepthToSpace and SpaceToDepth: positions that become channels, or come from them."""
        size, field = int(attribute(node, "blocksize", 1)), field.over([1])
        for axis in (2, 3):
            places = np.arange(out[axis])[:, None]
            into = node.op_type == "SpaceToDepth"
            field = field.tapped(axis, places * size + np.arange(size) if into else places // size)
        return field

    def _concat(self, node: onnx.NodeProto, out: tuple[int, ...]) -> Field | None:
        axis = int(attribute(node, "axis", 1)) % len(out)
        parts = [self.found[n].ranked(len(out)) if n in self.found else None for n in node.input]
        sizes = [self.shapes.get(n) for n in node.input]
        known = [part for part in parts if part is not None]
        if any(size is None for size in sizes):
            return None
        if all(s.shape[axis] == 1 for part in known for s in part.starts) and axis == 1 and len(out) > 3:
            return union(*known)  # channels aren't told apart
        nothing = known[0].moved(lambda a: np.zeros((1,) * len(out), np.int32))
        empty = Field(tuple(np.full_like(s, BEYOND) for s in nothing.starts), nothing.stops)
        whole = [(part or empty, size[axis]) for part, size in zip(parts, sizes, strict=True) if size is not None]

        def joined(arrays: list[tuple[Places, int]]) -> Places:
            if all(a.shape[axis] == 1 for a, _ in arrays) and all(np.array_equal(a, arrays[0][0]) for a, _ in arrays):
                return arrays[0][0]
            shape = list(np.broadcast_shapes(*((*a.shape[:axis], 1, *a.shape[axis + 1 :]) for a, _ in arrays)))
            return np.concatenate(
                [np.broadcast_to(a, (*shape[:axis], size, *shape[axis + 1 :])) for a, size in arrays], axis
            )

        axes = range(len(known[0].starts))
        return Field(
            tuple(joined([(part.starts[n], size) for part, size in whole]) for n in axes),
            tuple(joined([(part.stops[n], size) for part, size in whole]) for n in axes),
        )

    def _matrix(self, node: onnx.NodeProto, second: int) -> Field | None:
        """Rows of the first factor and columns of the second."""
        names = (node.input[0], node.input[second])
        ranks = [len(self.shapes[n]) if n in self.shapes else 0 for n in names]
        if min(ranks) < 2 or attribute(node, "transA", 0) or attribute(node, "transB", 0):
            return None
        return union(
            *(
                self.found[n].ranked(r).over([r - 1 - side])
                for side, (n, r) in enumerate(zip(names, ranks, strict=True))
                if n in self.found
            )
        )

    def _gemm(self, node: onnx.NodeProto) -> Field | None:
        if any(n in self.found for n in node.input[1:]) or node.input[0] not in self.found:
            return None
        field = self.found[node.input[0]].ranked(2)
        field = field.moved(np.transpose) if attribute(node, "transA", 0) else field
        return field.over([1])

    def _reduced(self, node: onnx.NodeProto, field: Field, rank: int) -> Field:
        stated = self._constant(node, 1)
        axes = attribute(node, "axes", None) if stated is None else stated.tolist()
        if node.op_type.startswith("Arg"):
            axes = [attribute(node, "axis", 0)]
        known = [int(a) % rank for a in axes] if axes else list(range(rank))
        return field.over(known, keep=bool(attribute(node, "keepdims", 1)))

    def _along(self, node: onnx.NodeProto, field: Field, rank: int) -> Field:
        """Operators that mix positions along one axis, or along it and all after it."""
        kind = node.op_type
        if kind == "CumSum":
            stated = self._constant(node, 1)
            return field.over(range(1, rank) if stated is None else [int(stated.reshape(-1)[0]) % rank])
        old = kind in ("Softmax", "LogSoftmax", "Hardmax") and self.scope.model.opsets.get("ai.onnx", 13) < 13
        axis = int(attribute(node, "axis", 1 if old else -1)) % rank
        return field.over(range(axis, rank) if old or kind == "LayerNormalization" else [axis])

    def _constant(self, node: onnx.NodeProto, number: int) -> NDArray[np.generic] | None:
        if number >= len(node.input) or not node.input[number]:
            return None
        found = self.scope.constant(node.input[number])
        return found.array() if found is not None else None
