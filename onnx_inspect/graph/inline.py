"""How a model's local functions become plain nodes, with the call path kept in their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import onnx

from onnx_inspect.errors import ModelError

Key = tuple[str, str, str]  # (domain, name, overload)

SCOPE_KEY = "onnx_inspect.scope"
MAX_DEPTH = 64  # nesting beyond this is a cycle in all but name


def inline(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Replace every call of a local function by the function's body.

    An inlined node is named ``call/inner`` and so are the tensors it makes; its `metadata_props` hold the call path
    under ``onnx_inspect.scope``. The model given is not changed; it is returned as it is when it has no functions.

    Raises
    ------
    ModelError
        A function calls itself, or a function and the model need different versions of one operator set.
    """
    if not proto.functions:
        return proto
    functions = {(f.domain, f.name, getattr(f, "overload", "")): f for f in proto.functions}
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    del result.functions[:]
    nodes = _expand(proto.graph.node, functions, "", set(), 0)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    _merge_opsets(result, proto)
    return result


def _merge_opsets(result: onnx.ModelProto, proto: onnx.ModelProto) -> None:
    """Import what the model and its functions need, except operator sets of which only functions were used."""
    used = {node.domain for node in _every(result.graph.node)} | {"", "ai.onnx"}
    versions = {o.domain: o.version for o in proto.opset_import}
    for function in proto.functions:
        for opset in function.opset_import:
            known = versions.setdefault(opset.domain, opset.version)
            if known != opset.version and opset.domain in used:
                raise ModelError(
                    f"function {function.name!r} needs opset {opset.version} of {opset.domain or 'ai.onnx'!r},"
                    f" the model uses {known}: convert the model to one opset first"
                )
    del result.opset_import[:]
    result.opset_import.extend(onnx.helper.make_opsetid(d, v) for d, v in versions.items() if d in used)


def _every(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """All nodes, those of bodies too."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in _graphs(attribute):
                yield from _every(graph.node)


def _graphs(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    return [attribute.g] if attribute.HasField("g") else list(attribute.graphs)


def _expand(
    nodes: Iterable[onnx.NodeProto], functions: Mapping[Key, onnx.FunctionProto], path: str, calls: set[str], depth: int
) -> list[onnx.NodeProto]:
    """Nodes with all calls replaced, also in bodies; `calls` are the paths taken so far, no two of which are alike."""
    if depth > MAX_DEPTH:
        raise ModelError(f"local functions call each other without end at {path!r}")
    expanded: list[onnx.NodeProto] = []
    for index, node in enumerate(nodes):
        function = functions.get((node.domain, node.op_type, getattr(node, "overload", "")))
        if function is None:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            for attribute in copy.attribute:
                for graph in _graphs(attribute):
                    inner = _expand(graph.node, functions, path, calls, depth)
                    del graph.node[:]
                    graph.node.extend(inner)
            expanded.append(copy)
            continue
        call = node.name or f"{path}{node.op_type}_{index}"
        while call in calls:
            call = f"{call}__{index}"
        calls.add(call)
        body = [_instantiate(inner, i, node, function, f"{call}/") for i, inner in enumerate(function.node)]
        body += _handed_through(node, function, call)
        expanded.extend(_expand(body, functions, f"{call}/", calls, depth + 1))
    return expanded


def _instantiate(
    inner: onnx.NodeProto, index: int, call: onnx.NodeProto, function: onnx.FunctionProto, path: str
) -> onnx.NodeProto:
    """One node of a function's body, with the call's tensors and attributes put in."""
    names = dict(zip(function.input, [*call.input, *[""] * len(function.input)], strict=False))
    outputs = zip(function.output, call.output, strict=False)
    names |= {formal: actual for formal, actual in outputs if actual and formal not in function.input}
    given = {a.name: a for a in call.attribute}
    given = {a.name: a for a in function.attribute_proto} | given
    node = onnx.NodeProto()
    node.CopyFrom(inner)
    node.name = path + (inner.name or f"{inner.op_type}_{index}")
    node.metadata_props.append(onnx.StringStringEntryProto(key=SCOPE_KEY, value=path.rstrip("/")))
    known = {p.key for p in node.metadata_props}
    node.metadata_props.extend(p for p in call.metadata_props if p.key not in known)  # an exporter's module path
    _rename(node, names, path)
    _bind(node, given)
    return node


def _handed_through(call: onnx.NodeProto, function: onnx.FunctionProto, path: str) -> list[onnx.NodeProto]:
    """Nodes for outputs of a function that are its own inputs."""
    names = dict(zip(function.input, call.input, strict=False))
    outputs = [(f, a) for f, a in zip(function.output, call.output, strict=False) if a and f in function.input]
    return [onnx.helper.make_node("Identity", [names[f]], [a], name=f"{path}/{f}") for f, a in outputs]


def _rename(node: onnx.NodeProto, names: Mapping[str, str], path: str) -> None:
    def new(name: str) -> str:
        return names.get(name, path + name) if name else ""

    node.input[:] = [new(n) for n in node.input]
    node.output[:] = [new(n) for n in node.output]
    for attribute in node.attribute:
        for graph in _graphs(attribute):
            for value in (*graph.input, *graph.output, *graph.value_info):
                value.name = new(value.name)
            for tensor in graph.initializer:
                tensor.name = new(tensor.name)
            for inner in graph.node:
                _rename(inner, names, path)


def _bind(node: onnx.NodeProto, given: Mapping[str, onnx.AttributeProto]) -> None:
    """Replace references to the function's attributes by the values of the call; drop those it leaves out."""
    kept = []
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            value = given.get(attribute.ref_attr_name)
            if value is None:
                continue
            bound = onnx.AttributeProto()
            bound.CopyFrom(value)
            bound.name = attribute.name
            kept.append(bound)
            continue
        for graph in _graphs(attribute):
            for inner in graph.node:
                _bind(inner, given)
        kept.append(attribute)
    del node.attribute[:]
    node.attribute.extend(kept)
