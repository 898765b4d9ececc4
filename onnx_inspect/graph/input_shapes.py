"""Which shapes the inputs have: what the model fixes, what was asked for, and a batch of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from onnx_inspect.errors import InputError
from onnx_inspect.graph.batch import ANONYMOUS, batch_axes
from onnx_inspect.graph.model import Dim, Model, TensorSpec

Shape = tuple[int, ...]


def fixed(shape: tuple[Dim, ...] | None) -> Shape | None:
    """Return the shape where every axis has a number, else None."""
    if shape is None or not all(isinstance(d, int) for d in shape):
        return None
    return tuple(d for d in shape if isinstance(d, int))


def input_specs(model: Model, shapes: Mapping[str, Shape] | None = None) -> dict[str, TensorSpec]:
    """Return the inputs with their shapes chosen, as for :func:`onnx_inspect.graph.bind.bind`.

    Raises
    ------
    InputError
        No such input, or a shape that doesn't fit it.
    """
    shapes = shapes or {}
    sizes = symbols(model, shapes)
    axes = batch_axes(model)
    chosen = {}
    for tensor in model.inputs:
        shape: tuple[Dim, ...] | None = shapes.get(tensor.name, tensor.shape)
        if tensor.name not in shapes and shape is not None:
            batch = axes.get(tensor.name) if len(shape) > 1 else None
            dims = (1 if i == batch and not isinstance(d, int) and d not in sizes else d for i, d in enumerate(shape))
            shape = tuple(sizes.get(d, d) if isinstance(d, str) else d for d in dims)
        chosen[tensor.name] = replace(tensor, shape=shape)
    return chosen


def usual_shapes(model: Model, shapes: Mapping[str, Shape] | None = None) -> dict[str, Shape]:
    """Choose a shape for every input, also where nothing says one: 224 for the sides of pictures, 16 for other axes.

    For finding out what depends on the shapes' kinds rather than their lengths: never for costs.

    Raises
    ------
    InputError
        No such input, or a shape that doesn't fit it.
    """
    chosen = {}
    for name, tensor in input_specs(model, shapes).items():
        dims = tensor.shape or ()
        side = 224 if len(dims) >= 4 else 16
        chosen[name] = tuple(d if isinstance(d, int) else 1 if i == 0 else side for i, d in enumerate(dims))
    return chosen


def symbols(model: Model, shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Number for each symbol of the inputs' shapes: as asked, and 1 for the batch."""
    inputs = {tensor.name: tensor for tensor in model.inputs}
    sizes: dict[str, int] = {}
    for name, asked in shapes.items():
        if name not in inputs:
            raise InputError(f"{model.source} has no input {name!r}; its inputs: {', '.join(inputs) or 'none'}")
        declared = inputs[name].shape
        if declared is None:
            continue
        for dim, size in zip(declared, asked, strict=False):
            same = sizes.setdefault(dim, size) == size if isinstance(dim, str) and dim not in ANONYMOUS else True
            if len(declared) != len(asked) or not same or (isinstance(dim, int) and dim != size):
                raise InputError(
                    f"input {name!r} of {model.source} is {inputs[name].describe()}, not {list(asked)}: give a shape"
                    " that fits"
                )
    for name, axis in batch_axes(model).items():
        shape = inputs[name].shape
        if axis is not None and shape is not None and len(shape) > 1:
            symbol = shape[axis]
            if isinstance(symbol, str) and symbol not in ANONYMOUS:
                sizes.setdefault(symbol, 1)
    return sizes
