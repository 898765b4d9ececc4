"""Along which axis of each tensor the samples lie, and how many of them a model insists on."""

from __future__ import annotations

from collections import Counter

from onnx_inspect.graph.dependence import dependent
from onnx_inspect.graph.model import Dim, Model, TensorSpec

SYMBOL = "batch"
ANONYMOUS = ("", "None", "?")  # symbols that exporters write for "unknown": equal ones need not be equal numbers


def batch_axes(model: Model) -> dict[str, int | None]:
    """Axis of each input along which samples lie; None for what all samples share.

    A symbol named like a batch, or else one that opens an input's shape, marks the batch axis in all of them. Without
    symbols it is axis 0, and inputs that are longer or shorter there than most are shared; a recurrent state
    [2, 1, 64] beside inputs of one sample has its samples on axis 1.
    """
    symbol = _symbol(model)
    size = None if symbol is not None else _size(model)
    return {
        spec.name: None if spec.name in model.shared else _axis(spec, symbol, size, alone=len(model.inputs) == 1)
        for spec in model.inputs
    }


def fixed_batch(model: Model) -> int | None:
    """Return the batch size that the inputs' shapes insist on, or None when they leave it open."""
    axes = batch_axes(model)
    found = [s.shape[axis] for s in model.inputs if s.shape and (axis := axes[s.name]) is not None]
    return max((size for size in found if isinstance(size, int)), default=None)


def sample_axis(model: Model, name: str) -> int | None:
    """Axis of a tensor along which samples lie, where its shape repeats the inputs' batch symbol; else None."""
    axes = batch_axes(model)
    symbols = {s.shape[axis] for s in model.inputs if s.shape and (axis := axes[s.name]) is not None}
    shape = model.tensor(name).shape or ()
    named = (i for i, dim in enumerate(shape) if isinstance(dim, str) and dim not in ANONYMOUS and dim in symbols)
    return next(named, None)


def loosened_axis(model: Model, freed: Model, name: str) -> int | None:
    """Axis of a tensor that freeing a model from a batch of one has opened; None where there is none, or several."""
    before, after = model.tensor(name).shape or (), freed.tensor(name).shape or ()
    opened = [i for i, (b, a) in enumerate(zip(before, after, strict=False)) if b == 1 and not isinstance(a, int)]
    return opened[0] if len(opened) == 1 and len(before) == len(after) else None


def varying(model: Model) -> set[str]:
    """Return the tensors whose values may differ from sample to sample: not constants, shapes, shared inputs."""
    return dependent(model.proto.graph, [name for name, axis in batch_axes(model).items() if axis is not None])


def _symbol(model: Model) -> Dim:
    """The symbol that stands for the number of samples; None where no input has one."""
    own = [spec for spec in model.inputs if spec.name not in model.shared]
    symbols = [dim for spec in own for dim in spec.shape or () if isinstance(dim, str) and dim not in ANONYMOUS]
    named = (dim for dim in symbols if "batch" in dim.lower() or dim.lower() in ("n", "b", "bs"))
    opening = (spec.shape[0] for spec in own if spec.shape and isinstance(spec.shape[0], str))
    return next(named, None) or next(opening, None)


def _size(model: Model) -> int | None:
    """How many samples inputs without symbols hold: the commonest length of their axis 0, the first among equals."""
    lengths = [spec.shape[0] for spec in model.inputs if spec.shape and spec.name not in model.shared]
    counts = Counter(length for length in lengths if isinstance(length, int))
    return counts.most_common(1)[0][0] if counts and len(counts) == len(set(lengths)) else None


def _axis(spec: TensorSpec, symbol: Dim, size: int | None, *, alone: bool) -> int | None:
    shape = spec.shape
    if shape is None or not shape:
        return 0 if shape is None else None
    if symbol is not None and symbol in shape:
        return shape.index(symbol)
    if not isinstance(shape[0], int):
        return 0
    if symbol is not None or size is None or (shape == (1,) and not alone):
        return None
    if shape[0] == size:
        return 0
    return shape.index(1) if size == 1 and 1 in shape else None
