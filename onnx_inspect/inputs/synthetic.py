"""What `random`, `zeros` and `ones` stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError
from onnx_inspect.inputs.axes import FREE_SIZE, picture_plane
from onnx_inspect.inputs.tensors import cast

if TYPE_CHECKING:
    from onnx_inspect.graph.model import TensorSpec
    from onnx_inspect.inputs.preprocess import Preprocess

FREE_LENGTH = 16  # for an axis whose length neither the model nor another input says
RANDOM_INTEGERS = 2  # drawn from 0 and 1: an index that every table has, of tokens, segments or flags


def full_shape(spec: TensorSpec, bound: Mapping[str, int], *, batched: bool) -> tuple[tuple[int, ...], str]:
    """Choose every axis: 1 for a free batch, what other inputs say for a symbol they share, else 16 (224 in a picture).

    Returns
    -------
    shape : tuple of int
    note : str
        Which axes were chosen freely; "" for none.

    Raises
    ------
    InputError
        The model doesn't even say the rank.
    """
    if spec.shape is None:
        raise InputError(f"input {spec.name!r} doesn't say its shape: give one, like -I {spec.name}:1,3,224,224")
    free = FREE_SIZE if picture_plane(spec) else FREE_LENGTH
    shape, chosen = [], []
    for axis, dim in enumerate(spec.shape):
        if isinstance(dim, int):
            shape.append(dim)
        elif axis == 0 and batched:
            shape.append(1)
        elif dim is not None and dim in bound:
            shape.append(bound[dim])
        else:
            shape.append(free)
            chosen.append(dim or f"axis {axis}")
    if not chosen:
        return tuple(shape), ""
    example = ",".join(map(str, shape))
    return tuple(shape), (
        f"input {spec.name!r} {spec.describe()}: {', '.join(chosen)} free, {free} chosen; change it with"
        f" -I {spec.name}:{example}"
    )


def make(word: str, spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    """Make an array in the input's dtype: standard normal, integers 0 or 1, or fair coins when `word` is ``random``.

    Raises
    ------
    InputError
        The input holds text.
    """
    if spec.dtype == "string":
        raise InputError(f"input {spec.name!r} takes text, which can't be made up: give -I {spec.name}='[\"...\"]'")
    if word == "zeros":
        return cast(np.zeros(shape, bool), spec, word)
    if word == "ones":
        return cast(np.ones(shape, bool), spec, word)
    if spec.dtype == "bool":
        return rng.random(shape) < 0.5
    if spec.dtype.startswith(("int", "uint")):
        return cast(rng.integers(0, RANDOM_INTEGERS, shape), spec, word)
    return cast(rng.standard_normal(shape, np.float32), spec, word)


def picture(preprocess: Preprocess, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Make a picture of noise, (h, w, 3), uint8, at the model's own size; grey where the model sees grey."""
    channels = 1 if preprocess.colour == "GRAY" else 3
    noise = rng.integers(0, 256, (*preprocess.size, channels), np.uint8)
    return np.ascontiguousarray(np.broadcast_to(noise, (*preprocess.size, 3)))
