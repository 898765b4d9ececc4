"""How a model whose inputs or outputs numpy has no type for is made to take and give float32 there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx

from onnx_inspect.graph.declare import elem_type, value_info
from onnx_inspect.graph.model import Model, TensorSpec

ODD = ("bfloat16", "float8", "float4", "int4", "uint4", "int2", "uint2")  # how their names start


@dataclass(frozen=True)
class Cast:
    """A model with numpy's types at its edges, and what its odd inputs and outputs are called now."""

    model: Model
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def is_odd(dtype: str) -> bool:
    """Whether numpy has no type of that name."""
    return dtype.startswith(ODD)


def cast(model: Model) -> Cast:
    """Put a Cast behind each odd input and output; a model without them is kept as it is."""
    inputs = {s.name: f"{s.name}__given" for s in model.inputs if is_odd(s.dtype)}
    outputs = {s.name: f"{s.name}__float32" for s in model.outputs if is_odd(s.dtype)}
    if not inputs and not outputs:
        return Cast(model, inputs, outputs)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    before = [_node(inputs[s.name], s.name, s.dtype) for s in model.inputs if s.name in inputs]
    after = [_node(s.name, outputs[s.name], "float32") for s in model.outputs if s.name in outputs]
    for infos, specs, names in ((graph.input, model.inputs, inputs), (graph.output, model.outputs, outputs)):
        known = {s.name: s for s in specs}
        for info in infos:
            if info.name in names:
                _declare(info, known[info.name], names[info.name])
    nodes = [*before, *(onnx.NodeProto.FromString(n.SerializeToString()) for n in graph.node), *after]
    del graph.node[:]
    graph.node.extend(nodes)
    return Cast(replace(model, proto=proto), inputs, outputs)


def _node(source: str, made: str, dtype: str) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [source], [made], name=made, to=elem_type(dtype))


def _declare(info: onnx.ValueInfoProto, spec: TensorSpec, name: str) -> None:
    info.CopyFrom(value_info(replace(spec, name=name, dtype="float32")))
