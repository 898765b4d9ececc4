"""What values a graph's constants hold, also seen through nodes that only move, convert or rescale numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnx_inspect.errors import ModelError
from onnx_inspect.graph.model import Model, constant_tensor
from onnx_inspect.graph.read import external_file

Array = NDArray[Any]

# Nodes that a weight passes through on its way to the layer that uses it; none of them makes something much larger.
MOVES = {"Identity", "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Slice", "Split", "Gather"}
CONVERSIONS = {"Cast", "CastLike", "QuantizeLinear", "DequantizeLinear"}
ARITHMETIC = {"Concat", "Add", "Sub", "Mul", "Div", "Neg", "Sign", "Abs", "Sqrt", "Reciprocal", "Pow", "ReduceL2"}
FOLDED = MOVES | CONVERSIONS | ARITHMETIC


@dataclass(frozen=True, eq=False)
class Scope:
    """The names that a graph can see: the model's main graph, or a body of an If, Loop or Scan inside it."""

    model: Model
    graph: onnx.GraphProto
    parent: Scope | None = None
    path: str = ""

    def body(self, graph: onnx.GraphProto, path: str) -> Scope:
        """Scope of a body whose node lies in this one; `path` tells bodies apart that use the same names."""
        return Scope(self.model, graph, self, path)

    def named(self, name: str) -> str:
        """Name from outside of a node of this graph, as in :mod:`onnx_inspect.graph.bodies`."""
        return self.path + (name.lstrip("/") or name) if self.path else name

    def constant(self, name: str) -> Constant | None:
        """Find a tensor that only constants decide; None where an input has a say in it."""
        return self._constants[name] if name in self._constants else self._find(name)

    @cached_property
    def _constants(self) -> dict[str, Constant | None]:
        return {"": None}

    @cached_property
    def _stored(self) -> dict[str, onnx.TensorProto | onnx.SparseTensorProto]:
        found: dict[str, onnx.TensorProto | onnx.SparseTensorProto] = {t.name: t for t in self.graph.initializer}
        found |= {t.values.name: t for t in self.graph.sparse_initializer}
        for node in self.graph.node:
            if node.op_type == "Constant":
                sparse = next((a.sparse_tensor for a in node.attribute if a.name == "sparse_value"), None)
                if (tensor := constant_tensor(node) or sparse) is not None:
                    found[node.output[0]] = tensor
        return found

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """The node of this graph that makes each tensor."""
        return {name: node for node in self.graph.node for name in node.output if name}

    @cached_property
    def readers(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes of this graph that read each tensor; bodies inside it are left out."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def _formal(self) -> set[str]:
        return {v.name for v in self.graph.input}

    def _find(self, name: str) -> Constant | None:
        """Look a name up; a loop, because a chain of nodes may be longer than the recursion limit."""
        todo = [name]
        while todo:
            current = todo[-1]
            if current in self._constants:
                todo.pop()
            elif current in self._stored:
                self._constants[current] = Constant(current, self, None, ())
            elif (node := self.producers.get(current)) is not None and node.op_type in FOLDED:
                if waiting := [n for n in node.input if n and n not in self._constants]:
                    todo.append(waiting[0])
                    continue
                sources = tuple(self._constants[n] for n in node.input)
                whole = all(s is not None or not n for s, n in zip(sources, node.input, strict=True))
                self._constants[current] = Constant(current, self, node, sources) if whole else None
            elif node is not None or current in self._formal or self.parent is None:
                self._constants[current] = None
            else:
                self._constants[current] = self.parent.constant(current)
        return self._constants[name]


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that only constants decide; its numbers are read when they are asked for.

    `node` made it from `sources` (None for inputs left out); a stored tensor has no node.
    """

    name: str
    scope: Scope
    node: onnx.NodeProto | None
    sources: tuple[Constant | None, ...]

    @property
    def key(self) -> str:
        """The name, told apart from equal names in other bodies."""
        return self.scope.path + self.name

    @cached_property
    def stored(self) -> dict[str, Constant]:
        """The stored tensors whose numbers these are, by key; scales, zero points and shapes are not among them."""
        if self.node is None:
            return {self.key: self}
        sources = self.sources if self.node.op_type in ARITHMETIC else self.sources[:1]
        return {key: root for source in sources if source is not None for key, root in source.stored.items()}

    @cached_property
    def quantised(self) -> str:
        """The dtype it was quantised to before a DequantizeLinear gave it back; "" if it never was."""
        if self.node is None:
            return ""
        if self.node.op_type == "DequantizeLinear" and self.sources[0] is not None:
            return self.sources[0].dtype
        return next((source.quantised for source in self.sources if source is not None and source.quantised), "")

    @cached_property
    def dtype(self) -> str:
        """Numpy's name of the dtype."""
        if self.node is None:
            tensor = self.scope._stored[self.name]
            values = tensor.values if isinstance(tensor, onnx.SparseTensorProto) else tensor
            return str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(values.data_type)))
        known = self.scope.model.tensor(self.name).dtype if self.scope.parent is None else ""
        return known or str(self.array().dtype)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis, found without reading the numbers where the graph says it."""
        if self.node is None:
            return tuple(self.scope._stored[self.name].dims)
        known = self.scope.model.tensor(self.name).shape if self.scope.parent is None else None
        if known is not None and all(isinstance(d, int) for d in known):
            return tuple(d for d in known if isinstance(d, int))
        return self.array().shape

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return int(np.prod(self.shape, dtype=np.int64))

    def array(self) -> Array:
        """Compute the numbers, in the tensor's own dtype.

        Raises
        ------
        ModelError
            The tensor's bytes are missing or broken, or a node on the way can't be computed.
        """
        done: dict[int, Array] = {}
        for constant in self._order():
            if constant.node is None:
                done[id(constant)] = read(constant.scope._stored[constant.name], constant.scope.model)
                continue
            inputs = [None if s is None else done[id(s)] for s in constant.sources]
            outputs = evaluate(constant.node, inputs, constant.scope.model)
            done[id(constant)] = outputs[list(constant.node.output).index(constant.name)]
        return done[id(self)]

    def _order(self) -> Iterator[Constant]:
        """Itself and all it is made of, makers first."""
        seen: set[int] = set()
        todo: list[Constant] = [self]
        while todo:
            waiting = [s for s in todo[-1].sources if s is not None and id(s) not in seen]
            if waiting:
                todo.extend(waiting)
            elif id(last := todo.pop()) not in seen:
                seen.add(id(last))
                yield last


def read(tensor: onnx.TensorProto | onnx.SparseTensorProto, model: Model) -> Array:
    """Give a stored tensor's numbers in its own dtype; external data are mapped, not copied.

    Raises
    ------
    ModelError
        It holds text, or its bytes are missing or too few.
    """
    if isinstance(tensor, onnx.SparseTensorProto):
        dense: Array = np.zeros(int(np.prod(tensor.dims, dtype=np.int64)), read(tensor.values, model).dtype)
        indices = read(tensor.indices, model)
        flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), tuple(tensor.dims))
        dense[flat] = read(tensor.values, model)
        return dense.reshape(tensor.dims)
    if tensor.data_type == onnx.TensorProto.STRING:
        raise ModelError(f"{model.source}: the constant {tensor.name!r} holds text, not numbers; choose another layer")
    try:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            return _mapped(tensor, model)
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"{model.source}: the constant {tensor.name!r} is broken, its bytes don't make {list(tensor.dims)}:"
            " copy or export the model again"
        ) from error


def _mapped(tensor: onnx.TensorProto, model: Model) -> Array:
    file = external_file(tensor, model.folder, model.source)
    entries = {entry.key: entry.value for entry in tensor.external_data}
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    count = int(np.prod(tensor.dims, dtype=np.int64))
    packed = dtype.name.removeprefix("u") in ("int4", "int2", "float4_e2m1fn")
    offset, needed = int(entries.get("offset", 0)), count * dtype.itemsize
    length = int(entries.get("length", 0)) or (file.stat().st_size - offset if packed else needed)
    if offset + length > file.stat().st_size:
        raise ModelError(f"{model.source}: {file.name} is too short for weight {tensor.name!r}: it is truncated")
    if not count:
        return np.empty(tuple(tensor.dims), dtype)
    raw = np.memmap(file, np.uint8, "r", offset, (length,))
    if packed:  # several numbers share a byte: onnx unpacks them
        inline = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=raw.tobytes())
        return numpy_helper.to_array(inline)
    little: Array = raw[:needed].view(dtype if dtype.kind == "V" else dtype.newbyteorder("<")).reshape(tensor.dims)
    return little


def evaluate(node: onnx.NodeProto, inputs: list[Array | None], model: Model) -> list[Array]:
    """Compute a node's outputs from its inputs (None for those left out).

    Raises
    ------
    ModelError
        The node can't be computed from these values.
    """
    if node.op_type == "DequantizeLinear" and inputs[0] is not None and inputs[1] is not None:
        axis, block = attribute(node, "axis", 1), attribute(node, "block_size", 0)
        result = dequantise(inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None, axis=axis, block=block)
        return [result.astype(inputs[1].dtype)]
    from onnx.reference import ReferenceEvaluator  # 50 ms, for the few models that need it

    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    versions = model.opsets
    if node.domain == "com.microsoft" and node.op_type == "QuantizeLinear":  # the runtime's twin of the standard one
        copy.domain, versions = "", {**model.opsets, "ai.onnx": max(21, model.opsets.get("ai.onnx", 21))}
    given = {n: v for n, v in zip(node.input, inputs, strict=True) if n and v is not None}
    values = [onnx.helper.make_empty_tensor_value_info(n) for n in given]
    made = [onnx.helper.make_empty_tensor_value_info(n) for n in node.output if n]
    graph = onnx.helper.make_graph([copy], "node", values, made)
    opsets = [onnx.helper.make_opsetid("" if d == "ai.onnx" else d, v) for d, v in versions.items()]
    try:
        with np.errstate(all="ignore"):
            results = iter(ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=opsets)).run(None, given))
    except Exception as error:  # the reference raises whatever numpy does
        name = node.name or node.op_type
        raise ModelError(f"{model.source}: the constant node {name!r} can't be computed: {error}") from error
    return [np.asarray(next(results)) if n else np.empty(0) for n in node.output]


def dequantise(
    values: Array, scale: Array, zero_point: Array | None = None, *, axis: int = 1, block: int = 0
) -> NDArray[np.float32]:
    """Turn quantised steps into what they stand for: ``(values - zero_point) * scale``.

    Parameters
    ----------
    values : ndarray
        Any integer, float8 or float4 dtype.
    scale, zero_point : ndarray
        One number for all, one per index of `axis`, or one per `block` indices of it (then with the rank of `values`).
    axis : int
        Which axis the scales run along; ignored where there is one for all.
    block : int
        Indices of `axis` that share a scale; 0 where no blocks are used.

    Returns
    -------
    ndarray of float32, shape of `values`
        Differences are taken in float32 (float64 for int32), so that uint8 never wraps around.
    """
    wide = np.float64 if values.dtype.kind in "iu" and values.dtype.itemsize > 2 else np.float32
    steps = values.astype(wide)
    if zero_point is not None:
        steps = steps - _along(zero_point.astype(wide), values.shape, axis, block)
    return (steps * _along(scale.astype(wide), values.shape, axis, block)).astype(np.float32)


def _along(factor: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """Spread scales over the values they belong to."""
    if factor.size == 1:
        return factor.reshape(())
    if block or factor.ndim == len(shape) > 1:
        block = block or -(-shape[axis] // factor.shape[axis])
        return factor.repeat(block, axis=axis).take(np.arange(shape[axis]), axis=axis)
    view = [1] * len(shape)
    view[axis] = factor.size
    return factor.reshape(view)


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return a node's attribute by name: int, float, text, or a list; the default where it isn't set."""
    for entry in node.attribute:
        if entry.name == name:
            value = onnx.helper.get_attribute_value(entry)
            return value.decode() if isinstance(value, bytes) else value
    return default


def attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    """Return all of a node's attributes by name."""
    return {entry.name: attribute(node, entry.name, None) for entry in node.attribute}
