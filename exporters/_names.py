"""How values of a graph get the names they should have, without two of them sharing one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx


def name_outputs(proto: onnx.ModelProto, wanted: Sequence[str]) -> None:
    """Give the outputs new names, in their order and in place; a value that has a wanted name already makes way for it.

    An output that no node makes (a weight, an input, or another output once more) becomes an Identity of it.

    Parameters
    ----------
    wanted : sequence of str
        Differ from each other and from the inputs' names.
    """
    graph = proto.graph
    made = {name for node in graph.node for name in node.output}
    table: dict[str, str] = {}
    for output, name in zip(graph.output, wanted, strict=True):
        if output.name in made and output.name not in table:
            table[output.name] = name
            continue
        source, output.name = output.name, _free(name, set(_used(graph)))
        graph.node.append(onnx.helper.make_node("Identity", [source], [output.name], name=f"node_{output.name}"))
        table[output.name] = name
    present = set(_used(graph))
    for name in wanted:
        if name in present and name not in table:
            table[name] = _free(name, present | set(wanted))
            present.add(table[name])
    _apply(graph, table)


def _free(name: str, used: set[str]) -> str:
    number = 1
    while f"{name}__{number}" in used:
        number += 1
    return f"{name}__{number}"


def _graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _used(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (value.name for value in [*graph.input, *graph.output])
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from node.output
        for inner in _graphs(node):
            yield from _used(inner)


def _apply(graph: onnx.GraphProto, table: Mapping[str, str]) -> None:
    for value in [*graph.input, *graph.output, *graph.value_info]:
        value.name = table.get(value.name, value.name)
    for tensor in graph.initializer:
        tensor.name = table.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [table.get(n, n) for n in node.input]
        node.output[:] = [table.get(n, n) for n in node.output]
        for inner in _graphs(node):
            _apply(inner, table)
