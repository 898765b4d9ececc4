"""How the outputs of several runs become one result for all samples, and whether two results agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import RunError

Array = NDArray[Any]
Arrays = dict[str, Array]

# Largest |difference| of a batch from its singles, as a part of the largest |value|: sums are made in another order.
TOLERANCE = {"float16": 1e-2, "bfloat16": 3e-2, "float8": 0.25, "float4": 1.0}
USUAL_TOLERANCE = 1e-4


def block_axis(name: str, value: Array, size: int) -> int:
    """Axis of samples of what a block of `size` samples made: the first of that length.

    Raises
    ------
    RunError
        There is none.
    """
    if size not in value.shape:
        raise RunError(
            f"output {name!r} has shape {list(value.shape)}, no axis of which holds the {size} samples at which the"
            f" model's batch is fixed: give {size} inputs at once"
        )
    return value.shape.index(size)


def by_sample(name: str, value: Array, axis: int | None, count: int) -> Array:
    """Show an output of `count` samples with an axis that holds one entry for each.

    Without an axis of samples (`axis` is None) each sample's values are taken to follow each other along axis 0; they
    get an axis of their own in front.

    Raises
    ------
    RunError
        The output doesn't hold that many.
    """
    if axis is not None:
        if value.ndim <= axis or value.shape[axis] != count:
            raise _uneven(name, value.shape)
        return value
    if count == 1:
        return value[None]
    if not value.ndim or value.shape[0] % count:
        raise _uneven(name, value.shape)
    return value.reshape(count, value.shape[0] // count, *value.shape[1:])


def join(name: str, parts: Sequence[Array], axis: int | None) -> Array:
    """Put samples together that :func:`by_sample` showed.

    Raises
    ------
    RunError
        The samples have different shapes.
    """
    if len(parts) == 1:
        return parts[0]
    along = axis or 0
    first = parts[0].shape
    for part in parts:
        if part.shape[:along] + part.shape[along + 1 :] != first[:along] + first[along + 1 :]:
            raise _uneven(name, part.shape)
    return np.concatenate(parts, axis=along)


def difference(one: Array, other: Array, dtype: str) -> float | None:
    """Largest |difference| of two results, as a part of what is tolerated; None where their shapes or kinds differ.

    Up to 1 they agree. NaN agrees with NaN, an infinity with itself. `dtype` is the type that the model gave them.
    """
    if one.shape != other.shape or (one.dtype.kind in "fiub") != (other.dtype.kind in "fiub"):
        return None
    if one.dtype.kind not in "fiub":
        return 0.0 if np.array_equal(one, other) else np.inf
    scale = float(np.abs(one[np.isfinite(one)].astype(np.float64)).max(initial=0.0))
    if one.dtype.kind == "f":
        part = next((t for start, t in TOLERANCE.items() if dtype.startswith(start)), USUAL_TOLERANCE)
        allowed = part * scale
    else:
        allowed = 1.0 if dtype in ("int8", "uint8") else 0.0  # a quantised number may round the other way
    worst = largest_difference(one, other)
    return worst / allowed if allowed else (np.inf if worst else 0.0)


def largest_difference(one: Array, other: Array) -> float:
    """Largest |difference| of two arrays of numbers, 0 where they are empty.

    NaN equals NaN and is infinitely far from any number; an infinity equals itself.
    """
    a, b = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0))


def disagreement(alone: Mapping[str, Array], together: Mapping[str, Array], dtypes: Mapping[str, str]) -> str:
    """Why a batch doesn't give what its samples give alone; "" where it does."""
    for name, one in alone.items():
        found = difference(one, together[name], dtypes[name])
        if found is None:
            return f"a batch of two gives {name!r} the shape {list(together[name].shape)}, not {list(one.shape)}"
        if found > 1:
            return f"a batch of two changes {name!r}"
    return ""


def as_array(name: str, value: Any) -> Array:
    """Turn what the runtime gave into an array.

    A sequence of maps becomes one row for each, columns in the order of the keys; a sequence of tensors is stacked.

    Raises
    ------
    RunError
        A sequence of tensors of different shapes, or an optional output that is absent.
    """
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        keys = list(value[0])
        return np.array([[row[key] for key in keys] for row in value])
    if isinstance(value, list):
        arrays = [np.asarray(v) for v in value]
        if len({a.shape for a in arrays}) > 1:
            raise RunError(f"output {name!r} is a sequence of tensors of different shapes: expose the tensors in it")
        return np.stack(arrays) if arrays else np.zeros(0, np.float32)
    if value is None:
        raise RunError(f"output {name!r} is optional and this run gave none: leave it out")
    return np.asarray(value)


def _uneven(name: str, shape: tuple[int, ...]) -> RunError:
    return RunError(
        f"output {name!r} has another shape for each sample (one is {list(shape)}): run the inputs one by one"
    )
