"""How a framework's own network, as its exporter runs it, is compared with an ONNX model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError
from onnx_inspect.graph.points import INPUT, Point
from onnx_inspect.graph.steps import Steps
from onnx_inspect.inputs.batch import Batch

Arrays = dict[str, NDArray[Any]]


class Step(Protocol):
    """One value that a network makes; see :class:`exporters._contract.Step`."""

    @property
    def name(self) -> str:
        """Where it is made."""
        ...

    @property
    def op_type(self) -> str:
        """The ONNX operator that does the same."""
        ...

    @property
    def sources(self) -> tuple[str, ...]:
        """What it is made of."""
        ...


class Trace(Protocol):
    """A network's values for one sample; see :class:`exporters._contract.Trace`."""

    @property
    def steps(self) -> Sequence[Step]:
        """In the order in which they are made."""
        ...

    @property
    def values(self) -> Mapping[str, NDArray[Any]]:
        """By the steps' names."""
        ...

    @property
    def outputs(self) -> Mapping[str, NDArray[Any]]:
        """The network's own, in order."""
        ...


class FrameworkSubject:
    """A framework's network on what an ONNX model is fed.

    Parameters
    ----------
    source : str
        What the user calls it.
    run : callable
        Arrays by input name, in the order of the network's inputs, to a Trace.
    batch : Batch
        Of the model that it is compared with; inputs go by their order.
    block : int
        As of :class:`~onnx_inspect.comparing.subjects.ModelSubject`.
    """

    digest = ""

    def __init__(self, source: str, run: Callable[[Arrays], Trace], batch: Batch, *, block: int = 1) -> None:
        self.source, self.run, self.batch, self.block = source, run, batch, block
        self._last: tuple[int, Trace] | None = None

    @property
    def count(self) -> int:
        """Samples of the batch."""
        return self.batch.n

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """The inputs, then what the modules make, as the first sample shows it."""
        inputs = [Point(name, INPUT, name) for name in self.batch.arrays]
        return (*inputs, *(Point(s.name, s.op_type, s.name, s.sources) for s in self._trace(0).steps))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The network's own outputs."""
        return tuple(self._trace(0).outputs)

    def steps(self, name: str) -> Steps | None:
        """Nothing is known of quantised tensors."""
        return None

    def parts(self, names: Iterable[str]) -> list[list[str]]:
        """All at once: the framework holds them anyway."""
        return [list(names)]

    def values(self, index: int, names: Sequence[str]) -> Arrays:
        """What the modules of these names made of one sample."""
        trace, feeds = self._trace(index), self._feeds(index)
        missing = next((name for name in names if name not in trace.values and name not in feeds), None)
        if missing is not None:
            raise InputError(f"{self.source} doesn't call {missing!r} for input {index}, as it does for the first")
        return {name: feeds[name] if name in feeds else np.asarray(trace.values[name]) for name in names}

    def answers(self) -> Arrays:
        """The network's outputs for all samples, (N, ...)."""
        every = [self._trace(index).outputs for index in range(self.count)]
        return {name: np.concatenate([one[name][: len(one[name]) // self.block] for one in every]) for name in every[0]}

    def _feeds(self, index: int) -> Arrays:
        shared, arrays = self.batch.shared, self.batch.arrays
        one = {name: array if name in shared else array[index : index + 1] for name, array in arrays.items()}
        return {n: a if n in shared else np.repeat(a, self.block, axis=0) for n, a in one.items()}

    def _trace(self, index: int) -> Trace:
        if self._last is None or self._last[0] != index:
            self._last = index, self.run(self._feeds(index))
        return self._last[1]
