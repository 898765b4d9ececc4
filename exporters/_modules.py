"""Which tensor of the graph each module's result became: told by value, never by name alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.engine import Engine
from onnx_inspect.graph.model import Dim, Model
from onnx_inspect.graph.surgery import expose

PROBES = 64  # elements that are compared before whole arrays are


def match(
    model: Model,
    feeds: Mapping[str, NDArray[Any]],
    modules: Mapping[str, NDArray[Any]],
    scopes: Mapping[str, Sequence[str]],
    tolerance: float,
) -> dict[str, str]:
    """Tensor name by module path.

    A module is matched with a tensor that holds its value: one of its own name, else the last that lies in the
    module by `scopes`, else any. A module without such a tensor is left out.

    Parameters
    ----------
    model : Model
        Takes `feeds` in one piece.
    modules : mapping of module path to ndarray
        What the framework computed for `feeds`.
    scopes : mapping of node name to module paths
    tolerance : float
        Relative to the largest |value| of a module's result.
    """
    shapes = {value.shape for value in modules.values()}
    layers = [la for la in model.layers if la.output.is_float and any(_may_have(la.output.shape, s) for s in shapes)]
    if not layers:
        return {}
    values = Engine(expose(model, layers), exact=True).run(feeds, [la.output.name for la in layers])
    found: dict[str, str] = {}
    for path, expected in modules.items():
        named = [la for la in layers if la.output.name == path]
        inside = [la for la in reversed(layers) if path in scopes.get(la.name, ())]
        others = [la for la in layers if path not in scopes.get(la.name, ())]
        for layer in [*named, *inside, *others]:
            if _equal(values[layer.output.name], expected, tolerance):
                found[path] = layer.output.name
                break
    return found


def _may_have(declared: tuple[Dim, ...] | None, shape: tuple[int, ...]) -> bool:
    """Whether a tensor declared so can have a shape: only the numbers among its dimensions tell."""
    if declared is None:
        return True
    return len(declared) == len(shape) and all(
        d == n for d, n in zip(declared, shape, strict=True) if isinstance(d, int)
    )


def _equal(value: NDArray[Any], expected: NDArray[Any], tolerance: float) -> bool:
    """Whether all elements agree; a few are looked at first, because most pairs differ."""
    if value.shape != expected.shape:
        return False
    if not expected.size:
        return True
    step = max(1, expected.size // PROBES)
    allowed = tolerance * float(np.abs(expected).max())
    for part in (slice(None, None, step), slice(None)):
        if not np.allclose(value.reshape(-1)[part], expected.reshape(-1)[part], rtol=0, atol=allowed, equal_nan=True):
            return False
    return True
