"""How windows that an attention takes for samples become one sample again, so that a model can be cut at them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_inspect.graph.batch import SYMBOL, batch_axes
from onnx_inspect.graph.build import build
from onnx_inspect.graph.model import Dim, Layer, Model, TensorSpec, node_inputs


def regrouped(model: Model, layer: Layer, shape: tuple[int, ...]) -> tuple[Model, Layer]:
    """Give each sample a row of its own in a layer's tensor (N * windows, T, K).

    Parameters
    ----------
    model : Model
    layer : Layer
    shape : tuple of int
        Of the layer's tensor for one sample: (windows, T, K).

    Returns
    -------
    Model
        Gives what the model gives; between the layer and its readers the tensor passes through the form
        (N, windows, T, K).
    Layer
        The one with that form, under the name of the layer.
    """
    name = layer.output.name
    made = f"{name}__samples"
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    for target, dims in ((f"{made}_shape", (-1, *shape)), (f"{made}_back", (-1, *shape[1:]))):
        graph.initializer.append(numpy_helper.from_array(np.array(dims, np.int64), target))
    pair = [
        onnx.helper.make_node("Reshape", [name, f"{made}_shape"], [made], name=made),
        onnx.helper.make_node("Reshape", [made, f"{made}_back"], [f"{name}__windows"], name=f"{name}__windows"),
    ]
    nodes = []
    for node in graph.node:
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        if name in node_inputs(node):
            copy.input[:] = [f"{name}__windows" if n == name else n for n in node.input]
        nodes.append(copy)
        if name in node.output:
            nodes.extend(pair)
    del graph.node[:]
    graph.node.extend(nodes)
    again = build(proto, source=model.source, digest=model.digest, folder=model.folder)
    spec = TensorSpec(made, layer.output.dtype, (_batch(model), *shape))
    again = replace(again, shared=model.shared, tensors={**again.tensors, made: spec})
    place = next(la.index for la in again.layers if la.output.name == made)
    return again, replace(layer, output=spec, index=place)


def _batch(model: Model) -> Dim:
    """What the inputs' shapes call the number of samples."""
    axes = batch_axes(model)
    found = (spec.shape[axis] for spec in model.inputs if spec.shape and (axis := axes[spec.name]) is not None)
    return next(found, SYMBOL)
