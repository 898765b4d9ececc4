"""How a model of an older operator set is brought to the one that gradients are written in.

An ONNX model has one version of each operator set, so the forward nodes have to follow.
"""

from __future__ import annotations

from dataclasses import replace

import onnx

from onnx_inspect.graph.build import build
from onnx_inspect.graph.changes import CHANGES, OPSET, OldNode
from onnx_inspect.graph.model import Model, subgraphs

IR_VERSION = 8  # the one that came with opset 18


def upgrade(model: Model) -> Model:
    """Return the model in opset 18 or later, its tensors' names and values unchanged.

    Weights that an old file lists among its inputs are no longer there: a runtime may fold them.

    Raises
    ------
    ModelError
        An operator has changed in a way that can't be written in opset 18.
    """
    version = model.opsets.get("ai.onnx", OPSET)
    if version >= OPSET:
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.ir_version = max(proto.ir_version, IR_VERSION)
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = OPSET
    weights = {t.name for t in proto.graph.initializer}
    inputs = [v for v in proto.graph.input if v.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    _upgrade_graph(proto.graph, model, version)
    newer = build(proto, source=model.source, digest=model.digest, folder=model.folder)
    specs = {name: spec for name, spec in model.tensors.items() if name not in newer.tensors or not spec.dtype}
    return replace(
        newer,
        layers=model.layers,
        inner=model.inner,
        shared=model.shared,
        tensors=specs | dict(newer.tensors),
        inputs=model.inputs,
        outputs=model.outputs,
    )


def _upgrade_graph(graph: onnx.GraphProto, model: Model, version: int) -> None:
    nodes: list[onnx.NodeProto] = []
    for node in list(graph.node):
        for body in subgraphs(node):
            _upgrade_graph(body, model, version)
        made = None
        if node.domain in ("", "ai.onnx"):
            view = OldNode(node, version, graph, model)
            if version < 6:
                view.take("consumed_inputs")
            for before, change in CHANGES.get(node.op_type, ()):
                if version < before:
                    made = change(view) or made
        nodes.extend([node] if made is None else made)
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:]
    graph.node.extend(copies)
