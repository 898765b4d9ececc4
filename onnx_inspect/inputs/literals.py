"""What people write for an input instead of a file: ``sr=16000``, ``mask=[1,1,0]``, ``x:1,3,224,224``."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError

if TYPE_CHECKING:
    from onnx_inspect.graph.model import TensorSpec

FILLS = ("random", "zeros", "ones")
GRAMMAR = "@FILE, a number, a JSON list, random, zeros or ones (each also with a shape: zeros:2,1,128)"


def split(text: str, names: Sequence[str]) -> tuple[str, str]:
    """Read ``-I`` text: an input's name and what it gets. ``name:SHAPE`` is short for ``name=random:SHAPE``.

    Names may hold ``:`` and ``=``; the longest one that matches counts.

    Raises
    ------
    InputError
        No input is called so; the nearest names are given.

    Examples
    --------
    >>> split("x:0:1,3,8,8", ["x", "x:0"])
    ('x:0', 'random:1,3,8,8')
    """
    found = find(text, names)
    if found is None:
        raise unknown(re.split("[:=]", text)[0], names)
    return found


def find(text: str, names: Sequence[str]) -> tuple[str, str] | None:
    """Do as :func:`split` does, but return None where no input is called so."""
    for name in sorted(names, key=len, reverse=True):
        if text.startswith(f"{name}="):
            return name, text[len(name) + 1 :]
        if text.startswith(f"{name}:"):
            return name, f"random:{text[len(name) + 1 :]}"
    return None


def unknown(name: str, names: Sequence[str]) -> InputError:
    """Return the error for an input that the model doesn't have."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"; closest: {near[0]!r}" if near and len(names) > 1 else ""
    return InputError(f"the model has no input {name!r}{hint}. Its inputs: {', '.join(map(repr, names))}")


def fill(value: str, name: str) -> tuple[str, tuple[int, ...] | None] | None:
    """Read ``random``, ``zeros`` or ``ones``, with the shape when one is given; None for any other value.

    Raises
    ------
    InputError
        The shape isn't one.
    """
    word, colon, rest = value.partition(":")
    if word not in FILLS:
        return None
    return word, shape(rest, name) if colon else None


def shape(text: str, name: str) -> tuple[int, ...]:
    """Read ``1,3,224,224``, ``[1,3,224,224]`` or ``1x3x224x224``.

    Raises
    ------
    InputError
        Anything but positive whole numbers.
    """
    bare = text.strip().removeprefix("[").removesuffix("]").strip()
    parts = re.split(r"\s*[,x ]\s*", bare) if bare else []
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"input {name!r}: {text!r} is not a shape; write it like {name}:1,3,224,224")
    return tuple(map(int, parts))


def array(value: str, spec: TensorSpec) -> NDArray[Any]:
    """Read a number, text or JSON list for an input, in a dtype of its own; one number fills a fixed shape.

    Raises
    ------
    InputError
        Neither, or a ragged list.
    """
    wanted = f"input {spec.name!r}: {value!r:.60} is not a value; give {GRAMMAR}"
    try:
        data = json.loads(value)
    except ValueError:
        if spec.dtype != "string":
            raise InputError(wanted) from None
        data = value
    try:
        result = np.array(data)
    except ValueError:
        raise InputError(f"input {spec.name!r}: {value!r:.60} is a ragged list: its rows differ in length") from None
    if result.dtype.kind not in "biufU" or not result.size:
        raise InputError(wanted)
    if result.ndim == 0 and spec.shape:
        first, rest = spec.shape[0], [d for d in spec.shape[1:] if isinstance(d, int)]
        if len(rest) < len(spec.shape) - 1:
            raise InputError(
                f"input {spec.name!r} takes {spec.describe()}: one number doesn't say its shape; give a JSON list"
            )
        return np.full((first if isinstance(first, int) else 1, *rest), result)
    return result
