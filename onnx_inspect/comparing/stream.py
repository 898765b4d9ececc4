"""How the layers of a model are read over many inputs: a few samples at a time, so that memory doesn't grow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.engine import Engine
from onnx_inspect.graph.batch import batch_axes
from onnx_inspect.graph.memory import tensor_bytes
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.surgery import expose
from onnx_inspect.inputs.batch import Batch

Index = NDArray[np.intp]
Arrays = dict[str, NDArray[Any]]
BUDGET = 1 << 30  # bytes of activations that exist at one time


def opened(model: Model, tensors: Sequence[str], make_engine: Callable[[Model], Engine] = Engine) -> Engine:
    """Give an engine from which any of a model's tensors can be fetched.

    Raises
    ------
    LayerError
        A tensor can't be exposed.
    """
    return make_engine(expose(model, list(dict.fromkeys(tensors))))


def pieces(engine: Engine, batch: Batch, tensors: Sequence[str], parts: Sequence[Index]) -> Iterator[Arrays]:
    """Run a batch part by part; yield each part's tensors by name, (n, ...), and keep none of them.

    Parameters
    ----------
    engine : Engine
        That gives all of the tensors; see :func:`opened`.
    tensors : sequence of str
    parts : sequence of ndarray, (n,), int
        The samples of each part.

    Raises
    ------
    InputError, ModelError, RunError
        As for :meth:`onnx_inspect.engine.Engine.run`.
    """
    names = list(dict.fromkeys(tensors))
    for part in parts:
        feeds = {name: array if name in batch.shared else array[part] for name, array in batch.arrays.items()}
        values = engine.run(feeds, names)
        yield {name: engine.samples_first(name, value, len(part)) for name, value in values.items()}


def sample_bytes(model: Model, batch: Batch, tensors: Sequence[str]) -> int:
    """Bytes that some tensors take for one sample of a batch."""
    axes = batch_axes(model)
    shapes = {
        name: tuple(1 if axis == axes.get(name) and name not in batch.shared else d for axis, d in enumerate(a.shape))
        for name, a in batch.arrays.items()
    }
    sizes = tensor_bytes(model, shapes)
    return sum(sizes.get(name, 0) for name in set(tensors))


def split(count: int, most: int, order: Index | None = None) -> list[Index]:
    """Deal `count` samples into as few parts of at most `most` as there can be, of almost equal size.

    Examples
    --------
    >>> [len(part) for part in split(10, 4)]
    [4, 3, 3]
    """
    samples = np.arange(count) if order is None else order
    return [np.asarray(part, np.intp) for part in np.array_split(samples, -(-count // max(1, most)))]
