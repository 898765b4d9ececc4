"""What a model is: its tensors, its layers, and how people name them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import onnx
from onnx.helper import tensor_dtype_to_np_dtype

from onnx_inspect.errors import LayerError
from onnx_inspect.graph.bodies import bodies

Dim = int | str | None
METADATA_PREFIX = "onnx_inspect."  # keys that exporters stamp: onnx_inspect.preprocess, .labels, .modules


@dataclass(frozen=True)
class TensorSpec:
    """A named value of the graph.

    `dtype` is numpy's name (``float32``, ``uint8``, ``bfloat16``), or ``string``, ``sequence``, ``map``, or ``""``
    where nobody says. `shape` holds an int, a symbol or None per axis; it is None where the rank is unknown.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None

    @property
    def is_float(self) -> bool:
        """Whether it holds real numbers that aren't quantised."""
        return self.dtype.startswith(("float", "bfloat"))

    def describe(self) -> str:
        """Text like ``float32 [N, 3, 224, 224]``; a ``?`` stands for what is unknown."""
        if self.shape is None:
            return f"{self.dtype or '?'} [...]"
        return f"{self.dtype or '?'} [{', '.join('?' if d is None else str(d) for d in self.shape)}]"


@dataclass(frozen=True)
class Layer:
    """A node seen through one of its outputs: what people point at with ``--layer``.

    `index` counts the model's layers in topological order. `scope` is the source module's path where the exporter
    recorded it (``layer4.1.conv2``), else "". `around` holds the operators of the control-flow nodes that a layer lies
    in, outermost first (``("If", "Loop")``); such a layer has the index of the outermost.
    """

    name: str
    op_type: str
    output: TensorSpec
    index: int
    scope: str = ""
    around: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Model:
    """An ONNX model, checked when it was read and never changed afterwards: surgery returns new ones.

    Attributes
    ----------
    proto : onnx.ModelProto
        Local functions inlined, nodes named and sorted. External data stays in its files.
    source : str
        Where it came from.
    digest : str
        SHA-256 of the file's bytes.
    inputs, outputs : tuple of TensorSpec
        Inputs exclude initialisers, whatever the IR version lists.
    layers : tuple of Layer
        One for each node of the main graph that computes something, in topological order; Constant nodes are weights,
        not layers.
    tensors : mapping of name to TensorSpec
        What is known of them, also of those that layers inside control flow make.
    inner : tuple of Layer
        Layers inside the bodies of If, Loop and Scan, named ``If_0/then_branch/Conv_3``. Exposing lifts them out.
    folder : Path or None
        Where external data lies.
    shared : frozenset of str
        Inputs that hold one value for all samples.
    """

    proto: onnx.ModelProto
    source: str
    digest: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: tuple[Layer, ...]
    tensors: Mapping[str, TensorSpec]
    inner: tuple[Layer, ...] = ()
    folder: Path | None = None
    shared: frozenset[str] = frozenset()

    @cached_property
    def constants(self) -> dict[str, onnx.TensorProto]:
        """Initialisers and Constant nodes' tensors by name; their data may be external."""
        found = {t.name: t for t in self.proto.graph.initializer}
        for node in self.proto.graph.node:
            if node.op_type == "Constant" and (tensor := constant_tensor(node)) is not None:
                found[node.output[0]] = tensor
        return found

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """The node that makes each tensor."""
        return {name: node for node in self.proto.graph.node for name in node.output if name}

    @cached_property
    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes that read each tensor, also from inside their subgraphs."""
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.proto.graph.node:
            for name in node_inputs(node):
                readers.setdefault(name, []).append(node)
        return readers

    @cached_property
    def opsets(self) -> dict[str, int]:
        """Operator set versions by domain; the standard one is under ``ai.onnx``."""
        return {o.domain or "ai.onnx": o.version for o in self.proto.opset_import}

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The model's own key-value notes."""
        return {p.key: p.value for p in self.proto.metadata_props}

    @cached_property
    def _by_name(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in (*self.inner, *self.layers)}

    @cached_property
    def _by_tensor(self) -> dict[str, Layer]:
        """Layers by what they make; a node's further outputs are layers of their own name."""
        table = {layer.output.name: layer for layer in (*self.inner, *self.layers)}
        made = {node.name: list(node.output) for node in self.proto.graph.node}
        for body in bodies(self.proto.graph):
            made |= {body.named(n.name): [body.named(o) for o in n.output if o] for n in body.nodes}
        for layer in (*self.inner, *self.layers):
            for name in made[layer.name]:
                if name and name not in table and name in self.tensors:
                    table[name] = replace(layer, name=name, output=self.tensor(name))
        return table

    def tensor(self, name: str) -> TensorSpec:
        """Return what is known of a tensor; a name that nothing describes gives an empty dtype and shape."""
        return self.tensors.get(name, TensorSpec(name, "", None))

    def around(self, tensor: str) -> tuple[str, ...]:
        """Operators of the control flow that a tensor is computed in, outermost first; none in the main graph."""
        return self._by_tensor[tensor].around if self.inner and tensor in self._by_tensor else ()

    def layer(self, text: str) -> Layer:
        """Find one layer the ways people name it.

        Tried in this order: node name, tensor name, module path (``layer4.1.conv2``), glob, ``Conv:-1`` (the last
        Conv), index (``12`` or ``-1``), and the end of a name inside control flow (``LSTM`` for
        ``If_1/then_branch/LSTM``).

        Raises
        ------
        LayerError
            Nothing matches (the nearest names are given), or more than one layer does.
        """
        found = self.find(text)
        if len(found) > 1:
            names = ", ".join(layer.name for layer in found[:4])
            raise LayerError(f"layer {text!r} matches {len(found)} layers of {self.source} ({names}, ...): name one")
        return found[0]

    def find(self, text: str) -> tuple[Layer, ...]:
        """All layers that `text` names, at least one; globs may match many.

        Raises
        ------
        LayerError
            Nothing matches; the message gives the nearest names.
        """
        if exact := self._by_name.get(text) or self._by_tensor.get(text):
            return (exact,)
        if scoped := self._scoped(text):
            return (scoped,)
        both = sorted((*self.layers, *self.inner), key=lambda layer: layer.index)
        if any(c in text for c in "*?[") and (many := [la for la in both if self._matches(la, text)]):
            return tuple(many)
        if picked := self._numbered(text):
            return (picked,)
        end = "/" + text.lstrip("/")
        if inside := [la for la in self.inner if la.name.endswith(end) or la.output.name.endswith(end)]:
            return tuple(inside)
        raise self._miss(text)

    def _scoped(self, path: str) -> Layer | None:
        """Return the last layer of a module, which is the module's result."""
        modules: dict[str, str] = json.loads(self.metadata.get(METADATA_PREFIX + "modules", "{}"))
        if path in modules and modules[path] in self._by_tensor:
            return self._by_tensor[modules[path]]
        for pool in (self.layers, self.inner):
            inside = [la for la in pool if la.scope == path or la.scope.startswith(path + ".")]
            if inside and path:
                return inside[-1]
        return None

    @staticmethod
    def _matches(layer: Layer, pattern: str) -> bool:
        return any(fnmatchcase(name, pattern) for name in (layer.name, layer.output.name, layer.scope) if name)

    def _numbered(self, text: str) -> Layer | None:
        if re.fullmatch(r"-?\d+", text):
            index, pool = int(text), list(self.layers)
        elif match := re.fullmatch(r"(\w+):(-?\d+)", text):
            index, pool = int(match[2]), self._of_type(match[1])
        else:
            return None
        return pool[index] if -len(pool) <= index < len(pool) else None

    def _of_type(self, op_type: str) -> list[Layer]:
        """Layers of one operator; those inside control flow only where the main graph has none."""
        found = [la for la in self.layers if la.op_type.lower() == op_type.lower()]
        return found or [la for la in self.inner if la.op_type.lower() == op_type.lower()]

    def _miss(self, text: str) -> LayerError:
        if (match := re.fullmatch(r"(\w+):-?\d+", text)) and (pool := self._of_type(match[1])):
            kind = pool[0].op_type
            return LayerError(
                f"layer {text!r} is not in {self.source}: it has {len(pool)} {kind} layers, '{kind}:0' to"
                f" '{kind}:{len(pool) - 1}'"
            )
        names = {n: None for la in (*self.layers, *self.inner) for n in (la.name, la.output.name, la.scope) if n}
        near = difflib.get_close_matches(text, names, n=3, cutoff=0.5)
        near = near or [n for n in names if text.lower() in n.lower()][:3] or list(names)[-3:]
        closest = ", ".join(repr(n) for n in near)
        return LayerError(
            f"layer {text!r} is not in {self.source} ({len(self.layers)} layers); closest: {closest}."
            f" List them: onnx-inspect summary {self.source}"
        )


def constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Return the dense tensor of a Constant node, or None for sparse and string-list ones."""
    for attribute in node.attribute:
        if attribute.name == "value":
            return attribute.t
        if attribute.name in ("value_float", "value_floats"):
            values = list(attribute.floats) if attribute.name == "value_floats" else [attribute.f]
            dims = [len(values)] if attribute.name == "value_floats" else []
            return onnx.helper.make_tensor(node.output[0], onnx.TensorProto.FLOAT, dims, values)
        if attribute.name in ("value_int", "value_ints"):
            ints = list(attribute.ints) if attribute.name == "value_ints" else [attribute.i]
            dims = [len(ints)] if attribute.name == "value_ints" else []
            return onnx.helper.make_tensor(node.output[0], onnx.TensorProto.INT64, dims, ints)
    return None


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the bodies of a control-flow node; empty for the rest."""
    return [g for a in node.attribute for g in ([a.g] if a.HasField("g") else list(a.graphs))]


def node_inputs(node: onnx.NodeProto) -> list[str]:
    """Names a node reads, its subgraphs' captured outer values included, without repeats or blanks."""
    names = dict.fromkeys(n for n in node.input if n)
    for graph in subgraphs(node):
        names |= dict.fromkeys(_captured(graph))
    return list(names)


def _captured(graph: onnx.GraphProto) -> list[str]:
    known = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    needed: dict[str, None] = {}
    for node in graph.node:
        needed |= dict.fromkeys(n for n in node_inputs(node) if n not in known)
        known.update(node.output)
    needed |= dict.fromkeys(v.name for v in graph.output if v.name not in known)
    return list(needed)


def dtype_name(elem_type: int) -> str:
    """Numpy's or ml_dtypes' name of a type by ONNX's number, ``string``, or "" where there is none."""
    if elem_type == onnx.TensorProto.STRING:
        return "string"
    try:
        return str(tensor_dtype_to_np_dtype(elem_type))
    except KeyError:
        return ""


def spec(info: onnx.ValueInfoProto) -> TensorSpec:
    """Read a ValueInfoProto."""
    kind = info.type.WhichOneof("value")
    if kind != "tensor_type":
        return TensorSpec(info.name, (kind or "").removesuffix("_type"), None)
    tensor = info.type.tensor_type
    dtype = dtype_name(tensor.elem_type)
    if not tensor.HasField("shape"):
        return TensorSpec(info.name, dtype, None)
    shape = tuple(d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in tensor.shape.dim)
    return TensorSpec(info.name, dtype, shape)
