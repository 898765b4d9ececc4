"""Which tensors are maps over the input's plane, how they are laid out, and which suits a CAM best."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import onnx

from onnx_inspect.graph.dependence import ancestors, descendants
from onnx_inspect.graph.model import Layer, Model, node_inputs
from onnx_inspect.graph.moves import MOVING
from onnx_inspect.graph.reading import Form
from onnx_inspect.graph.reading import Spatial as Spatial
from onnx_inspect.graph.tracing import RESCALING, Shapes, Tracer

CONVOLUTIONS = frozenset(
    "Conv ConvTranspose ConvInteger QLinearConv FusedConv DeformConv MaxPool AveragePool LpPool GlobalAveragePool"
    " GlobalMaxPool GlobalLpPool BatchNormalization InstanceNormalization GroupNormalization LRN Resize Upsample"
    " DepthToSpace SpaceToDepth MaxUnpool QLinearAveragePool QLinearGlobalAveragePool".split()
)
MIXERS = frozenset("MatMul MatMulInteger QLinearMatMul Gemm FusedMatMul".split())  # along the last axis only
JOINING = frozenset({"Add", "Sum", "Concat"})
CHANNELS_LAST = frozenset({"tokens", "channels-last", "windows"})


@dataclass(frozen=True)
class Candidate:
    """A layer that a CAM can use; rank 1 is the default, `why` says in words what speaks for it."""

    layer: Layer
    spatial: Spatial
    rank: int
    why: str


def spatial(model: Model, shapes: Shapes) -> dict[str, Spatial]:
    """Spatial reading of every tensor that has one, from concrete shapes of a batch (see :func:`shapes.bind`).

    Convolutions and poolings make maps with the channels first; Transpose, Reshape and Concat carry the reading along;
    everything that keeps the axes hands it on. Windows, cyclic shifts and merged patches are followed element by
    element, and what is added to a tensor with a reading has the same one.
    """
    found: dict[str, Spatial] = {}
    shapes = {name: tuple(tensor.dims) for name, tensor in model.constants.items()} | dict(shapes)
    tracer = Tracer(model, shapes, found)
    for node in model.proto.graph.node:
        reading = _read(node, model, shapes, found)
        if reading is None and node.op_type in MOVING:
            tracer.follow(node)
            continue
        if reading is None:
            if node.op_type in RESCALING:
                tracer.rescale(node)
            continue
        for name in node.output:
            if name and name in shapes and _fits(reading, shapes[name]):
                found[name] = reading
        if node.op_type in JOINING and node.output[0] in found:
            tracer.inherit(node)
    return found


def candidates(model: Model, shapes: Shapes) -> tuple[Candidate, ...]:
    """Layers that suit a CAM, best first: the last maps that still have more than one cell and decide an output.

    Transformers: the last tokens that attention still mixes into what the output reads. Models whose outputs are maps
    themselves: the deepest ones, which have the fewest cells.
    """
    readings = spatial(model, shapes)
    outputs = {o.name for o in model.outputs}
    needed = ancestors(model, outputs)
    heads = _map_outputs(model, readings, outputs)
    pool = [
        (layer, readings[layer.output.name])
        for layer in model.layers
        if layer.output.name in readings
        and layer.output.name in needed - outputs
        and readings[layer.output.name].cells > 1
        and (layer.output.is_float or not layer.output.dtype)
        and readings[layer.output.name].form != "flat"
    ]
    if not pool:
        return ()
    if heads:
        fewest = min(s.cells for _, s in pool if s.cells >= 4) if any(s.cells >= 4 for _, s in pool) else 1
        pool = [p for p in pool if p[1].cells <= fewest] or pool
        why = "the deepest maps of a model whose outputs are maps"
    elif pool[-1][1].form == "tokens":
        pool, why = _mixed(model, pool)
    else:
        why = "the last maps before the network gives up position"
    best_first = list(reversed(_distinct(pool, shapes)))
    return tuple(
        Candidate(layer, reading, rank, why if rank == 1 else f"{len(best_first) - rank + 1} maps along depth")
        for rank, (layer, reading) in enumerate(best_first, 1)
    )


def _distinct(pool: list[tuple[Layer, Spatial]], shapes: Shapes) -> list[tuple[Layer, Spatial]]:
    """Drop what only rescales, casts or stands before its own activation: each run keeps its last."""
    kept: list[tuple[Layer, Spatial]] = []
    weak = {"Identity", "Cast", "QuantizeLinear", "Dropout", "Transpose", "Pad", "Reshape", "Slice", "Split", "Gather"}
    finishing = {"Relu", "Clip", "BatchNormalization", "LeakyRelu", "PRelu", "HardSwish", "Sigmoid", "Mish", "Gelu"}
    for layer, reading in pool:
        if layer.op_type in weak:
            continue
        same = bool(kept) and shapes[kept[-1][0].output.name] == shapes[layer.output.name]
        if same and layer.op_type == "DequantizeLinear":
            continue  # the float maps before the rounding are the same maps
        if same and layer.op_type in finishing and kept[-1][0].op_type in {"Conv", "BatchNormalization", "Add", "Sum"}:
            kept.pop()
        kept.append((layer, reading))
    return kept or pool


def _mixed(model: Model, pool: list[tuple[Layer, Spatial]]) -> tuple[list[tuple[Layer, Spatial]], str]:
    """Tokens of a transformer: up to the last residual sum before the last attention, where there is a class token."""
    if pool[-1][1].prefix == 0:
        return pool, "the last tokens, which the network averages"
    softmaxes = [la for la in model.layers if la.op_type in ("Softmax", "Attention", "MultiHeadAttention")]
    for attention in reversed(softmaxes):
        before = ancestors(model, [attention.output.name])
        below = descendants(model, attention.output.name)
        if not any(layer.output.name in below for layer, _ in pool):
            continue  # the classifier's own softmax
        sums = [p for p in pool if p[0].output.name in before and p[0].op_type in JOINING]
        sums = [p for p in sums if _joins(model, p[0])] or sums  # a first block may only join a constant class token
        if sums:
            last = sums[-1][0].index
            return [p for p in pool if p[0].index <= last], "the last tokens that attention still mixes into the class"
    return pool, "the last tokens"


def _joins(model: Model, layer: Layer) -> bool:
    """Whether a layer adds or strings together tensors that are no constants, as a residual connection does."""
    sources = [n for n in model.producers[layer.output.name].input if n and n not in model.constants]
    return layer.op_type in JOINING and len(sources) > 1


def _map_outputs(model: Model, readings: dict[str, Spatial], outputs: set[str]) -> bool:
    """Whether the model answers with maps: a segmentation, a heat map, a picture, a detector's grid."""
    for name in outputs:
        made = ancestors(model, [name])
        last = [readings[n].cells for n in made if n in readings]
        reading = readings.get(name)
        if reading is not None and reading.cells > 1:
            return True
        shape = model.tensor(name).shape
        if last and shape is not None and len(shape) >= 3:
            inner = [d for d in shape[1:] if d != 1]
            if len(inner) > 1:
                return True
    return False


def _read(node: onnx.NodeProto, model: Model, shapes: Shapes, found: dict[str, Spatial]) -> Spatial | None:
    out = shapes.get(next((n for n in node.output if n), ""))
    if out is None:
        return None
    source = found.get(node.input[0]) if node.input else None
    if node.op_type in CONVOLUTIONS:
        if source is not None and source.form == "flat":
            return source  # a normalisation over (N, D, T)
        if source is not None and source.form == "tokens" and node.op_type.endswith("Normalization"):
            return source
        if any(a.name in ("channels_last",) and a.i == 1 for a in node.attribute) and len(out) > 2:
            return Spatial("channels-last", tuple(out[1:-1]))
        return Spatial("channels-first", tuple(out[2:])) if len(out) > 2 else None
    if node.op_type == "Transpose":
        return _transposed(node, source, out)
    if node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        return _reshaped(source, shapes.get(node.input[0]), out)
    if node.op_type == "Concat":
        return _concatenated(node, shapes, found)
    if node.op_type in MIXERS:
        constants = [n for n in node.input if n in model.constants]
        return source if source is not None and source.form in CHANNELS_LAST and constants else None
    return next((found[n] for n in node_inputs(node) if n in found and _kept(found[n], shapes.get(n), out)), None)


def _kept(reading: Spatial, before: tuple[int, ...] | None, after: tuple[int, ...]) -> bool:
    """Whether an operation that keeps axes leaves a reading as it was."""
    return _fits(reading, after) and (reading.form != "windows" or before == after)


def _transposed(node: onnx.NodeProto, source: Spatial | None, out: tuple[int, ...]) -> Spatial | None:
    if source is None:
        return None
    rank = len(out)
    perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), list(range(rank))[::-1])
    to_last, to_first = [0, *range(2, rank), 1], [0, rank - 1, *range(1, rank - 1)]
    swaps: dict[Form, tuple[list[int], Form]] = {
        "channels-first": (to_last, "channels-last"),
        "channels-last": (to_first, "channels-first"),
        "flat": ([0, 2, 1], "tokens"),
        "tokens": ([0, 2, 1], "flat"),
    }
    wanted, form = swaps.get(source.form, ([], source.form))
    return replace(source, form=form) if perm == wanted else None


def _reshaped(source: Spatial | None, before: tuple[int, ...] | None, out: tuple[int, ...]) -> Spatial | None:
    """Follow (N, K, h, w) to (N, K, h*w) and (N, h, w, K) to (N, h*w, K); the other way round the grid is known too."""
    if source is None or before is None:
        return None
    if before == out:
        return source
    if len(out) == 3 and len(before) > 3 and out[0] == before[0]:
        if source.form == "channels-first" and out[1:] == (before[1], source.cells):
            return replace(source, form="flat")
        if source.form == "channels-last" and out[1:] == (source.cells, before[-1]):
            return replace(source, form="tokens")
    if len(out) == len(source.grid) + 2 and len(before) == 3 and out[0] == before[0] and source.prefix == 0:
        if source.form == "flat" and out == (before[0], before[1], *source.grid):
            return replace(source, form="channels-first")
        if source.form == "tokens" and out == (before[0], *source.grid, before[2]):
            return replace(source, form="channels-last")
    return None


def _concatenated(node: onnx.NodeProto, shapes: Shapes, found: dict[str, Spatial]) -> Spatial | None:
    out = shapes[node.output[0]]
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1) % len(out)
    known = [(i, found[n]) for i, n in enumerate(node.input) if n in found]
    if not known:
        return None
    position, reading = known[-1]
    if reading.form == "tokens" and axis == 1:
        if len(known) > 1 or any(n not in shapes for n in node.input):
            return None
        ahead = sum(shapes[n][1] for n in node.input[:position])
        return replace(reading, prefix=reading.prefix + ahead)
    channel = 1 if reading.form in ("channels-first", "flat") else len(out) - 1
    if axis == channel and all(found.get(n, reading) == reading for n in node.input):
        return reading
    return Spatial("channels-first", out[2:]) if reading.form == "channels-first" and axis > 1 else None


def _fits(reading: Spatial, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of that shape can have that reading."""
    if reading.form == "channels-first":
        return len(shape) == len(reading.grid) + 2 and shape[2:] == reading.grid
    if reading.form == "channels-last":
        return len(shape) == len(reading.grid) + 2 and shape[1:-1] == reading.grid
    if reading.form == "windows":
        return len(shape) > 2 and math.prod(shape[:-1]) > max(reading.places)
    if len(shape) != 3:
        return False
    tokens = shape[1] if reading.form == "tokens" else shape[2]
    return tokens >= reading.cells + reading.prefix
