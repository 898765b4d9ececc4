"""How many bytes a model's tensors take while it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from onnx_inspect.errors import InputError
from onnx_inspect.graph.batch import ANONYMOUS
from onnx_inspect.graph.bind import bind
from onnx_inspect.graph.model import Model, TensorSpec

Shape = tuple[int, ...]


def tensor_bytes(model: Model, shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Bytes of each tensor that a model takes or makes, for inputs of the given shapes.

    What inference can't tell is taken to be as large as the largest that is known: shapes are asked for only where the
    inputs' symbols don't decide them.
    """
    symbols = {
        dim: size
        for spec in model.inputs
        for dim, size in zip(spec.shape or (), shapes.get(spec.name, ()), strict=False)
        if isinstance(dim, str) and dim not in ANONYMOUS
    }
    names = [*model.producers, *shapes]
    found = {name: _bytes(model.tensor(name), symbols) for name in names if name not in model.constants}
    found |= {name: _bytes(TensorSpec(name, model.tensor(name).dtype, shape), {}) for name, shape in shapes.items()}
    if any(size is None for size in found.values()):
        try:
            bound = bind(model, shapes)
        except InputError:
            bound = {}  # the runtime will say what doesn't fit
        for name, size in found.items():
            if size is None and name in bound:
                found[name] = _bytes(TensorSpec(name, model.tensor(name).dtype, bound[name]), {})
    largest = max((size for size in found.values() if size is not None), default=1)
    return {name: largest if size is None else size for name, size in found.items()}


def _bytes(spec: TensorSpec, symbols: Mapping[str, int]) -> int | None:
    """Bytes of a tensor, None where a dimension is unknown; a type without a name takes four bytes a number."""
    dims = [symbols.get(d) if isinstance(d, str) else d for d in spec.shape or ()]
    if spec.shape is None or None in dims:
        return None
    try:
        width = np.dtype(spec.dtype or "float32").itemsize
    except TypeError:
        width = 4  # types that numpy doesn't have, and text
    return math.prod(d for d in dims if d is not None) * width
