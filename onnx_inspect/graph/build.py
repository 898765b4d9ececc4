"""How an ONNX proto becomes a Model: nodes sorted and named, what it doesn't say inferred."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable
from pathlib import Path

import onnx

from onnx_inspect.errors import ModelError
from onnx_inspect.graph.bodies import bodies, stacked
from onnx_inspect.graph.inline import SCOPE_KEY
from onnx_inspect.graph.model import Layer, Model, TensorSpec, node_inputs, spec, subgraphs
from onnx_inspect.graph.shapes import inferred

TORCH_SCOPES = "pkg.torch.onnx.name_scopes"


def build(proto: onnx.ModelProto, *, source: str, digest: str, folder: Path | None) -> Model:
    """Make a Model of a proto that the caller gives away: sort and name its nodes, infer what it doesn't say.

    Raises
    ------
    ModelError
        A tensor is read that nothing makes, made twice, or shapes contradict each other.
    """
    graph = proto.graph
    weights = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    nodes = _sorted(graph, weights, source)
    _name(nodes)
    if [id(n) for n in nodes] != [id(n) for n in graph.node]:
        copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
        del graph.node[:]
        graph.node.extend(copies)
    typed = inferred(proto, source)
    tensors = {v.name: spec(v) for v in [*typed.value_info, *typed.input, *typed.output]}
    inputs = tuple(tensors.get(v.name) or spec(v) for v in graph.input if v.name not in weights)
    outputs = tuple(tensors.get(v.name) or spec(v) for v in graph.output)
    layers = tuple(
        Layer(node.name, node.op_type, tensors.get(name) or TensorSpec(name, "", None), index, _scope(node))
        for index, (node, name) in enumerate(
            (n, next(o for o in n.output if o)) for n in graph.node if n.op_type != "Constant" and any(n.output)
        )
    )
    inner, inside = _inner(typed, layers)
    return Model(proto, source, digest, inputs, outputs, layers, tensors | inside, inner=inner, folder=folder)


def _inner(typed: onnx.GraphProto, layers: Iterable[Layer]) -> tuple[tuple[Layer, ...], dict[str, TensorSpec]]:
    """Layers inside bodies, and the specs of all tensors that they make, by their names from outside.

    A loop stacks what its turns make: it puts an axis of unknown length first.
    """
    index = {layer.name: layer.index for layer in layers}
    found: list[Layer] = []
    specs: dict[str, TensorSpec] = {}
    for body in bodies(typed):
        types = {v.name: spec(v) for v in [*body.graph.value_info, *body.graph.output]}
        turns = (None,) * stacked(body.around)
        for node in body.nodes:
            made = []
            for name in filter(None, node.output):
                own = types.get(name) or TensorSpec(name, "", None)
                shape = None if own.shape is None else (*turns, *own.shape)
                made.append(TensorSpec(body.named(name), own.dtype, shape))
            specs |= {s.name: s for s in made}
            found.append(
                Layer(body.named(node.name), node.op_type, made[0], index[body.outer], _scope(node), body.around)
            )
    return tuple(found), specs


def _sorted(graph: onnx.GraphProto, weights: set[str], source: str) -> list[onnx.NodeProto]:
    """Nodes in topological order; the order given is kept where it already is one."""
    nodes = list(graph.node)
    makers: dict[str, int] = {}
    given = weights | {v.name for v in graph.input}
    for position, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in makers or name in given:
                raise ModelError(f"{source} makes the tensor {name!r} twice: it is not a valid graph")
            makers[name] = position
    readers: dict[int, list[int]] = {}
    waits = [0] * len(nodes)
    for position, node in enumerate(nodes):
        for name in node_inputs(node):
            if name in makers:
                readers.setdefault(makers[name], []).append(position)
                waits[position] += 1
            elif name not in given:
                raise ModelError(
                    f"{source}: node {node.name or node.op_type!r} reads {name!r}, which nothing makes: it is not a"
                    " valid graph"
                )
    unmade = next((v.name for v in graph.output if v.name not in makers and v.name not in given), None)
    if unmade is not None:
        raise ModelError(f"{source}: output {unmade!r} is made by nothing: it is not a valid graph")
    ready = [position for position, count in enumerate(waits) if not count]
    order: list[onnx.NodeProto] = []
    while ready:
        position = heapq.heappop(ready)
        order.append(nodes[position])
        for reader in readers.get(position, []):
            waits[reader] -= 1
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(nodes):
        node = next(n for n, count in zip(nodes, waits, strict=True) if count)
        raise ModelError(f"{source}: node {node.name or node.op_type!r} lies on a cycle: it is not a valid graph")
    return order


def _name(nodes: Iterable[onnx.NodeProto]) -> None:
    """Give every node a name of its own, also within each body: unnamed ones become ``Conv_0``, counted in order."""
    nodes = list(nodes)
    taken = {n.name for n in nodes if n.name}
    seen: set[str] = set()
    for index, node in enumerate(nodes):
        if not node.name or node.name in seen:
            base = name = node.name or f"{node.op_type}_{index}"
            while name in taken:
                name = f"{base}__{index}"
                base = name
            node.name = name
            taken.add(name)
        seen.add(node.name)
        for graph in subgraphs(node):
            _name(graph.node)


def _scope(node: onnx.NodeProto) -> str:
    """Module path that the exporter recorded (torch's dynamo metadata), else a call path that we inlined."""
    notes = {p.key: p.value for p in node.metadata_props}
    if TORCH_SCOPES in notes:
        parts = re.findall(r"'([^']*)'", notes[TORCH_SCOPES])
        return parts[-2] if len(parts) > 1 else ""
    return notes.get(SCOPE_KEY, "").replace("/", ".")
