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
        Floating types narrower than float32 arrive as float32; integers and booleans stay.
    outputs : mapping of output name to ndarray
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
    values = engine.run(arrays, [*own, *(name for name in wanted if name not in own)])
    plain, opened = make_engine(model), {}
    first = plain.first(arrays)
    for name, array in plain.run(first, own).items():
        opened[name] = _drift(array, engine.run(first, [name])[name])
    drifts = [d for d in opened.values() if d is not None]
    return Trace(
        digest=model.digest,
        layers=tuple(sorted(dict.fromkeys(layers), key=lambda layer: layer.index)),
        activations={layer.name: _as_float32(values[layer.output.name]) for layer in layers},
        outputs={name: values[name] for name in own},
        sources=tuple(sources),
        provider=engine.provider,
        drift=max(drifts) if drifts else None,
    )


def _drift(plain: NDArray[Any], opened: NDArray[Any]) -> float | None:
    """Largest |difference| of two outputs; None for what isn't numeric."""
    if plain.dtype.kind not in "fiub" or plain.shape != opened.shape or not plain.size:
        return None
    a, b = plain.astype(np.float64), opened.astype(np.float64)
    return float(np.nanmax(np.where(a == b, 0.0, np.abs(a - b)), initial=0.0))


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
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)
