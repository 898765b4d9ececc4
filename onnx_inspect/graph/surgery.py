"""How a model is opened (intermediates as outputs) and cut in two; the model given is never changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import onnx

from onnx_inspect.errors import LayerError
from onnx_inspect.graph.batch import varying
from onnx_inspect.graph.declare import value_info
from onnx_inspect.graph.dependence import ancestors as ancestors
from onnx_inspect.graph.dependence import dependent, descendants
from onnx_inspect.graph.lift import lift
from onnx_inspect.graph.model import Layer, Model, node_inputs


@dataclass(frozen=True)
class Cut:
    """A model split at one tensor.

    Attributes
    ----------
    tensor : str
        Where the cut runs: the head's first output, the tail's first input.
    crossing : tuple of str
        Other tensors that the tail needs (skip connections, masks): further outputs of the head and inputs of the tail.
    tail : Model
        ``tail(head(x)) == model(x)`` for the outputs that depend on `tensor`.
    whole : Model
        What was split.
    free : tuple of str
        Outputs of the whole that don't depend on `tensor`: the head's last outputs.
    """

    tensor: str
    crossing: tuple[str, ...]
    tail: Model
    whole: Model
    free: tuple[str, ...]

    @cached_property
    def head(self) -> Model:
        """The part up to the tensor; made when it is asked for, since it holds most of the weights once more."""
        wanted = dict.fromkeys([self.tensor, *self.crossing, *self.free])
        return extract(self.whole, [i.name for i in self.whole.inputs], wanted)


def expose(model: Model, layers: Iterable[Layer | str]) -> Model:
    """Return a model that also outputs the given layers (or tensors), after its own outputs.

    Types and shapes are declared where they are known and left to the runtime elsewhere. Repeats and tensors that are
    outputs already are added once. What lies inside control flow is lifted out: of an If, the branch that doesn't run
    gives an empty tensor; of a Loop or Scan, the values of all turns are stacked along a new first axis.

    Raises
    ------
    LayerError
        The model doesn't compute such a tensor, or it can't leave the control flow that it lies in.
    """
    names = [item.output.name if isinstance(item, Layer) else item for item in layers]
    present = {o.name for o in model.outputs}
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    specs = []
    for name in dict.fromkeys(n for n in names if n not in present):
        spec = model.tensor(name)
        if name not in model.producers:
            lift(proto, model, name)
            if spec.shape is not None and "If" in model.around(name):
                spec = replace(spec, shape=(None,) * len(spec.shape) or None)  # it may be empty
        specs.append(spec)
    proto.graph.output.extend(value_info(s) for s in specs)
    return replace(model, proto=proto, outputs=(*model.outputs, *specs))


def cut(model: Model, layer: Layer | str, *, outputs: Sequence[str] | None = None) -> Cut:
    """Split a model at a layer's output; `outputs` are the tensors that the tail shall make (default: the model's own).

    Nodes that only compute shapes are repeated in the tail rather than carried across, so that the tail's batch may
    differ from the head's.

    Raises
    ------
    LayerError
        No wanted output depends on the layer, or the layer is not in the main graph.
    """
    tensor = layer.output.name if isinstance(layer, Layer) else layer
    if tensor not in model.producers and tensor not in {i.name for i in model.inputs}:
        if tensor in model.tensors:
            raise LayerError(
                f"tensor {tensor!r} of {model.source} lies inside control flow: it can be exposed, but the model can't"
                " be cut there; choose a layer of the main graph"
            )
        raise LayerError(f"tensor {tensor!r} is not computed by {model.source}: it can't be cut there")
    below = descendants(model, tensor)
    wanted = [name for name in (outputs or [o.name for o in model.outputs]) if name in below and name != tensor]
    if not wanted:
        raise LayerError(f"no output of {model.source} depends on {tensor!r}: choose an earlier layer")
    needed = ancestors(model, wanted, stop={tensor})
    keep = _with_shapes(model, below & needed, tensor)
    crossing = tuple(name for name in _sources(model, keep) if name != tensor)
    free = tuple(o.name for o in model.outputs if o.name not in below)
    tail = extract(model, [tensor, *crossing], wanted, only=keep)
    tail = replace(tail, shared=frozenset({tensor, *crossing}) - varying(model) | model.shared)
    return Cut(tensor, crossing, tail, model, free)


def extract(model: Model, inputs: Sequence[str], outputs: Iterable[str], *, only: set[str] | None = None) -> Model:
    """Return the part of a model between tensors; `only` limits the nodes to those that make one of its names."""
    wanted = list(outputs)
    needed = ancestors(model, wanted, stop=set(inputs))
    nodes = [
        node
        for node in model.proto.graph.node
        if any(n in needed and n not in inputs and (only is None or n in only) for n in node.output if n)
        or (node.op_type == "Constant" and node.output[0] in needed)
    ]
    read = {name for node in nodes for name in node_inputs(node)} | set(wanted)
    proto = onnx.ModelProto(ir_version=max(model.proto.ir_version, 4))  # from 4 on initialisers need not be inputs
    proto.opset_import.extend(model.proto.opset_import)
    proto.metadata_props.extend(model.proto.metadata_props)
    proto.producer_name, proto.producer_version = model.proto.producer_name, model.proto.producer_version
    graph = proto.graph
    graph.name = model.proto.graph.name or "graph"
    graph.node.extend(nodes)
    graph.initializer.extend(t for t in model.proto.graph.initializer if t.name in read)
    graph.sparse_initializer.extend(t for t in model.proto.graph.sparse_initializer if t.values.name in read)
    own = {i.name for i in model.inputs}
    ins = tuple(model.tensor(n) for n in inputs if n in read or n not in own)
    outs = tuple(model.tensor(n) for n in wanted)
    graph.input.extend(value_info(s, needs_type=True) for s in ins)
    graph.output.extend(value_info(s) for s in outs)
    made = {name for node in nodes for name in node.output}
    layers = tuple(layer for layer in model.layers if layer.output.name in made)
    kept = {layer.index for layer in layers}
    inner = tuple(layer for layer in model.inner if layer.index in kept)
    return replace(model, proto=proto, inputs=ins, outputs=outs, layers=layers, inner=inner)


def _with_shapes(model: Model, keep: set[str], tensor: str) -> set[str]:
    """Add what only computes shapes and constants to the tail's tensors, so that it isn't carried across."""
    moved = dependent(model.proto.graph, [i.name for i in model.inputs])
    keep = keep - {tensor}
    waiting = list(_sources(model, keep))
    while waiting:
        name = waiting.pop()
        if name == tensor or name in moved or name in keep or name not in model.producers:
            continue
        keep = keep | {name}
        waiting.extend(n for n in node_inputs(model.producers[name]) if n not in model.constants)
    return keep


def _sources(model: Model, keep: set[str]) -> list[str]:
    """Return the tensors that the nodes making `keep` read from outside, constants aside, in the order of the graph."""
    made: set[str] = set()
    read: dict[str, None] = {}
    for node in model.proto.graph.node:
        if any(name in keep for name in node.output if name):
            made.update(node.output)
            read |= dict.fromkeys(node_inputs(node))
    return [name for name in read if name not in made and name not in model.constants]
