"""Which shape each tensor has, and which nodes run, once the inputs' shapes are chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TypeProto, numpy_helper

from onnx_inspect.errors import ModelError
from onnx_inspect.graph.batch import ANONYMOUS, batch_axes
from onnx_inspect.graph.bodies import LOOPS
from onnx_inspect.graph.constants import attribute, evaluate, read
from onnx_inspect.graph.input_shapes import Shape, fixed, input_specs, symbols
from onnx_inspect.graph.model import Dim, Model, TensorSpec, constant_tensor, spec
from onnx_inspect.graph.schemaless import MICROSOFT, STANDARD, element, output_type, standard
from onnx_inspect.graph.shapes import SMALL

# Nodes that compute shapes from shapes; their values are worked out where all they read is known and small.
SHAPE_MATH = {
    *("Abs", "Add", "And", "Cast", "Ceil", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Flatten", "Floor"),
    *("Gather", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg"),
    *("NonZero", "Not", "Or", "Range", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Round", "Sign"),
    *("Slice", "Split", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where", "Xor"),
}

# What onnx raises where it has no rule for an operator, or one that needs more than is known, or other types.
NO_RULE = (
    onnx.defs.SchemaError,
    onnx.shape_inference.InferenceError,
    onnx.checker.ValidationError,
    *(KeyError, ValueError, RuntimeError),
)


@dataclass(frozen=True)
class Visit:
    """One node and what is known of the tensors it reads and makes; inputs left out have an empty name.

    `bodies` holds the visits inside an If, Loop or Scan; of an If whose condition follows from the shapes, only the
    branch taken. `times` is how often a loop goes round, None where that is unknown.
    """

    node: onnx.NodeProto
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    bodies: tuple[tuple[Visit, ...], ...] = ()
    times: int | None = 1


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


def steady(model: Model) -> dict[str, TensorSpec]:
    """What of each tensor's shape is the same whatever is fed: found by trying two sizes for every free axis.

    For what inference by symbols alone can't tell; lengths that vary are None, and so is a shape whose rank does.
    """
    runs = [_tried(model, size) for size in (2, 3)]
    found = {}
    for name in runs[0].keys() & runs[1].keys():
        one, other = runs[0][name], runs[1][name]
        if one.shape is None or other.shape is None or len(one.shape) != len(other.shape):
            found[name] = replace(one, shape=None)
            continue
        dims = zip(one.shape, other.shape, strict=True)
        found[name] = replace(one, shape=tuple(a if a == b and isinstance(a, int) else None for a, b in dims))
    return found


def _tried(model: Model, size: int) -> dict[str, TensorSpec]:
    """Specs with `size` samples, and other free axes of 32 times as much."""
    axes = batch_axes(model)
    shapes: dict[str, Shape] = {}
    given: dict[str, int] = {}
    for tensor in model.inputs:
        if tensor.shape is not None:
            for i, d in enumerate(tensor.shape):
                if isinstance(d, str) and d not in ANONYMOUS:
                    given.setdefault(d, size if i == axes[tensor.name] else 32 * size)
            whole = []
            for i, d in enumerate(tensor.shape):
                free = size if i == axes[tensor.name] else 32 * size
                whole.append(d if isinstance(d, int) else given.get(d or "", free))
            shapes[tensor.name] = tuple(whole)
    return _specs(model, visits(model, shapes), input_specs(model, shapes))


def visits(model: Model, shapes: Mapping[str, Shape] | None = None) -> tuple[Visit, ...]:
    """Go through the model's nodes in order with the inputs' shapes chosen as for :func:`bind`.

    Raises
    ------
    InputError
        No such input, or a shape that doesn't fit it.
    """
    known = _Known(model, symbols(model, shapes or {}))
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
        bodies: tuple[tuple[Visit, ...], ...] = ()
        times: int | None = 1
        if node.op_type == "If":
            bodies, inferred = self._branches(node)
        elif node.op_type in LOOPS:
            bodies, inferred, times = self._turns(node)
        else:
            inferred = self._infer(node)
        outputs = [n for n in node.output if n]
        for name in outputs:
            self.types[name] = self._complete(name, inferred.get(name))
        self._compute(node)
        inputs = tuple(self._spec(name) for name in node.input)
        return Visit(node, inputs, tuple(self._spec(name) for name in outputs), bodies, times)

    def _inside(self) -> _Known:
        return _Known(self.model, self.sizes, dict(self.types), dict(self.data), False)

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

    def _branches(self, node: onnx.NodeProto) -> tuple[tuple[tuple[Visit, ...], ...], dict[str, TypeProto]]:
        """Visit an If's branches; its outputs' types are what they agree on."""
        names = ["then_branch", "else_branch"]
        if node.input[0] in self.data:
            names = names[:1] if bool(self.data[node.input[0]].reshape(-1)[0]) else names[1:]
        graphs = [attribute(node, name, None) for name in names]
        inner = [self._inside() for _ in graphs]
        bodies = tuple(known.graph(graph) for known, graph in zip(inner, graphs, strict=True))
        agreed = {}
        for position, name in enumerate(node.output):
            made = [graph.output[position].name for graph in graphs]
            agreed[name] = _agreed(name, [k._spec(n) for k, n in zip(inner, made, strict=True)])
            if len(graphs) == 1 and made[0] in inner[0].data:
                self.data[name] = inner[0].data[made[0]]
        return bodies, agreed

    def _turns(self, node: onnx.NodeProto) -> tuple[tuple[tuple[Visit, ...], ...], dict[str, TypeProto], int | None]:
        """Visit a loop's body once, with what stays the same from turn to turn; count the turns."""
        graph = attribute(node, "body", None)
        loop = node.op_type == "Loop"
        scanned = 0 if loop else attribute(node, "num_scan_inputs", 0)
        first = 2 if loop else 0  # of the states, among the inputs of the node as of the body
        states = list(node.input)[first : len(node.input) - scanned]
        formal, made = [v.name for v in graph.input], [v.name for v in graph.output]
        types = [self.types.get(name, TypeProto()) for name in states]
        while True:
            inner = self._inside()
            if loop:
                inner.types |= dict(zip(formal, (_scalar("int64"), _scalar("bool")), strict=False))
                if not node.input[1] or bool(np.all(self.data.get(node.input[1], False))):
                    inner.data[formal[1]] = np.array(True)
            else:
                items = [_item(self._spec(name)) for name in node.input[len(states) :]]
                inner.types |= {n: _type(s) for n, s in zip(formal[len(states) :], items, strict=True)}
            inner.types |= dict(zip(formal[first:], types, strict=False))
            body = inner.graph(graph)
            after = [inner._spec(name) for name in made[1 if loop else 0 :]][: len(states)]
            same = [_agreed("", [_named(kind), s]) for kind, s in zip(types, after, strict=True)]
            if same == types:
                break
            types = same
        times = self._count(node, inner, made) if loop else self._length(node, len(states))
        stacked = [inner._spec(name) for name in made[len(states) + (1 if loop else 0) :]]
        rest = [_type(replace(s, shape=None if s.shape is None else (times, *s.shape))) for s in stacked]
        return (body,), dict(zip(node.output, [*types, *rest], strict=False)), times

    def _count(self, node: onnx.NodeProto, inner: _Known, made: list[str]) -> int | None:
        """Turns of a Loop whose number is known and that nothing ends early."""
        number = self.data.get(node.input[0]) if node.input[0] else None
        endless = bool(np.all(inner.data.get(made[0], False)))
        return int(number.reshape(-1)[0]) if number is not None and endless else None

    def _length(self, node: onnx.NodeProto, states: int) -> int | None:
        """Turns of a Scan: the length of what it goes through, along its first axis."""
        shape = fixed(self._spec(node.input[states]).shape)
        return shape[0] if shape and not any(attribute(node, "scan_input_axes", [])) else None

    def _infer(self, node: onnx.NodeProto) -> dict[str, TypeProto]:
        """Types that follow for one node; empty where no rule gives them."""
        if (found := output_type(node, self.types)) is not None:
            return {node.output[0]: found}
        try:
            if node.domain == MICROSOFT and node.op_type in STANDARD and not attribute(node, "channels_last", 0):
                rule = onnx.defs.get_schema(STANDARD[node.op_type][0], 13)  # there Gemm's third input is optional
                plain = standard(node, rule.attributes)
                types = {n: _type(replace(self._spec(n), dtype="float32")) for n in plain.input}  # all one type
                made = self._apply(rule, plain, types)[plain.output[0]]
                made.tensor_type.elem_type = element(node, self.types)
                return {plain.output[0]: made}
            rule = onnx.defs.get_schema(node.op_type, self._version(node.domain), node.domain)
            return self._apply(rule, node, self.types)
        except NO_RULE:
            return {}

    def _apply(
        self, rule: onnx.defs.OpSchema, node: onnx.NodeProto, types: Mapping[str, TypeProto]
    ) -> dict[str, TypeProto]:
        inputs = [n for n in node.input if n]
        return onnx.shape_inference.infer_node_outputs(
            rule,
            node,
            {n: types[n] for n in inputs},
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


def _agreed(name: str, specs: list[TensorSpec]) -> TypeProto:
    """Type on which several specs agree."""
    dtype = specs[0].dtype if len({s.dtype for s in specs}) == 1 else ""
    shapes = [s.shape for s in specs if s.shape is not None]
    shape: tuple[Dim, ...] | None = None
    if len(shapes) == len(specs) and len({len(s) for s in shapes}) == 1:
        shape = tuple(dims[0] if len(set(dims)) == 1 else None for dims in zip(*shapes, strict=True))
    return _type(TensorSpec(name, dtype, shape))


def _named(kind: TypeProto) -> TensorSpec:
    return spec(onnx.ValueInfoProto(type=kind))


def _scalar(dtype: str) -> TypeProto:
    return _type(TensorSpec("", dtype, ()))


def _item(tensor: TensorSpec) -> TensorSpec:
    """What one turn of a Scan gets of a tensor."""
    return replace(tensor, shape=tensor.shape[1:] if tensor.shape else None)


def _known(dim: Dim) -> Dim:
    return None if dim in ANONYMOUS else dim


def _number(dtype: str) -> onnx.TensorProto.DataType:
    """ONNX's number of a dtype that numpy or ml_dtypes knows by name."""
    import ml_dtypes

    return onnx.helper.np_dtype_to_tensor_dtype(np.dtype(getattr(ml_dtypes, dtype, None) or dtype))
