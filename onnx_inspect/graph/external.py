"""Where weights lie that are kept in files beside a model, and whether they may and do lie there."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx

from onnx_inspect.errors import ModelError
from onnx_inspect.graph.model import Model, dtype_name, subgraphs
from onnx_inspect.graph.shapes import SMALL


def external_tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Return the tensors whose bytes live in another file: initialisers and attributes, those of bodies too."""
    return [t for t in _tensors(proto.graph) if t.data_location == onnx.TensorProto.EXTERNAL]


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for body in subgraphs(node):
            yield from _tensors(body)


def external_file(tensor: onnx.TensorProto, folder: Path | None, source: str) -> Path:
    """Path of the file that holds an external tensor, checked to lie in the model's own folder.

    Links are followed first, so that a cache whose links point into one folder of blobs works.
    """
    name = location(tensor)
    if folder is None:
        raise ModelError(f"{source} keeps its weights in {name!r}, but was not read from a folder")
    relative = PurePosixPath(name)
    if relative.is_absolute() or PureWindowsPath(name).anchor or ".." in relative.parts or not name:
        raise ModelError(f"{source} points outside its folder for its weights ({name!r}): refused")
    own = Path(source).parent if Path(source).is_file() else folder  # where a link to the model lies, beside others
    beside = own / relative
    resolved = (beside if beside.exists() else folder / relative).resolve()
    if not resolved.is_relative_to(folder) and not resolved.is_relative_to(own.resolve()):
        raise ModelError(f"{source} points outside its folder for its weights ({name!r} is a link): refused")
    if not resolved.is_file():
        raise ModelError(f"{source} keeps its weights in {name!r}, which is missing: put it beside the model")
    return resolved


def check(proto: onnx.ModelProto, source: str, folder: Path | None) -> None:
    """Refuse references to files that are missing, too short, or outside the model's folder.

    Raises
    ------
    ModelError
        The message names the weight and the file.
    """
    for tensor in external_tensors(proto):
        file = external_file(tensor, folder, source)
        entries = {entry.key: entry.value for entry in tensor.external_data}
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
        except ValueError:
            raise ModelError(f"{source}: weight {tensor.name!r} has a broken reference to {file.name}") from None
        expected = math.prod(tensor.dims) * _itemsize(tensor)
        if min(offset, length) < 0 or offset + (length or expected) > file.stat().st_size:
            raise ModelError(f"{source}: {file.name} is too short for weight {tensor.name!r}: it is truncated")
        if length and length < expected:
            raise ModelError(
                f"{source}: weight {tensor.name!r} needs {expected:,} bytes of {file.name}, its entry says {length:,}"
            )


def fetch_small(proto: onnx.ModelProto, source: str, folder: Path | None) -> None:
    """Bring in small integers that lie in other files: shapes are inferred from them."""
    for tensor in external_tensors(proto):
        if tensor.data_type not in (onnx.TensorProto.INT64, onnx.TensorProto.INT32):
            continue
        if (size := math.prod(tensor.dims) * _itemsize(tensor)) > SMALL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        with external_file(tensor, folder, source).open("rb") as stream:
            stream.seek(int(entries.get("offset", 0)))
            tensor.raw_data = stream.read(size)
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _itemsize(tensor: onnx.TensorProto) -> int:
    """Bytes per element, 0 where several share a byte or the type is unknown."""
    name = dtype_name(tensor.data_type)
    if name in ("", "string") or name.removeprefix("u").startswith(("int4", "int2", "float4")):
        return 0
    return int(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize)


def located(model: Model) -> tuple[onnx.ModelProto, Path | None]:
    """Return the model's proto and the folder from which a runtime shall read its external data.

    A runtime follows no links: where there are any, the references of a copy name the files that they lead to.

    Raises
    ------
    ModelError
        As for :func:`external_file`.
    """
    tensors = external_tensors(model.proto)
    if not tensors:
        return model.proto, None
    files = {location(t): external_file(t, model.folder, model.source) for t in tensors}
    if model.folder is not None and all(file == model.folder / name for name, file in files.items()):
        return model.proto, model.folder
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    root = Path(os.path.commonpath([file.parent for file in files.values()]))
    for tensor in external_tensors(proto):
        entry = next(e for e in tensor.external_data if e.key == "location")
        entry.value = files[entry.value].relative_to(root).as_posix()
    return proto, root


def location(tensor: onnx.TensorProto) -> str:
    """What an external tensor calls the file that holds it."""
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
