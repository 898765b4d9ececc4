"""How a model's local functions become plain nodes, with the call path kept in their names."""

from __future__ import annotations

from collections.abc import Mapping

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
    _merge_opsets(result, proto)
    nodes = _expand(proto.graph.node, functions, "", 0)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


def _merge_opsets(result: onnx.ModelProto, proto: onnx.ModelProto) -> None:
    local = {f.domain for f in proto.functions}
    versions = {o.domain: o.version for o in proto.opset_import}
    for function in proto.functions:
        for opset in function.opset_import:
            if opset.domain in local and opset.domain not in ("", "ai.onnx"):
                continue
            known = versions.setdefault(opset.domain, opset.version)
            if known != opset.version:
                raise ModelError(
                    f"function {function.name!r} needs opset {opset.version} of {opset.domain or 'ai.onnx'!r},"
                    f" the model uses {known}: convert the model to one opset first"
                )
    del result.opset_import[:]
    result.opset_import.extend(
        onnx.helper.make_opsetid(d, v) for d, v in versions.items() if d not in local or d in ("", "ai.onnx")
    )


def _expand(nodes, functions: Mapping[Key, onnx.FunctionProto], path: str, depth: int) -> list[onnx.NodeProto]:  # type: ignore[no-untyped-def]
    if depth > MAX_DEPTH:
        raise ModelError(f"local functions call each other without end at {path!r}")
    expanded: list[onnx.NodeProto] = []
    for index, node in enumerate(nodes):
        function = functions.get((node.domain, node.op_type, getattr(node, "overload", "")))
        if function is None:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            for attribute in copy.attribute:
                for graph in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
                    inner = _expand(graph.node, functions, path, depth)
                    del graph.node[:]
                    graph.node.extend(inner)
            expanded.append(copy)
            continue
        call = f"{path}{node.name or f'{node.op_type}_{index}'}/"
        body = [_instantiate(inner, i, node, function, call) for i, inner in enumerate(function.node)]
        expanded.extend(_expand(body, functions, "", depth + 1))
    return expanded


def _instantiate(
    inner: onnx.NodeProto, index: int, call: onnx.NodeProto, function: onnx.FunctionProto, path: str
) -> onnx.NodeProto:
    """One node of a function's body, with the call's tensors and attributes put in."""
    names = dict(zip(function.input, [*call.input, *[""] * len(function.input)], strict=False))
    names |= {formal: actual for formal, actual in zip(function.output, call.output, strict=False) if actual}
    given = {a.name: a for a in call.attribute}
    given = {a.name: a for a in function.attribute_proto} | given
    node = onnx.NodeProto()
    node.CopyFrom(inner)
    node.name = path + (inner.name or f"{inner.op_type}_{index}")
    node.metadata_props.append(onnx.StringStringEntryProto(key=SCOPE_KEY, value=path.rstrip("/")))
    _rename(node, names, path)
    _bind(node, given)
    return node


def _rename(node: onnx.NodeProto, names: Mapping[str, str], path: str) -> None:
    def new(name: str) -> str:
        return names.get(name, path + name) if name else ""

    node.input[:] = [new(n) for n in node.input]
    node.output[:] = [new(n) for n in node.output]
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
            for value in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]:
                value.name = new(value.name)
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
        for graph in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
            for inner in graph.node:
                _bind(inner, given)
        kept.append(attribute)
    del node.attribute[:]
    node.attribute.extend(kept)
