"""A raw number that the model computes: an element of an output or of a layer, or the sum of several."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import TargetError
from onnx_inspect.targets._base import Context, Fixed, Floats, Index, Options, Outputs, Target

Place = tuple[Any, ...]  # of ints, slices and an Ellipsis, as numpy takes them


@dataclass(frozen=True)
class OutputTarget(Target):
    """Elements of a named output, layer or tensor, summed.

    Attributes
    ----------
    name : str
    place : str
        Index into one sample, without its batch axis, as numpy reads it: ``0,3,17``, ``:,2``; ``...`` is everything.
    """

    name: str
    place: str = "..."

    def describe(self) -> str:
        """Give ``output:name[place]``."""
        return f"output:{self.name}[{self.place}]"

    def tensors(self, context: Context) -> tuple[str, ...]:
        """Name the output, or what the layer of that name makes."""
        model = context.model
        if self.name in {o.name for o in model.outputs}:
            return (self.name,)
        if self.name in model.tensors:
            return (self.name,)
        return (model.layer(self.name).output.name,)

    def fix(self, context: Context, outputs: Outputs) -> FixedElements:
        """Check that the elements exist and are numbers."""
        name = self.tensors(context)[0]
        values = outputs[name]
        if values.dtype.kind not in "fiub":
            raise TargetError(f"{self.name!r} holds {values.dtype}, no numbers: choose another output")
        place = indices(self.place)
        try:
            chosen = values[(slice(None), *place)]
        except IndexError:
            raise TargetError(
                f"{self.name!r} has no element [{self.place}]: a sample's shape is {list(values.shape[1:])}"
            ) from None
        if not chosen.size:
            raise TargetError(f"[{self.place}] of {self.name!r} is empty: a sample's shape is {list(values.shape[1:])}")
        count = len(values)
        return FixedElements((self._words(chosen),) * count, np.full(count, -1), (), name, place)

    def _words(self, chosen: NDArray[Any]) -> str:
        several = chosen[0].size
        return self.describe() if several == 1 else f"{self.describe()}, sum of {several}"


@dataclass(frozen=True)
class FixedElements(Fixed):
    """Elements of one tensor, summed."""

    tensor: str
    place: Place

    def read(self, outputs: Outputs, of: Index) -> Floats:
        """The sums."""
        chosen = np.asarray(outputs[self.tensor][(slice(None), *self.place)], np.float64)
        return chosen.reshape(len(of), -1).sum(axis=1)[:, None]

    def slopes(self, outputs: Outputs, of: Index) -> dict[str, Floats]:
        """1 for each element, 0 for the others."""
        slopes = np.zeros(outputs[self.tensor].shape)
        slopes[(slice(None), *self.place)] = 1.0
        return {self.tensor: slopes}


def parse(text: str, options: Options) -> tuple[OutputTarget]:
    """Read ``NAME`` or ``NAME[0,3,17]``; names may hold brackets themselves, the last ones are the index.

    Raises
    ------
    TargetError
        The index is none.
    """
    found = re.fullmatch(r"(.+)\[([^\[\]]*)\]", text)
    name, place = (found[1], found[2].strip() or "...") if found else (text, "...")
    if not name:
        raise TargetError("output: needs a name, like output:scores[0,3]")
    indices(place)
    return (OutputTarget(name, place),)


def indices(text: str) -> Place:
    """Read numpy's index notation: numbers, ``a:b:c``, ``...``, separated by commas.

    Raises
    ------
    TargetError
        Something else.

    Examples
    --------
    >>> indices("0, 2:5, ...")
    (0, slice(2, 5, None), Ellipsis)
    """
    place: list[Any] = []
    for part in (part.strip() for part in text.split(",")):
        if part == "...":
            place.append(Ellipsis)
        elif re.fullmatch(r"-?\d+", part):
            place.append(int(part))
        elif re.fullmatch(r"(-?\d*)(:-?\d*){1,2}", part):
            place.append(slice(*(int(p) if p else None for p in part.split(":"))))
        else:
            raise TargetError(f"[{text}] is no index: it is made of numbers, 2:5, or ... for all, between commas")
    if place.count(Ellipsis) > 1:
        raise TargetError(f"[{text}] holds ... twice")
    return tuple(place)
