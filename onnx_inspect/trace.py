"""What the layers held while a model ran: captured activations and where they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.atomic import replacing
from onnx_inspect.graph.model import Layer


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


def save_arrays(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an ``.npz``; any name is allowed as a key, also ``file`` and ones with slashes.

    Raises
    ------
    OutputError
        The file can't be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as stream:
        _write_npz(stream, arrays)


def _write_npz(stream: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    import zipfile

    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)
