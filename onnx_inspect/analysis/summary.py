"""What a model is at a glance: its inputs and outputs, its layers, and what they hold and cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from onnx_inspect.graph.bind import visits
from onnx_inspect.graph.constants import Scope
from onnx_inspect.graph.cost import count
from onnx_inspect.graph.input_shapes import Shape, input_specs
from onnx_inspect.graph.model import Dim, Layer, Model, TensorSpec
from onnx_inspect.graph.read import external_file, external_tensors
from onnx_inspect.graph.weights import LayerWeight, layer_weights, parameters

NO_RANKS: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class LayerSummary:
    """One layer: what it makes, holds and costs.

    Attributes
    ----------
    layer : Layer
    shape : tuple or None
        Of its output as the model says it; what the model leaves open as it follows from `Summary.bound`.
    parameters : int
        Numbers learned that it uses; weights shared between layers count in each of them.
    macs : int or None
        Multiply-accumulates per run; None where unknown.
    cam_rank : int or None
        1 for the layer that a CAM uses by default, 2 for the next best; None for layers that don't suit one.
    constant : bool
        It only prepares other layers' weights, whatever the input is.
    """

    layer: Layer
    shape: tuple[Dim, ...] | None
    parameters: int
    macs: int | None
    cam_rank: int | None
    constant: bool = False


@dataclass(frozen=True)
class OpTotal:
    """All layers of one operator; `macs` is None where that of any is unknown."""

    op_type: str
    count: int
    parameters: int
    macs: int | None


@dataclass(frozen=True)
class Summary:
    """What a model is at a glance.

    Attributes
    ----------
    model : str
        Where it was read from.
    ir_version : int
    opsets : mapping of str to int
        Operator set versions by domain.
    producer : str
        Program that wrote it, with its version; "" if it doesn't say.
    parameters : int
        Numbers learned, those that layers share counted once.
    macs : int or None
        Per run with the inputs of `bound`; None where any layer's are unknown.
    known_macs, unknown_macs : int
        Sum over the layers whose cost is known; how many others there are.
    activation_bytes, peak_activation_bytes : int or None
        All activations of a run together, and the most that are alive at once.
    inputs, outputs : tuple of TensorSpec
    bound : mapping of str to shape
        Input shapes that the costs are for: the batch is 1 where nothing else was asked for.
    layers : tuple of LayerSummary
    ops : tuple of OpTotal
        Most costly first, then most frequent.
    size_bytes : int or None
        Of the file and its external data; None where it was not read from a file.
    metadata : mapping of str to str
    digest : str
        SHA-256 of the file.
    """

    model: str
    ir_version: int
    opsets: Mapping[str, int]
    producer: str
    parameters: int
    macs: int | None
    known_macs: int
    unknown_macs: int
    activation_bytes: int | None
    peak_activation_bytes: int | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    bound: Mapping[str, tuple[Dim, ...] | None]
    layers: tuple[LayerSummary, ...]
    ops: tuple[OpTotal, ...]
    size_bytes: int | None
    metadata: Mapping[str, str]
    digest: str

    @property
    def opset(self) -> int:
        """Version of the standard operators, or of the model's first operator set if it has none of them."""
        return self.opsets.get("ai.onnx", next(iter(self.opsets.values()), 0))

    def to_json(self) -> dict[str, Any]:
        """Everything, in JSON's own types."""
        return {
            "model": self.model,
            "ir_version": self.ir_version,
            "opset": self.opset,
            "opsets": dict(self.opsets),
            "producer": self.producer,
            "parameters": self.parameters,
            "macs": self.macs,
            "known_macs": self.known_macs,
            "unknown_macs": self.unknown_macs,
            "activation_bytes": self.activation_bytes,
            "peak_activation_bytes": self.peak_activation_bytes,
            "size_bytes": self.size_bytes,
            "digest": self.digest,
            "inputs": [_tensor(spec) for spec in self.inputs],
            "outputs": [_tensor(spec) for spec in self.outputs],
            "bound": {name: _shape(shape) for name, shape in self.bound.items()},
            "layers": [_layer(row) for row in self.layers],
            "ops": [vars(total) for total in self.ops],
            "metadata": dict(self.metadata),
        }


def summarise(
    model: Model, *, shapes: Mapping[str, Shape] | None = None, ranks: Mapping[str, int] = NO_RANKS
) -> Summary:
    """Describe a model; no weight is read.

    Parameters
    ----------
    shapes : mapping of input name to shape
        For the costs. Inputs left out get a batch of 1; what follows from their other free axes stays unknown.
    ranks : mapping of layer name to int
        How well layers suit a CAM, from 1.

    Raises
    ------
    InputError
        No such input, or a shape that doesn't fit it.
    """
    run = visits(model, shapes)
    cost = count(model, run)
    weights = layer_weights(model)
    found = {tensor.name: tensor.shape for visit in run for tensor in visit.outputs}
    scope = Scope(model, model.proto.graph)
    by_layer: dict[int, list[LayerWeight]] = {}
    for weight in weights:  # what lies inside control flow counts for the node of the main graph
        by_layer.setdefault(weight.layer.index, []).append(weight)
    rows = tuple(
        LayerSummary(
            layer,
            _merged(layer.output.shape, found.get(layer.output.name)),
            parameters(by_layer.get(layer.index, ())),
            cost.macs[layer.name],
            ranks.get(layer.name),
            scope.constant(layer.output.name) is not None,
        )
        for layer in model.layers
    )
    return Summary(
        model=model.source,
        ir_version=model.proto.ir_version,
        opsets=model.opsets,
        producer=f"{model.proto.producer_name} {model.proto.producer_version}".strip(),
        parameters=parameters(weights),
        macs=cost.total,
        known_macs=cost.known,
        unknown_macs=cost.unknown,
        activation_bytes=cost.total_bytes,
        peak_activation_bytes=cost.peak_bytes,
        inputs=model.inputs,
        outputs=model.outputs,
        bound={name: tensor.shape for name, tensor in input_specs(model, shapes).items()},
        layers=rows,
        ops=_totals(rows),
        size_bytes=_size(model),
        metadata=model.metadata,
        digest=model.digest,
    )


def _merged(said: tuple[Dim, ...] | None, follows: tuple[Dim, ...] | None) -> tuple[Dim, ...] | None:
    """Lengths and symbols that the model says; a number for what it leaves open where one follows."""
    if said is None or follows is None or len(said) != len(follows):
        return follows if said is None else said
    return tuple(b if isinstance(b, int) and open_ended(a) else a for a, b in zip(said, follows, strict=True))


def open_ended(dim: Dim) -> bool:
    """Whether an axis has neither a length nor a symbol that means something: converters number theirs through."""
    return dim is None or (isinstance(dim, str) and bool(re.fullmatch(r"unk__\d+|.*[Dd]ynamic.*\d+|None|\?|", dim)))


def _totals(rows: tuple[LayerSummary, ...]) -> tuple[OpTotal, ...]:
    grouped: dict[str, list[LayerSummary]] = {}
    for row in rows:
        grouped.setdefault(row.layer.op_type, []).append(row)
    totals = []
    for op, members in grouped.items():
        known = [row.macs for row in members if row.macs is not None]
        macs = sum(known) if len(known) == len(members) else None
        totals.append(OpTotal(op, len(members), sum(row.parameters for row in members), macs))
    return tuple(sorted(totals, key=lambda t: (-(t.macs or 0), -t.parameters, -t.count, t.op_type)))


def _size(model: Model) -> int | None:
    path = Path(model.source)
    if model.folder is None or not path.is_file():
        return None
    files = {external_file(tensor, model.folder, model.source) for tensor in external_tensors(model.proto)}
    return sum(file.stat().st_size for file in {path.resolve(), *files})


def _layer(row: LayerSummary) -> dict[str, Any]:
    layer = row.layer
    return {
        "index": layer.index,
        "name": layer.name,
        "op_type": layer.op_type,
        "output": layer.output.name,
        "dtype": layer.output.dtype,
        "shape": _shape(row.shape),
        "parameters": row.parameters,
        "macs": row.macs,
        "scope": layer.scope,
        "cam_rank": row.cam_rank,
        "constant": row.constant,
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": _shape(spec.shape)}


def _shape(shape: tuple[Dim, ...] | None) -> list[Dim] | None:
    return None if shape is None else list(shape)
