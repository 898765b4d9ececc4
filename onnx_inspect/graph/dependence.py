"""Which tensors of a graph depend on which others, by their values or at all."""

from __future__ import annotations

from collections.abc import Iterable, Set

import onnx

from onnx_inspect.graph.bodies import CONTROL_FLOW
from onnx_inspect.graph.model import Model, node_inputs, subgraphs

SHAPE_READERS = ("Shape", "Size")  # their results depend on a tensor's shape, not on its values


def descendants(model: Model, tensor: str) -> set[str]:
    """Return the tensors computed from `tensor`, itself included."""
    found = {tensor}
    for node in model.proto.graph.node:
        if any(name in found for name in node_inputs(node)):
            found.update(n for n in node.output if n)
    return found


def ancestors(model: Model, tensors: Iterable[str], *, stop: Set[str] = frozenset()) -> set[str]:
    """Return the tensors needed to compute `tensors`, themselves included, without looking past those in `stop`."""
    found: set[str] = set()
    waiting = list(tensors)
    while waiting:
        name = waiting.pop()
        if name in found or not name:
            continue
        found.add(name)
        node = model.producers.get(name)
        if node is not None and name not in stop:
            waiting.extend(node_inputs(node))
    return found


def dependent(graph: onnx.GraphProto, given: Iterable[str]) -> set[str]:
    """Return the tensors whose values depend on the values of `given`, these included.

    What only reads a shape doesn't. Each output of an If, a Loop or a Scan is looked at on its own.
    """
    found = set(given)
    for node in graph.node:
        if node.op_type in SHAPE_READERS:
            continue
        if node.op_type in CONTROL_FLOW and node.domain in ("", "ai.onnx"):
            found.update(_branches(node, found) if node.op_type == "If" else _turns(node, found))
        elif any(name in found for name in node_inputs(node)):
            found.update(n for n in node.output if n)
    return found


def _branches(node: onnx.NodeProto, found: set[str]) -> set[str]:
    """Outputs of an If: all where its condition depends, else those that depend in one of the branches."""
    if node.input[0] in found:
        return set(filter(None, node.output))
    made: set[str] = set()
    for graph in subgraphs(node):
        inside = dependent(graph, found)
        made |= {name for name, inner in zip(node.output, graph.output, strict=False) if inner.name in inside and name}
    return made


def _turns(node: onnx.NodeProto, found: set[str]) -> set[str]:
    """Outputs of a Loop or Scan; what a turn hands to the next may come to depend later than in the first."""
    body = subgraphs(node)[0]
    if node.op_type == "Loop":  # reads (turns, condition, *states), its body makes (condition, *states, *stacked)
        made, states, given = body.output[1:], len(node.input) - 2, list(node.input)
        passed = list(zip(body.input[2:], made, strict=False))
    else:  # reads ([lengths], *states, *sequences), its body makes (*states, *stacked)
        states = len(body.input) - next(int(a.i) for a in node.attribute if a.name == "num_scan_inputs")
        made, given = body.output[:], list(node.input)[-len(body.input) :]
        passed = list(zip(body.input[:states], made, strict=False))
    inside = found | {formal.name for formal, actual in zip(body.input, given, strict=False) if actual in found}
    while True:
        inside = dependent(body, inside)
        later = {formal.name for formal, out in passed if out.name in inside} - inside
        if not later:
            break
        inside |= later
    outputs = [name for name in node.output if name]
    if node.op_type == "Loop" and (found & set(node.input[:2]) or body.output[0].name in inside):
        return set(outputs)  # how often it turns depends
    depend = {name for name, out in zip(node.output, made, strict=False) if out.name in inside}
    first = given[2:] if node.op_type == "Loop" else given[:states]  # a loop of no turns hands its states on
    depend |= {name for name, actual in zip(node.output, first, strict=False) if actual in found}
    return depend & set(outputs)
