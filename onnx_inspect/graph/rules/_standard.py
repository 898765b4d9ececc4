"""How an operator without a rule is differentiated through the function that the ONNX standard defines it with."""

from __future__ import annotations

from typing import Any

import onnx

from onnx_inspect.graph.declare import value_info
from onnx_inspect.graph.rules._rule import Rule
from onnx_inspect.graph.rules._step import NoRule, Step
from onnx_inspect.graph.rules._writer import Writer


def function_of(node: onnx.NodeProto, writer: Writer) -> Rule:
    """Make a rule of the standard's own definition of an operator.

    Raises
    ------
    NoRule
        The standard defines it by no function, or only for other attributes.
    """
    body = _body(node, writer)
    if body is None:
        raise NoRule("there is no rule for this operator")

    def rule(step: Step) -> dict[int, str]:
        renamed = {formal: step.inputs[i] for i, formal in enumerate(body.input) if step.has(i)}
        renamed |= {formal: "" for formal in body.input if formal not in renamed}
        given = {a.name: a for a in node.attribute}
        given |= {a.name: a for a in body.attribute_proto if a.name not in given}
        for inner in body.node:
            copied = onnx.NodeProto()
            copied.CopyFrom(inner)
            kept = [a for a in copied.attribute if not a.ref_attr_name]
            for a in copied.attribute:
                if a.ref_attr_name in given:
                    kept.append(_renamed(given[a.ref_attr_name], a.name))
            del copied.attribute[:]
            copied.attribute.extend(kept)
            writer.copy(copied, renamed)
        return step.through([renamed.get(name, "") for name in body.output])

    return rule


def _body(node: onnx.NodeProto, writer: Writer) -> onnx.FunctionProto | None:
    """The operator's definition in the model's opset, or in the one it is written in."""
    version = writer.model.opsets.get(node.domain or "ai.onnx", 1)
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, version, node.domain)  # its type declares too little
    except onnx.defs.SchemaError:
        return None
    if schema.has_context_dependent_function:
        types = [value_info(writer.spec(n)).type.SerializeToString() if n else b"" for n in node.input]
        data = schema.get_context_dependent_function(node.SerializeToString(), types)
        return onnx.FunctionProto.FromString(data) if data else None
    return schema.function_body if schema.has_function else None


def _renamed(attribute: onnx.AttributeProto, name: str) -> onnx.AttributeProto:
    copied = onnx.AttributeProto()
    copied.CopyFrom(attribute)
    copied.name = name
    return copied
