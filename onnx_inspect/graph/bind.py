"""Which shape each tensor has, and which nodes run, once the inputs' shapes are chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TypeProto, numpy_helper

from onnx_inspect.errors import InputError, ModelError
from onnx_inspect.graph.batch import batch_axes
from onnx_inspect.graph.constants import attribute, evaluate, read
from onnx_inspect.graph.model import Dim, Model, TensorSpec, constant_tensor, spec, subgraphs
from onnx_inspect.graph.schemaless import STANDARD, TO_FLOAT, output_types, standard
from onnx_inspect.graph.shapes import SMALL

Shape = tuple[int, ...]
ANONYMOUS = ("", "None", "?")  # symbols that exporters write for "unknown": equal ones need not be equal numbers

# Nodes that compute shapes from shapes; their values are worked out where all they read is known and small.
SHAPE_MATH = {
    *("Abs", "Add", "And", "Cast", "Ceil", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Flatten", "Floor"),
    *("Gather", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg"),
    *("NonZero", "Not", "Or", "Range", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Round", "Sign"),
    *("Slice", "Split", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where", "Xor"),
}


@dataclass(frozen=True)
class Visit:
    """One node and what is known of the tensors it reads and makes; inputs left out have an empty name.

    `bodies` holds the visits inside an If, Loop or Scan; of an If whose condition follows from the shapes, only the
    branch taken.
    """

    node: onnx.NodeProto
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    bodies: tuple[tuple[Visit, ...], ...] = ()


def bind(model: Model, shapes: Mapping[str, Shape] | None = None) -> dict[str, Shape]:
    """Shape by name of every tensor whose whole shape follows from the inputs' shapes.

    Parameters
    ----------
    shapes : mapping of input name to shape
        What the inputs get; a symbol set here holds for all inputs. The batch axis of those left out is 1, their other
        free axes stay unknown, and so does whatever follows from them: nothing is guessed.

    Raises
    ------
    InputError
        No such input, or a shape that doesn't fit it.
    """
    known = {name: s.shape for name, s in _specs(model, visits(model, shapes), input_specs(model, shapes)).items()}
    return {name: whole for name, shape in known.items() if (whole := fixed(shape)) is not None}


def fixed(shape: tuple[Dim, ...] | None) -> Shape | None:
    """Return the shape where every axis has a number, else None."""
    if shape is None or not all(isinstance(d, int) for d in shape):
        return None
    return tuple(d for d in shape if isinstance(d, int))


def input_specs(model: Model, shapes: Mapping[str, Shape] | None = None) -> dict[str, TensorSpec]:
    """Return the inputs with their shapes chosen, as for :func:`bind`.

    Raises
    ------
    InputError
        No such input, or a shape that doesn't fit it.
    """
    shapes = shapes or {}
    sizes = _symbols(model, shapes)
    axes = batch_axes(model)
    chosen = {}
    for tensor in model.inputs:
        shape: tuple[Dim, ...] | None = shapes.get(tensor.name, tensor.shape)
        if tensor.name not in shapes and shape is not None:
            batch = axes.get(tensor.name) if len(shape) > 1 else None
            dims = (1 if i == batch and not isinstance(d, int) and d not in sizes else d for i, d in enumerate(shape))
            shape = tuple(sizes.get(d, d) if isinstance(d, str) else d for d in dims)
        chosen[tensor.name] = replace(tensor, shape=shape)
    return chosen


def _symbols(model: Model, shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Number for each symbol of the inputs' shapes: as asked, and 1 for the batch."""
    inputs = {tensor.name: tensor for tensor in model.inputs}
    sizes: dict[str, int] = {}
    for name, asked in shapes.items():
        if name not in inputs:
            raise InputError(f"{model.source} has no input {name!r}; its inputs: {', '.join(inputs) or 'none'}")
        declared = inputs[name].shape
        if declared is None:
            continue
        for dim, size in zip(declared, asked, strict=False):
            same = sizes.setdefault(dim, size) == size if isinstance(dim, str) and dim not in ANONYMOUS else True
            if len(declared) != len(asked) or not same or (isinstance(dim, int) and dim != size):
                raise InputError(
                    f"input {name!r} of {model.source} is {inputs[name].describe()}, not {list(asked)}: give a shape"
                    " that fits"
                )
    for name, axis in batch_axes(model).items():
        shape = inputs[name].shape
        if axis is not None and shape is not None and len(shape) > 1:
            symbol = shape[axis]
            if isinstance(symbol, str) and symbol not in ANONYMOUS:
                sizes.setdefault(symbol, 1)
    return sizes


def visits(model: Model, shapes: Mapping[str, Shape] | None = None) -> tuple[Visit, ...]:
    """Go through the model's nodes in order with the inputs' shapes chosen as for :func:`bind`.

    Raises
    ------
    InputError
        No such input, or a shape that doesn't fit it.
    """
    known = _Known(model, _symbols(model, shapes or {}))
    known.types.update((name, _type(tensor)) for name, tensor in input_specs(model, shapes).items())
    return known.graph(model.proto.graph)


def every(run: Iterable[Visit]) -> Iterator[Visit]:
    """All visits, those in bodies right after their node."""
    for visit in run:
        yield visit
        for body in visit.bodies:
            yield from every(body)


def _specs(model: Model, run: Iterable[Visit], inputs: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """What is known by tensor name; a name that two bodies use for different shapes is left out."""
    found = dict(inputs)
    clashing = set()
    for visit in every(run):
        for tensor in visit.outputs:
            if found.setdefault(tensor.name, tensor).shape != tensor.shape:
                clashing.add(tensor.name)
    return {name: tensor for name, tensor in found.items() if name and name not in clashing}


@dataclass
class _Known:
    """Types, and the values of small constants and of shapes, found so far in one graph and those around it."""

    model: Model
    sizes: Mapping[str, int]
    types: dict[str, TypeProto] = field(default_factory=dict)
    data: dict[str, NDArray[Any]] = field(default_factory=dict)
    main: bool = True

    def graph(self, graph: onnx.GraphProto) -> tuple[Visit, ...]:
        """Visit a graph's nodes in order."""
        for stored in graph.initializer:
            self._store(stored.name, stored)
        for sparse in graph.sparse_initializer:
            kind = onnx.helper.make_tensor_type_proto(sparse.values.data_type, list(sparse.dims))
            self.types[sparse.values.name] = kind
        made = []
        for node in graph.node:
            if node.op_type == "Constant":
                if (tensor := constant_tensor(node)) is not None:
                    self._store(node.output[0], tensor)
                continue
            made.append(self._visit(node))
        return tuple(made)

    def _store(self, name: str, tensor: onnx.TensorProto) -> None:
        self.types[name] = onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        small = np.prod(tensor.dims, dtype=np.int64) <= SMALL and tensor.data_location != onnx.TensorProto.EXTERNAL
        if small and tensor.data_type != onnx.TensorProto.STRING:
            self.data[name] = read(tensor, self.model)

    def _visit(self, node: onnx.NodeProto) -> Visit:
        graphs = subgraphs(node)
        if node.op_type == "If" and node.input[0] in self.data:
            taken = "then_branch" if bool(self.data[node.input[0]].reshape(-1)[0]) else "else_branch"
            graphs = [attribute(node, taken, None)]
        inner = [_Known(self.model, self.sizes, dict(self.types), dict(self.data), False) for _ in graphs]
        bodies = tuple(known.graph(graph) for known, graph in zip(inner, graphs, strict=True))
        inferred = self._branches(node, graphs, inner) if node.op_type == "If" else self._infer(node)
        outputs = [n for n in node.output if n]
        for name in outputs:
            self.types[name] = self._complete(name, inferred.get(name))
        self._compute(node)
        return Visit(
            node,
            tuple(self._spec(name) for name in node.input),
            tuple(self._spec(name) for name in outputs),
            bodies,
        )

    def _spec(self, name: str) -> TensorSpec:
        return spec(onnx.ValueInfoProto(name=name, type=self.types.get(name) if name else None))

    def _complete(self, name: str, inferred: TypeProto | None) -> TypeProto:
        """What inference gave, or where that says less, what the model itself declares."""
        found = spec(onnx.ValueInfoProto(name=name, type=inferred))
        declared = self.model.tensor(name) if self.main else TensorSpec(name, "", None)
        shape = declared.shape and tuple(self.sizes.get(d, d) if isinstance(d, str) else d for d in declared.shape)
        if fixed(found.shape) is not None or (found.shape is not None and fixed(shape) is None):
            shape = found.shape
        return _type(TensorSpec(name, found.dtype or declared.dtype, shape))

    def _branches(
        self, node: onnx.NodeProto, graphs: list[onnx.GraphProto], inner: list[_Known]
    ) -> dict[str, TypeProto]:
        """Types of an If's outputs: those on which its branches agree."""
        agreed = {}
        for position, name in enumerate(node.output):
            kinds = [k.types.get(g.output[position].name) for k, g in zip(inner, graphs, strict=True)]
            if kinds[0] is not None and all(kind == kinds[0] for kind in kinds):
                agreed[name] = kinds[0]
        if len(graphs) == 1:
            values = {name: graphs[0].output[i].name for i, name in enumerate(node.output)}
            self.data |= {name: inner[0].data[v] for name, v in values.items() if v in inner[0].data}
        return agreed

    def _infer(self, node: onnx.NodeProto) -> dict[str, TypeProto]:
        """Types that follow for one node; empty where no rule gives them."""
        if subgraphs(node):
            return {}
        if found := output_types(node, self.types):
            return found
        try:
            if node.op_type in STANDARD and node.domain == "com.microsoft":
                rule = onnx.defs.get_schema(STANDARD[node.op_type][0], self._version(""))
                plain = standard(node, rule.attributes)
            else:
                rule = onnx.defs.get_schema(node.op_type, self._version(node.domain), node.domain)
                plain = node
            found = self._apply(rule, plain)
        except (onnx.defs.SchemaError, onnx.shape_inference.InferenceError, KeyError):
            return {}  # no rule, or one that needs more than is known
        if node.op_type in TO_FLOAT and plain is not node:
            found[node.output[0]].tensor_type.elem_type = onnx.TensorProto.FLOAT
        return found

    def _apply(self, rule: onnx.defs.OpSchema, node: onnx.NodeProto) -> dict[str, TypeProto]:
        inputs = [n for n in node.input if n]
        return onnx.shape_inference.infer_node_outputs(
            rule,
            node,
            {n: self.types[n] for n in inputs},
            {n: numpy_helper.from_array(self.data[n], n) for n in inputs if n in self.data},
            opset_imports=list(self.model.proto.opset_import),
            ir_version=self.model.proto.ir_version,
        )

    def _version(self, domain: str) -> int:
        return self.model.opsets.get(domain or "ai.onnx", 1)

    def _compute(self, node: onnx.NodeProto) -> None:
        """Work out the values of shapes."""
        shape = fixed(self._spec(node.input[0]).shape) if node.input else None
        if node.op_type in ("Shape", "Size") and shape is not None:
            part = np.array(shape[slice(attribute(node, "start", 0), attribute(node, "end", None))], np.int64)
            self.data[node.output[0]] = part if node.op_type == "Shape" else np.array(np.prod(shape, dtype=np.int64))
        if node.op_type not in SHAPE_MATH or node.domain not in ("", "ai.onnx"):
            return
        if any(n and n not in self.data for n in node.input) or not self._small(node):
            return
        try:
            results = evaluate(node, [self.data[n] if n else None for n in node.input], self.model)
        except ModelError:
            return  # an unknown value, then
        for name, value in zip(node.output, results, strict=True):
            if name:
                self.data[name] = value
                kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
                self.types[name] = onnx.helper.make_tensor_type_proto(kind, list(value.shape))

    def _small(self, node: onnx.NodeProto) -> bool:
        if node.op_type == "NonZero":
            return True  # its length is not known before it ran, but it is bounded by its input's
        shapes = [fixed(self._spec(n).shape) for n in node.output if n]
        return all(s is not None and np.prod(s, dtype=np.int64) <= SMALL for s in shapes)


def _type(tensor: TensorSpec) -> TypeProto:
    """Make a TypeProto of a tensor's spec; anonymous symbols become unknown lengths."""
    if tensor.dtype in ("sequence", "map", "optional"):
        whole = TypeProto()
        getattr(whole, f"{tensor.dtype}_type").SetInParent()
        return whole
    number: onnx.TensorProto.DataType = onnx.TensorProto.UNDEFINED
    if tensor.dtype:
        number = onnx.TensorProto.STRING if tensor.dtype == "string" else _number(tensor.dtype)
    shape = tensor.shape
    return onnx.helper.make_tensor_type_proto(number, None if shape is None else [_known(d) for d in shape])


def _known(dim: Dim) -> Dim:
    return None if dim in ANONYMOUS else dim


def _number(dtype: str) -> onnx.TensorProto.DataType:
    """ONNX's number of a dtype that numpy or ml_dtypes knows by name."""
    import ml_dtypes

    return onnx.helper.np_dtype_to_tensor_dtype(np.dtype(getattr(ml_dtypes, dtype, None) or dtype))
