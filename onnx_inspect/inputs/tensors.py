"""Whether an array fits a model's input, and the array in the dtype that the model declares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError
from onnx_inspect.inputs.axes import is_picture

if TYPE_CHECKING:
    from onnx_inspect.graph.model import TensorSpec


def numpy_dtype(spec: TensorSpec) -> np.dtype[Any] | None:
    """Return the dtype to feed, None where the model doesn't say one; strings are objects.

    Raises
    ------
    InputError
        The input is a sequence, a map or another thing that isn't a tensor.
    """
    if not spec.dtype:
        return None
    if spec.dtype == "string":
        return np.dtype(object)
    try:
        return np.dtype(spec.dtype)
    except TypeError:
        import ml_dtypes

        if hasattr(ml_dtypes, spec.dtype):
            return np.dtype(getattr(ml_dtypes, spec.dtype))
    raise InputError(f"input {spec.name!r} is a {spec.dtype}, not a tensor: this can't be fed from a file")


def cast(array: NDArray[Any], spec: TensorSpec, where: str) -> NDArray[Any]:
    """Give an array the model's dtype, in native byte order, contiguous; the argument is left as it is.

    Real numbers go to any float, whole ones to any float and to integers that can hold them. Real numbers never go to
    integers, and nothing may overflow.

    Raises
    ------
    InputError
        The dtypes don't go together, or a value doesn't fit.
    """
    target = numpy_dtype(spec)
    if target is None:
        return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    found = f"{where}: found {array.dtype}, but input {spec.name!r} takes {spec.dtype}"
    if target.kind == "O":
        if array.dtype.kind not in "OUST":
            raise InputError(f"{found}: give text")
        return np.array(array.astype(object), order="C")
    kind, wanted = _kind(array.dtype), _kind(target)
    if "" in (kind, wanted) or (kind == "float" and wanted != "float"):
        raise InputError(f"{found}; convert the array first")
    if wanted != "float" and array.size:
        _check_range(array, target, found)
    with np.errstate(over="ignore"):
        result = np.array(array, dtype=target, order="C")
    if wanted == "float" and target.itemsize <= array.dtype.itemsize and target != array.dtype:
        before, after = array.astype(np.float64), result.astype(np.float64)
        if np.isfinite(before[~np.isfinite(after)]).any():
            raise InputError(f"{found}, which can't hold {np.abs(before[np.isfinite(before)]).max():g}")
    return result


def _kind(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "b":
        return "bool"
    if dtype.kind in "iu" or dtype.name in ("int4", "uint4", "int2", "uint2"):
        return "int"
    return "float" if dtype.kind == "f" or dtype.name.startswith(("bfloat", "float")) else ""


def _check_range(array: NDArray[Any], target: np.dtype[Any], found: str) -> None:
    if target.kind not in "biu":
        return
    low, high = (0, 1) if target.kind == "b" else (np.iinfo(target).min, np.iinfo(target).max)
    if int(array.min()) < low or int(array.max()) > high:
        raise InputError(f"{found}, which can't hold values {int(array.min())}..{int(array.max())}")


def has_batch(spec: TensorSpec, primary: TensorSpec) -> bool:
    """Whether axis 0 counts samples; otherwise one array is given whole with every sample.

    It does, except for scalars, for a fixed first axis that is neither 1 nor the perturbed input's, and for a symbol
    that the perturbed input uses on another axis.
    """
    if spec.shape == ():
        return False
    if spec.shape is None or spec.name == primary.name:
        return True
    first, others = spec.shape[0], primary.shape or (None,)
    if isinstance(first, int):
        return first in (1, others[0])
    moved = isinstance(others[0], str) and first != others[0] and others[0] in spec.shape[1:]
    return not moved and (first is None or first == others[0] or first not in others[1:])


def fits(shape: Sequence[int], spec: TensorSpec, *, batched: bool = True) -> bool:
    """Whether an array of this shape can be an input's, any number of samples on axis 0 when `batched`."""
    if spec.shape is None:
        return True
    start = 1 if batched else 0
    return len(shape) == len(spec.shape) and all(
        not isinstance(d, int) or d == n for d, n in list(zip(spec.shape, shape, strict=True))[start:]
    )


def fit(array: NDArray[Any], spec: TensorSpec, where: str, *, batched: bool = True) -> NDArray[Any]:
    """Give an array the input's rank and dtype; one without a batch axis gets one.

    Returns
    -------
    ndarray, (n, ...)
        Or the whole input when it isn't `batched`.

    Raises
    ------
    InputError
        The shape or the dtype doesn't fit; the message says both sides.
    """
    shape = as_fitting(array.shape, spec, batched)
    if shape is None:
        hint = "; a picture must be uint8" if is_picture(spec) and array.dtype != np.uint8 else ""
        raise InputError(
            f"{where}: found {array.dtype} {list(array.shape)}, but input {spec.name!r} takes {spec.describe()}{hint}"
        )
    if batched and shape and shape[0] == 0:
        raise InputError(f"{where}: found {array.dtype} {list(shape)}, which holds no samples")
    return cast(array.reshape(shape), spec, where)


def as_fitting(shape: tuple[int, ...], spec: TensorSpec, batched: bool) -> tuple[int, ...] | None:
    """Return the shape, with a batch axis where it lacks one, or as a scalar's; None where it can't fit."""
    if fits(shape, spec, batched=batched):
        return shape if shape or not batched else (1,)
    if batched and fits((1, *shape), spec):
        return (1, *shape)
    return () if spec.shape == () and math.prod(shape) == 1 else None
