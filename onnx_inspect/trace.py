"""What the layers held while a model ran: captured activations and where they came from."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.atomic import replacing
from onnx_inspect.graph.model import Layer, Model
from onnx_inspect.graph.surgery import expose
from onnx_inspect.results import largest_difference

if TYPE_CHECKING:
    from onnx_inspect.engine import Engine


@dataclass(frozen=True)
class Trace:
    """Activations of chosen layers over a batch.

    Attributes
    ----------
    digest : str
        SHA-256 of the model file.
    layers : tuple of Layer
        What was captured, in topological order.
    activations : mapping of layer name to ndarray, (N, ...)
        Floating types narrower than float32 arrive as float32; integers and booleans stay. What lies in a loop has its
        turns on axis 1; what lies in a branch that didn't run is empty.
    outputs : mapping of output name to ndarray, (N, ...)
        The model's own outputs from the same run.
    sources : tuple of str
        What each of the N samples is.
    provider : str
        What really ran it.
    drift : float or None
        Largest |difference| that exposing the layers made to the outputs; None where it wasn't measured.
    """

    digest: str
    layers: tuple[Layer, ...]
    activations: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[Any]]
    sources: tuple[str, ...]
    provider: str
    drift: float | None = None

    def finite(self, layer: str) -> bool:
        """Whether a layer holds neither NaN nor infinity."""
        array = self.activations[layer]
        return not np.issubdtype(array.dtype, np.floating) or bool(np.isfinite(array).all())

    def save(self, path: str | Path) -> None:
        """Write one array per layer, keyed by its name, batch axis kept.

        Raises
        ------
        OutputError
            The file can't be written.
        """
        save_arrays(path, self.activations)


def capture(
    model: Model,
    arrays: Mapping[str, NDArray[Any]],
    layers: Sequence[Layer],
    *,
    sources: Sequence[str],
    make_engine: Callable[[Model], Engine],
) -> Trace:
    """Run a batch and keep the output of each layer.

    What exposing does to the model's own outputs (a runtime fuses less) is measured on the first sample, against the
    model as it is.

    Raises
    ------
    LayerError
        A layer's output can't be exposed.
    InputError, ModelError, RunError
        As for :meth:`onnx_inspect.engine.Engine.run`.
    """
    own = [o.name for o in model.outputs]
    wanted = list(dict.fromkeys(layer.output.name for layer in layers))
    engine = make_engine(expose(model, wanted))
    names = [*own, *(name for name in wanted if name not in own)]
    values = engine.run(arrays, names)
    count = len(sources)
    captured = {name: engine.samples_first(name, value, count) for name, value in values.items()}
    return Trace(
        digest=model.digest,
        layers=tuple(sorted(dict.fromkeys(layers), key=lambda layer: layer.index)),
        activations={layer.name: _as_float32(captured[layer.output.name]) for layer in layers},
        outputs={name: captured[name] for name in own},
        sources=tuple(sources),
        provider=engine.provider,
        drift=_drift(make_engine(model), engine, arrays, values if count == 1 else None),
    )


def _drift(
    plain: Engine, opened: Engine, arrays: Mapping[str, NDArray[Any]], ran: Mapping[str, NDArray[Any]] | None
) -> float | None:
    """Largest |difference| of two engines' outputs for the first sample; `ran` is what the second gave already."""
    first = plain.first(arrays)
    before = plain.run(first)
    after = ran or opened.run(first, list(before))
    found = [_apart(one, after[name]) for name, one in before.items()]
    return max((d for d in found if d is not None), default=None)


def _apart(one: NDArray[Any], other: NDArray[Any]) -> float | None:
    """Largest |difference| of two outputs; None for what isn't numeric."""
    return (
        largest_difference(one, other) if one.shape == other.shape and one.dtype.kind in "fiub" and one.size else None
    )


def _as_float32(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def save_arrays(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an ``.npz``; any name is allowed as a key, also ``file`` and ones with slashes.

    Raises
    ------
    OutputError
        The file can't be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as stream:
        _write_npz(stream, arrays)


def _write_npz(stream: IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                plain = array.astype(str) if array.dtype == object else np.asanyarray(array)  # text needs no pickle
                np.lib.format.write_array(entry, plain, allow_pickle=False)
