"""How nodes and constants are added to a model's graph, and what is known of the tensors that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnx_inspect.graph.bind import NO_RULE, steady
from onnx_inspect.graph.constants import Scope, attribute
from onnx_inspect.graph.declare import elem_type, value_info
from onnx_inspect.graph.dependence import descendants
from onnx_inspect.graph.input_shapes import fixed
from onnx_inspect.graph.model import Model, TensorSpec, node_inputs, spec

SAME_RANK = ("Pad", "Slice", "Neg", "Resize", "CumSum")  # results have as many axes as the first input
POOLS = ("MaxPool", "AveragePool", "LpPool")
PREFIX = "gradient/"
FLOAT, DOUBLE = "float32", "float64"


class Writer:
    """Nodes to be appended to a model; it never changes the model itself.

    Attributes
    ----------
    nodes : list of NodeProto
        In the order in which they were asked for, which is a topological one.
    stored : dict of TensorProto by name
        Constants they read.
    origin : str
        The forward node that nodes are being written for; part of their names.
    notes : set of str
        What a reader of the gradients must know.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, onnx.TensorProto] = {}
        self.origin = ""
        self.notes: set[str] = set()
        self._scope = Scope(model, model.proto.graph)
        self._specs: dict[str, TensorSpec] = {}
        self._makers: dict[str, onnx.NodeProto] = {}
        self._same: dict[tuple[Any, ...], str] = {}  # constants by content, casts and shapes by what they are of
        self._prefix = PREFIX
        names = {*model.tensors, *model.producers, *model.constants, *(n.name for n in model.proto.graph.node)}
        while any(name.startswith(self._prefix) for name in names):
            self._prefix = f"{self._prefix[:-1]}_/"

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output and return the output's name."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node of `count` outputs and return their names."""
        name = self._fresh(kind)
        made = [name] if count == 1 else [f"{name}_{k}" for k in range(count)]
        self._add(onnx.helper.make_node(kind, list(inputs), made, name=name, **attributes))
        return made

    def copy(self, node: onnx.NodeProto, renamed: dict[str, str]) -> onnx.NodeProto:
        """Add a copy of a node with its tensors renamed; outputs that `renamed` doesn't hold get new names."""
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.name = self._fresh(node.op_type)
        for k, name in enumerate(node.output):
            if name:
                renamed.setdefault(name, f"{copied.name}_{k}")
        copied.input[:] = [renamed.get(name, name) for name in node.input]
        copied.output[:] = [renamed[name] if name else "" for name in node.output]
        self._add(copied)
        return copied

    def _fresh(self, kind: str) -> str:
        origin = f"{self.origin.strip('/')}/" if self.origin else ""
        return f"{self._prefix}{origin}{kind}_{len(self.nodes)}"

    def _add(self, node: onnx.NodeProto) -> None:
        self.nodes.append(node)
        self._makers.update(dict.fromkeys(node.output, node))

    def constant(self, values: NDArray[Any] | Sequence[int], dtype: str | None = None) -> str:
        """Store a constant, once for equal ones; integers are int64 unless said otherwise."""
        array = np.asarray(values, dtype=dtype or (np.int64 if not isinstance(values, np.ndarray) else None))
        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        if key not in self._same:
            name = f"{self._prefix}constant_{len(self.stored)}"
            self.stored[name] = numpy_helper.from_array(array, name)
            self._same[key] = name
        return self._same[key]

    def shape_of(self, name: str) -> str:
        """Tensor that holds another's shape at run time."""
        return self._once(("shape", name), "Shape", name)

    def cast(self, name: str, dtype: str) -> str:
        """Tensor in a given dtype; itself where it has that already."""
        if self.spec(name).dtype == dtype:
            return name
        return self._once(("cast", name, dtype), "Cast", name, to=elem_type(dtype))

    def _once(self, key: tuple[Any, ...], kind: str, *inputs: str, **attributes: Any) -> str:
        if key not in self._same:
            self._same[key] = self.op(kind, *inputs, **attributes)
        return self._same[key]

    def value(self, name: str) -> NDArray[Any] | None:
        """Numbers of a tensor that only constants decide, else None."""
        if name in self.stored:
            return numpy_helper.to_array(self.stored[name])
        if name in self._makers:
            return None
        constant = self._scope.constant(name)
        return None if constant is None else constant.array()

    def declare(self, name: str, like: str) -> None:
        """Say that a tensor has the shape of another, where inference alone can't tell."""
        self._specs[name] = replace(self.spec(like), name=name, dtype=self.spec(name).dtype)

    def spec(self, name: str) -> TensorSpec:
        """What is known of a tensor of the model, or of one that was added."""
        if name in self._specs:
            return self._specs[name]
        if name in self.stored:
            stored = self.stored[name]
            dtype = str(onnx.helper.tensor_dtype_to_np_dtype(stored.data_type))
            return TensorSpec(name, dtype, tuple(stored.dims))
        if name not in self._makers:
            return self._known(name)
        for node in self._unknown(name):
            self._infer(node)
        return self._specs.get(name, TensorSpec(name, "", None))

    def _known(self, name: str) -> TensorSpec:
        """What the model says of a tensor, its constants included."""
        if name not in self.model.tensors and name in self.model.constants:
            constant = self.model.constants[name]
            dtype = str(onnx.helper.tensor_dtype_to_np_dtype(constant.data_type))
            self._specs[name] = TensorSpec(name, dtype, tuple(constant.dims))
            return self._specs[name]
        own = self.model.tensor(name)
        if own.shape is None or not own.dtype:
            found = self._bound.get(name, own)
            own = replace(own, dtype=own.dtype or found.dtype, shape=found.shape if own.shape is None else own.shape)
        if name in self._doubtful and own.shape is not None:
            own = replace(own, shape=(None,) * len(own.shape))
        self._specs[name] = own
        return own

    @cached_property
    def _bound(self) -> dict[str, TensorSpec]:
        """What follows from the inputs' shapes where inference by symbols gave nothing: lengths that never change."""
        return steady(self.model)

    @cached_property
    def _doubtful(self) -> set[str]:
        """Tensors whose lengths inference counts wrong: it lets a rounded-up pool start windows behind the input."""
        wrong = [n for n in self.model.proto.graph.node if n.op_type in POOLS and attribute(n, "ceil_mode", 0)]
        roots = [node.output[0] for node in wrong if self._overcounted(node)]
        return {name for root in roots for name in descendants(self.model, root)}

    def _overcounted(self, node: onnx.NodeProto) -> bool:
        wide, narrow = (fixed((self.model.tensor(n).shape or (None,))[2:]) for n in (node.input[0], node.output[0]))
        if wide is None or narrow is None:
            return True
        rank = len(wide)
        strides = attribute(node, "strides", None) or [1] * rank
        begins = (attribute(node, "pads", None) or [0] * 2 * rank)[:rank]
        return any((n - 1) * s >= w + b for n, s, w, b in zip(narrow, strides, wide, begins, strict=True))

    def _unknown(self, name: str) -> list[onnx.NodeProto]:
        """Added nodes to look at, in order, before a tensor's type is known."""
        order: dict[int, onnx.NodeProto] = {}
        waiting = [name]
        while waiting:
            current = waiting[-1]
            node = self._makers.get(current)
            if node is None or current in self._specs or id(node) in order:
                waiting.pop()
                continue
            before = [n for n in node_inputs(node) if n in self._makers and n not in self._specs]
            before = [n for n in before if id(self._makers[n]) not in order]
            if before:
                waiting.extend(before)
            else:
                order[id(node)] = node
        return list(order.values())

    def _infer(self, node: onnx.NodeProto) -> None:
        """Find the types of a node's outputs from those of its inputs."""
        version = self.model.opsets.get(node.domain or "ai.onnx", 1)
        inputs = [n for n in dict.fromkeys(node.input) if n]
        found: dict[str, onnx.TypeProto] = {}
        try:
            found = onnx.shape_inference.infer_node_outputs(
                onnx.defs.get_schema(node.op_type, version, node.domain),
                node,
                {n: value_info(self.spec(n)).type for n in inputs},
                {n: self.stored[n] for n in inputs if n in self.stored},
                opset_imports=list(self.model.proto.opset_import),
                ir_version=max(self.model.proto.ir_version, 8),
            )
        except NO_RULE:
            found = {}  # no rule, or not enough known: nothing is said, then
        for name in filter(None, node.output):
            info = onnx.ValueInfoProto(name=name, type=found.get(name))
            made = spec(info) if name in found else TensorSpec(name, "", None)
            if made.shape is None and node.op_type in SAME_RANK:
                first = self.spec(node.input[0])
                shape = None if first.shape is None else (None,) * len(first.shape)
                made = replace(made, dtype=made.dtype or first.dtype, shape=shape)
            self._specs[name] = made
