"""How a capture lies on disk: shards that are whole or not there, and a manifest."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.atomic import replacing
from onnx_inspect.capture.plan import Plan
from onnx_inspect.capture.work import Block
from onnx_inspect.errors import InputError, OutputError

MANIFEST = "manifest.json"
FORMAT = "onnx-inspect capture 1"
TEMPORARY = ".onnx-inspect-*"  # what a killed process may leave half-written


@dataclass(frozen=True)
class Store:
    """A folder that a capture is written to.

    A shard is an array for each layer and, written last, a record of what its rows are: what has a record is whole.
    Shards may be written in any order, by several processes, and again: the same shard is the same bytes.

    Attributes
    ----------
    folder : Path
    layers : tuple of str
    """

    folder: Path
    layers: tuple[str, ...]

    def array_path(self, layer: str, shard: int) -> Path:
        """Where a layer's part of a shard lies."""
        return self.folder / folder_of(self.layers, layer) / f"{shard:06d}.npy"

    def record_path(self, shard: int) -> Path:
        """Where it is said what a shard's rows are."""
        return self.folder / "rows" / f"{shard:06d}.json"

    def write(self, shard: int, block: Block) -> None:
        """Write a shard; what a shard of that number held before is replaced.

        Raises
        ------
        OutputError
            The folder can't be written.
        """
        sums = {}
        for layer, array in block.arrays.items():
            whole = np.ascontiguousarray(array)
            with replacing(self.array_path(layer, shard)) as temporary:
                np.save(temporary, whole, allow_pickle=False)
            sums[layer] = _sum(whole)
        record = {
            "places": list(block.places),
            "sources": list(block.sources),
            "labels": block.labels.tolist(),
            "predictions": block.predictions.tolist(),
            "confidences": [None if np.isnan(c) else float(c) for c in block.confidences],
            "skipped": [{"source": one.source, "reason": one.reason} for one in block.skipped],
            "sums": sums,
        }
        _write(self.record_path(shard), record)

    def whole(self, shard: int) -> bool:
        """Whether a shard is there, and its arrays are what was written."""
        record = self.record(shard)
        if record is None:
            return False
        for layer, expected in record["sums"].items():
            try:
                array = np.load(self.array_path(layer, shard), mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError):
                return False
            if _sum(array) != expected:
                return False
        return True

    def record(self, shard: int) -> dict[str, Any] | None:
        """What a shard's rows are; None where it isn't there."""
        try:
            found: dict[str, Any] = json.loads(self.record_path(shard).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return found

    def tidy(self) -> None:
        """Remove what killed processes left half-written; nobody else may be writing here."""
        for path in [*self.folder.glob(TEMPORARY), *self.folder.glob(f"*/{TEMPORARY}")]:
            path.unlink(missing_ok=True)

    def write_manifest(self, values: Mapping[str, Any]) -> None:
        """Write what the capture is."""
        folders = {layer: folder_of(self.layers, layer) for layer in self.layers}
        _write(self.folder / MANIFEST, {"format": FORMAT, "folders": folders, **values}, indent=1)


def manifest(folder: Path) -> dict[str, Any] | None:
    """What a capture's folder says of itself; None where there is no capture.

    Raises
    ------
    InputError
        A manifest that can't be read.
    """
    try:
        found: Any = json.loads((folder / MANIFEST).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / MANIFEST} can't be read: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return None
    return found


def prepare(folder: Path, plan: Plan, about: Mapping[str, Any]) -> tuple[Store, list[int]]:
    """Open a folder for a plan, and tell which shards are still to be captured.

    Parameters
    ----------
    about : mapping
        What else its manifest says.

    Raises
    ------
    OutputError
        The folder holds another capture, or other files.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; name a folder with --out")
    known = manifest(folder)
    if known is not None:
        if difference := Plan.from_json(known["plan"]).difference(plan):
            raise OutputError(f"{folder} holds a capture of {difference}: name another folder with --out, or remove it")
    elif folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise OutputError(f"{folder} holds other files, but no capture: name a new folder with --out")
    store = Store(folder, plan.layers)
    if known is None:
        store.write_manifest({"complete": False, "plan": plan.to_json(), **about})
    store.tidy()
    return store, [shard for shard in range(plan.shards) if not store.whole(shard)]


def folder_of(layers: tuple[str, ...], layer: str) -> str:
    """Name of a layer's folder: its number among the captured ones and what of its name suits a path."""
    clean = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in layer).strip("._")
    return f"{layers.index(layer):02d}-{clean[-80:] or 'layer'}"


def _sum(array: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data.cast("B") if array.size else b"")


def _write(path: Path, values: Mapping[str, Any], indent: int | None = None) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, ensure_ascii=False, indent=indent) + "\n", "utf-8", "surrogateescape")
