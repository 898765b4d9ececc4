"""Data sets that are arrays: an .npz of samples and labels, or an .npy; rows are read from the file when asked for."""

from __future__ import annotations

import functools
import math
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError
from onnx_inspect.inputs.axes import is_picture, picture_plane
from onnx_inspect.inputs.dataset_labels import Marks
from onnx_inspect.inputs.parts import Part
from onnx_inspect.inputs.samples import Demand, Samples, from_array
from onnx_inspect.inputs.tensors import fits

if TYPE_CHECKING:
    from onnx_inspect.graph.model import TensorSpec

SAMPLES = ("x", "images", "image", "data", "inputs", "samples", "features", "pixels", "x_test", "x_val", "x_train")
LABELS = ("y", "labels", "label", "targets", "target", "y_test", "y_val", "y_train", "class_ids")
NAMES = ("classes", "class_names", "label_names", "target_names", "categories", "names")
SOURCES = ("sources", "paths", "filenames", "files", "ids", "sentences", "texts", "text")


Headers = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]


@dataclass(frozen=True)
class Arrays:
    """Samples along axis 0 of arrays in one file.

    Attributes
    ----------
    path : str
    keys : tuple of (input name, array's name in the file)
    count : int
    names : tuple of str or None
        What the file calls each sample.
    """

    path: str
    keys: tuple[tuple[str, str], ...]
    count: int
    names: tuple[str, ...] | None = None
    concurrent: ClassVar[bool] = False

    def __len__(self) -> int:
        return self.count

    def source(self, index: int) -> str:
        """The file's own name of a sample, or the file and its number."""
        return self.names[index] if self.names is not None else f"{self.path}[{index}]"

    def read(self, indices: range, demand: Demand) -> list[Part | InputError]:
        """All rows asked for, as one part."""
        samples = {}
        for name, key in self.keys:
            rows = _rows(self.path, key)
            one = len(rows) == 1 and self.count > 1
            taken = rows[0:1] if one or not demand.batched(name) else rows[indices.start : indices.stop]
            samples[name] = _samples(taken, name, demand, f"{self.path}:{key}", one=one)
        return [Part(tuple(map(self.source, indices)), samples)]

    def identity(self) -> str:
        """Name, size and arrays of the file."""
        path = Path(self.path)
        return f"{path.name} {path.stat().st_size} {self.keys} {self.count}"


def _samples(rows: NDArray[Any], name: str, demand: Demand, where: str, *, one: bool) -> Samples:
    """Rows as samples of an input; axis 0 counts them, whatever their shape looks like."""
    made = from_array(_shaped(rows, demand.specs[name]), name, demand, where)
    if demand.batched(name) and len(made.array) != len(rows):
        raise InputError(
            f"{where}: {len(rows)} rows of {rows.dtype} {list(rows.shape[1:])} are {len(made.array)} samples of input"
            f" {name!r}, which takes {demand.specs[name].describe()}: axis 0 must count the samples"
        )
    return made if not one or not demand.batched(name) else Samples(made.array, (), (), made.preprocess, made.notes)


def _shaped(rows: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """Rows with the axes of length 1 that an input has more: grey pictures (N, H, W), or their pixels in one row."""
    if fits(rows.shape, spec) or spec.shape is None:
        return rows
    if rows.dtype == np.uint8 and rows.ndim == 3 and is_picture(spec):
        return rows[..., None]  # (N, H, W, 1)
    own = [d if isinstance(d, int) else -1 for d in spec.shape[1:]]
    if -1 in own or math.prod(own) != math.prod(rows.shape[1:]):
        return rows
    narrow = [d for d in own if d != 1] == [d for d in rows.shape[1:] if d != 1]
    plane = picture_plane(spec)
    grey = rows.ndim == 2 and plane is not None and plane.channels == 1
    return rows.reshape(len(rows), *own) if narrow or grey else rows


def find(path: Path, specs: Mapping[str, TensorSpec], primary: str) -> tuple[Arrays, Marks | None, tuple[str, ...]]:
    """Find which arrays of a file are samples, labels and names.

    Raises
    ------
    InputError
        The file can't be read, or doesn't tell which array holds the samples.
    """
    shapes = _shapes(path)
    keys, note = _keys(path, shapes, specs, primary)
    batched = [shapes[key][0][0] for _, key in keys if shapes[key][0]]
    count = max(batched, default=0)
    if odd := [key for _, key in keys if shapes[key][0] and shapes[key][0][0] not in (1, count)]:
        raise InputError(f"{path}: {odd[0]!r} holds {shapes[odd[0]][0][0]} samples, but another array {count}")
    split = keys[0][1].partition("_")[2] if keys[0][1].casefold().startswith("x_") else ""
    marks = _marks(path, shapes, count, split)
    rest = {name: shape for name, (shape, dtype) in shapes.items() if dtype.kind in "US"}
    named = next((name for name in SOURCES if rest.get(name) == (count,)), None)
    names = tuple(map(_word, _rows(str(path), named)[:].tolist())) if named else None
    return Arrays(str(path), keys, count, names), marks, (note,) if note else ()


def _keys(
    path: Path,
    shapes: Headers,
    specs: Mapping[str, TensorSpec],
    primary: str,
) -> tuple[tuple[tuple[str, str], ...], str]:
    """Which array feeds which input, and what was chosen."""
    own = tuple((name, name) for name in specs if name in shapes)
    if any(name == primary for name, _ in own):
        return own, ""
    if len(shapes) == 1:
        return ((primary, next(iter(shapes))), *own), ""
    plain = {name.casefold(): name for name in shapes}
    known = [plain[name] for name in SAMPLES if name in plain]
    large = [name for name, (shape, dtype) in shapes.items() if len(shape) > 1 and dtype.kind in "fiub"]
    chosen = known[0] if known else large[0] if len(large) == 1 else ""
    if not chosen:
        held = ", ".join(f"{name} {dtype} {list(shape)}" for name, (shape, dtype) in shapes.items())
        raise InputError(f"{path} holds {held}: call the samples 'x' or {primary!r}, and their classes 'y'")
    note = f"{path}: samples are taken from {chosen!r}, not from {known[1]!r}" if len(known) > 1 else ""
    return ((primary, chosen), *own), note


def _marks(path: Path, shapes: Headers, count: int, split: str) -> Marks | None:
    plain = {name.casefold(): name for name in shapes}
    order = (f"y_{split}", f"labels_{split}", *LABELS) if split else LABELS
    found = [plain[n] for n in order if n in plain and shapes[plain[n]][0][:1] == (count,)]
    if not found:
        return None
    values = _rows(str(path), found[0])[:]
    if values.ndim == 2 and values.shape[1] > 1:
        if values.dtype.kind not in "fiub" or not np.isclose(values.astype(np.float64).sum(axis=1), 1).all():
            raise InputError(f"{path}: {found[0]!r} has shape {list(values.shape)}: give one class for each sample")
        values = values.argmax(axis=1)  # one-hot
    if values.size != count:
        raise InputError(f"{path}: {found[0]!r} has shape {list(values.shape)}: give one class for each of {count}")
    values = values.reshape(count)
    if values.dtype.kind == "f" and np.array_equal(values, np.round(values)):
        values = values.astype(np.int64)
    named = next((plain[n] for n in NAMES if n in plain and shapes[plain[n]][1].kind in "US"), None)
    names = tuple(map(_word, _rows(str(path), named)[:].ravel().tolist())) if named else None
    texts = [_word(int(v) if isinstance(v, bool) else v) for v in values.tolist()]
    return Marks(tuple("" if text == "-1" else text for text in texts), names)


def _word(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _shapes(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of each array, from its header."""
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as stream:
                return {"": _header(stream)[:2]}
        with zipfile.ZipFile(path) as archive:
            found = {}
            for name in archive.namelist():
                with archive.open(name) as stream:
                    found[name.removesuffix(".npy")] = _header(stream)[:2]
            return found
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(f"{path} can't be read: {' '.join(str(error).split())}") from error


def _header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, type and whether the first axis runs fastest, from the start of an .npy."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return shape, dtype, fortran


def _rows(path: str, key: str) -> Rows | NDArray[Any]:
    """Rows of one array, opened once in each process; what lies in a file as it is in memory is mapped."""
    try:
        state = Path(path).stat()
        return _opened(path, key, state.st_mtime_ns, state.st_size)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} can't be read: {' '.join(str(error).split())}") from error


@functools.lru_cache(maxsize=16)
def _opened(path: str, key: str, *_state: int) -> Rows | NDArray[Any]:
    if Path(path).suffix.lower() == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False)
    with zipfile.ZipFile(path) as archive:
        name = key + ".npy" if key + ".npy" in archive.namelist() else key
        info = archive.getinfo(name)
        with archive.open(info) as stream:
            shape, dtype, fortran = _header(stream)
            start = stream.tell()
        if not shape or fortran:
            with archive.open(info) as stream:
                return np.lib.format.read_array(stream, allow_pickle=False)
    if info.compress_type != zipfile.ZIP_STORED:
        return Rows(path, name, shape, dtype, start)
    with Path(path).open("rb") as file:
        file.seek(info.header_offset + 26)
        lengths = np.frombuffer(file.read(4), "<u2")
    offset = info.header_offset + 30 + int(lengths.sum()) + start
    return np.memmap(path, dtype, "r", offset, shape) if math.prod(shape) else np.zeros(shape, dtype)


class Rows:
    """Rows of a compressed array, unpacked as they are asked for; cheap in their order, from the start otherwise."""

    def __init__(self, path: str, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], start: int) -> None:
        self.shape, self.dtype, self._start = shape, dtype, start
        self._stride = dtype.itemsize * math.prod(shape[1:])
        self._where, self._lock = path, threading.Lock()
        self._archive = zipfile.ZipFile(path)
        self._stream = self._archive.open(name)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Rows of a slice without a step."""
        first, last, _ = rows.indices(len(self))
        with self._lock:
            try:
                self._stream.seek(self._start + first * self._stride)
                data = self._stream.read((last - first) * self._stride)
            except (OSError, EOFError, zipfile.BadZipFile) as error:
                raise InputError(f"{self._where} can't be read: {' '.join(str(error).split())}") from error
        if len(data) != (last - first) * self._stride:
            raise InputError(f"{self._where} is cut short: copy or download it again")
        return np.frombuffer(data, self.dtype).reshape(last - first, *self.shape[1:])
