"""How an operator without a rule is differentiated through the function that the ONNX standard defines it with."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_inspect.graph.declare import value_info
from onnx_inspect.graph.model import constant_tensor, subgraphs
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
    if body is None or any(subgraphs(inner) for inner in body.node):
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
            stored = constant_tensor(copied) if inner.op_type == "Constant" else None
            if stored is not None:  # stored, so that what is computed from it is known
                renamed[inner.output[0]] = writer.constant(np.asarray(numpy_helper.to_array(stored)))
                continue
            writer.copy(copied, renamed)
        return step.through([renamed.get(name, "") for name in body.output])

    return rule


def _body(node: onnx.NodeProto, writer: Writer) -> onnx.FunctionProto | None:
    """The operator's definition for the model's opset, with its attributes' defaults."""
    version = writer.model.opsets.get(node.domain or "ai.onnx", 1)
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, version, node.domain)  # its type declares too little
    except onnx.defs.SchemaError:
        return None
    plain = [v for v in schema.function_opset_versions if v <= version]
    by_context = [v for v in schema.context_dependent_function_opset_versions if v <= version]
    data = b""
    if by_context:
        types = [value_info(writer.spec(n)).type.SerializeToString() if n else b"" for n in node.input]
        whole = node.SerializeToString()
        data = schema.get_context_dependent_function_with_opset_version(max(by_context), whole, types)
    if not data and plain:
        data = schema.get_function_with_opset_version(max(plain))
    if not data:
        return None
    body = onnx.FunctionProto.FromString(data) if isinstance(data, bytes) else data
    known = {a.name for a in body.attribute_proto}
    defaults = [a.default_value for a in schema.attributes.values() if a.default_value.name and a.name not in known]
    body.attribute_proto.extend(defaults)
    return body


def _renamed(attribute: onnx.AttributeProto, name: str) -> onnx.AttributeProto:
    copied = onnx.AttributeProto()
    copied.CopyFrom(attribute)
    copied.name = name
    return copied
