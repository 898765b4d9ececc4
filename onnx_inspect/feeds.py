"""How arrays are made to fit a model's inputs: their type, byte order and shape, and how many samples they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError
from onnx_inspect.graph.casts import is_odd
from onnx_inspect.graph.model import Model, TensorSpec

Array = NDArray[Any]
Arrays = dict[str, Array]
Axes = Mapping[str, int | None]  # axis of each input along which samples lie; None where all share it


def fit(model: Model, feeds: Mapping[str, Array], axes: Axes) -> Arrays:
    """Convert arrays to the types that a model declares, in native byte order and contiguous memory.

    Any number of samples is let through along an input's axis of samples.

    Raises
    ------
    InputError
        A missing or unknown input, a wrong shape, or values that the declared type can't hold.
    """
    specs = {s.name: s for s in model.inputs}
    unknown = [name for name in feeds if name not in specs]
    missing = [name for name in specs if name not in feeds]
    if unknown:
        raise InputError(f"{model.source} has no input {unknown[0]!r}; it has: {', '.join(specs)}")
    if missing:
        wants = ", ".join(f"{n!r} ({specs[n].describe()})" for n in missing)
        raise InputError(f"{model.source} also needs {wants}: give it with -I {missing[0]}=@FILE")
    return {name: _fit(np.asarray(array), specs[name], axes[name]) for name, array in feeds.items()}


def count(arrays: Arrays, axes: Axes) -> int:
    """How many samples arrays hold; an input that holds one serves all of them.

    Raises
    ------
    InputError
        The inputs hold different numbers, or none.
    """
    counts = {n: a.shape[axis] for n, a in arrays.items() if (axis := axes[n]) is not None and a.ndim > axis}
    several = {c for c in counts.values() if c != 1}
    if len(several) > 1:
        raise InputError(
            f"the inputs hold different numbers of samples: {', '.join(f'{n!r} {c}' for n, c in counts.items())};"
            " give as many of each, or one"
        )
    if several == {0}:
        empty = next(name for name, c in counts.items() if not c)
        raise InputError(f"input {empty!r} holds no sample: its shape is {list(arrays[empty].shape)}")
    return several.pop() if several else 1


def rows(arrays: Arrays, axes: Axes, start: int, stop: int) -> Arrays:
    """Samples from `start` to `stop`; what holds one sample is repeated, what all share stays whole."""
    found: Arrays = {}
    for name, array in arrays.items():
        axis = _own(axes[name], array)
        if axis is None or array.shape[axis] > 1:
            found[name] = array if axis is None else array[(slice(None),) * axis + (slice(start, stop),)]
        else:
            found[name] = np.repeat(array, stop - start, axis) if stop - start > 1 else array
    return found


def pick(arrays: Arrays, axes: Axes, indices: Sequence[int]) -> Arrays:
    """Samples of the given numbers; otherwise as :func:`rows`."""
    found: Arrays = {}
    for name, array in arrays.items():
        axis = _own(axes[name], array)
        chosen = [0] * len(indices) if axis is not None and array.shape[axis] == 1 else list(indices)
        found[name] = array if axis is None else np.take(array, chosen, axis)
    return found


def filled(arrays: Arrays, axes: Axes, size: int) -> Arrays:
    """Repeat the last sample until there are `size` of them."""
    found: Arrays = {}
    for name, array in arrays.items():
        axis = _own(axes[name], array)
        last = 0 if axis is None else array.shape[axis] - 1
        found[name] = array if axis is None else np.take(array, [min(i, last) for i in range(size)], axis)
    return found


def another(arrays: Arrays, axes: Axes, count: int) -> int | None:
    """Number of the first sample that differs from sample 0; None where all are alike."""
    first = rows(arrays, axes, 0, 1)
    for index in range(1, count):
        other = rows(arrays, axes, index, index + 1)
        if any(not np.array_equal(first[name], array) for name, array in other.items()):
            return index
    return None


def _own(axis: int | None, array: Array) -> int | None:
    """The axis of samples that an array really has."""
    return axis if axis is not None and array.ndim > axis else None


def _fit(array: Array, spec: TensorSpec, axis: int | None) -> Array:
    wrong = f"input {spec.name!r} wants {spec.describe()}, got"
    if spec.shape is not None:
        fits = array.ndim == len(spec.shape) and all(
            not isinstance(want, int) or got == want or (i == axis and want >= 1)
            for i, (want, got) in enumerate(zip(spec.shape, array.shape, strict=False))
        )
        if not fits:
            raise InputError(f"{wrong} {array.dtype} {list(array.shape)}")
    if spec.dtype == "string":
        return _text(array, wrong)
    if array.dtype.kind == "V":
        array = _known(array, wrong)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{wrong} values of type {array.dtype}")
    dtype = np.dtype("float32" if not spec.dtype or is_odd(spec.dtype) else spec.dtype)
    _check_values(array, dtype, wrong)
    with np.errstate(over="ignore"):
        fitted = np.asarray(array.astype(dtype, copy=False), order="C")
    if dtype.kind == "f" and fitted.dtype.itemsize < array.dtype.itemsize:
        lost = np.isinf(fitted) & np.isfinite(array)
        if lost.any():
            raise InputError(f"{wrong} {array[lost].flat[0]:g}, which {dtype} can't hold: scale the input")
    return fitted


def _text(array: Array, wrong: str) -> Array:
    """Strings as Python's own; bytes are taken for UTF-8."""
    values = [v.decode() if isinstance(v, bytes) else v for v in array.ravel().tolist()]
    if not all(isinstance(v, str) for v in values):
        raise InputError(f"{wrong} values of type {array.dtype}")
    text = np.empty(len(values), object)
    text[:] = values
    return text.reshape(array.shape)


def _known(array: Array, wrong: str) -> Array:
    """Types that only ml_dtypes knows (bfloat16) as float32; records stay refused."""
    if array.dtype.names is not None or array.dtype.type is np.void:
        raise InputError(f"{wrong} values of type {array.dtype}")
    return array.astype(np.float32)


def _check_values(array: Array, dtype: np.dtype[Any], wrong: str) -> None:
    """Refuse what an integer or boolean type can't hold; NaN and infinity are no integers."""
    if dtype.kind == "b" and array.dtype.kind != "b" and not np.isin(array, (0, 1)).all():
        raise InputError(f"{wrong} values other than 0 and 1 ({array.dtype})")
    if dtype.kind not in "iu" or not array.size:
        return
    if array.dtype.kind == "f" and not np.array_equal(array, np.round(array)):
        raise InputError(f"{wrong} fractions ({array.dtype})")
    info, low, high = np.iinfo(dtype), array.min().item(), array.max().item()
    if low < info.min or high > info.max:
        raise InputError(f"{wrong} {low} to {high}; {dtype} holds {info.min} to {info.max}")
