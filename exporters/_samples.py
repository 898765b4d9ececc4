"""What a PyTorch model is tried on: samples given, samples made up, and others like them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from onnx_inspect.errors import InputError

CHECKED = 3  # samples in the second check, so that a batch size baked into the graph is noticed


def samples(given: Any, network: Any, seed: int) -> dict[str, Any]:
    """One tensor per input, by the names that the model's forward gives them; a lone input is called ``input``.

    Parameters
    ----------
    given : tuple of int, str, tensor, ndarray, or a list of those
        As for :func:`exporters.pytorch.export`.
    network : nn.Module
    seed : int

    Returns
    -------
    dict of input name to tensor, (N, ...)
        Real numbers are drawn from N(0, 1), integers and booleans from {0, 1}.

    Raises
    ------
    InputError
        No shape, or more inputs than the model takes.
    """
    several = isinstance(given, (list, tuple)) and not all(isinstance(d, int) for d in given)
    tensors = [_sample(one, seed + i) for i, one in enumerate(given if several else [given])]
    parameters = [
        p.name for p in inspect.signature(network.forward).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    if len(tensors) == 1:
        return {"input": tensors[0]}
    if len(parameters) < len(tensors):
        raise InputError(
            f"{type(network).__name__} takes {len(parameters)} inputs ({', '.join(parameters)}),"
            f" {len(tensors)} were given"
        )
    return dict(zip(parameters, tensors, strict=False))


def _sample(given: Any, seed: int) -> Any:
    """Make one input of a shape, or take the sample that it is already."""
    import torch

    if isinstance(given, torch.Tensor) and given.ndim:
        return given.detach().cpu()
    if isinstance(given, np.ndarray) and given.ndim:
        return torch.from_numpy(np.ascontiguousarray(given))
    shape, kind = _shape(given)
    dtype = getattr(torch, kind, None)
    if not isinstance(dtype, torch.dtype) or not shape or not all(isinstance(d, int) and d > 0 for d in shape):
        raise InputError(
            f"input {given!r} is no shape: write positive numbers, batch first, such as 1,3,224,224, or 1,16:int64"
        )
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)  # 0 and 1 are in every vocabulary


def _shape(given: Any) -> tuple[tuple[Any, ...], str]:
    """Read ``1,16:int64``, or take a sequence of numbers; the type is float32 where none is named."""
    if not isinstance(given, str):
        return (tuple(given) if isinstance(given, (list, tuple)) else ()), "float32"
    numbers, _, kind = given.partition(":")
    parts = [part.strip() for part in numbers.split(",")]
    return tuple(int(part) if part.isdecimal() else part for part in parts), kind.strip() or "float32"


def batches(sample: Mapping[str, Any], dynamic: bool, seed: int) -> list[dict[str, Any]]:
    """Return the sample itself and other samples like it, of another batch size where that is left open.

    The others' real numbers have the sample's mean and deviation; integers and booleans are picked from the sample's.
    """
    import torch

    size = len(next(iter(sample.values())))
    others: dict[str, Any] = {}
    for index, (name, value) in enumerate(sample.items()):
        generator = torch.Generator().manual_seed(seed + 1000 + index)
        count = size if not dynamic or len(value) != size else CHECKED if size != CHECKED else CHECKED + 1
        shape = (count, *value.shape[1:])
        if value.is_floating_point():
            spread, middle = value.float().std(correction=0), value.float().mean()
            others[name] = (torch.randn(shape, generator=generator) * spread + middle).to(value.dtype)
        else:
            chosen = torch.randint(0, value.numel(), shape, generator=generator)
            others[name] = value.reshape(-1)[chosen]
    return [dict(sample), others]


def at_least_two(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Double a sample of one: torch.export takes a size of 1 for a constant."""
    size = len(next(iter(sample.values())))
    return {n: v.repeat(2, *[1] * (v.ndim - 1)) if size == len(v) == 1 else v for n, v in sample.items()}
