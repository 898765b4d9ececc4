"""How a file on disk becomes a Model, and what it is when it isn't one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from onnx_inspect.errors import ModelError
from onnx_inspect.graph.build import build
from onnx_inspect.graph.inline import inline
from onnx_inspect.graph.model import Model

KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training")
RUNTIME_DOMAINS = ("com.microsoft", "com.ms.", "org.pytorch.aten")  # prefixes that onnxruntime serves


def read(path: str | Path) -> Model:
    """Read and validate an ``.onnx`` file; external data stays on disk.

    Local functions are inlined, missing node names are made up, missing shapes are inferred.

    Raises
    ------
    ModelError
        The file is missing, empty, truncated, a Git LFS pointer, HTML, a zip or not ONNX; its external data is missing
        or lies outside its folder; it uses operators that no runtime here has; or its shapes contradict each other.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ModelError(f"{path} is a folder; give the .onnx file inside it") from None
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror}") from error
    return parse(data, source=str(path), folder=path.resolve().parent)


def parse(data: bytes, *, source: str = "<bytes>", folder: Path | None = None) -> Model:
    """Make a Model of a serialised ModelProto; `folder` holds its external data, if it has any.

    Raises
    ------
    ModelError
        As for :func:`read`.
    """
    _recognise(data, source)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise ModelError(f"{source} is not an ONNX model, or it is truncated ({len(data):,} bytes)") from None
    if not proto.ir_version or not (proto.graph.node or proto.graph.output):
        raise ModelError(f"{source} is not an ONNX model: it holds no graph ({len(data):,} bytes)")
    if not proto.graph.output:
        raise ModelError(f"{source} has no outputs: it is damaged or incomplete")
    _check_external(proto, source, folder)
    proto = inline(proto)
    _check_operators(proto, source)
    return build(proto, source=source, digest=hashlib.sha256(data).hexdigest(), folder=folder)


def _recognise(data: bytes, source: str) -> None:
    """Name the kinds of file that people mistake for a model."""
    start = data[:512].lstrip().lower()
    if not data:
        raise ModelError(f"{source} is empty (0 bytes): copy or download it again")
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(f"{source} is a Git LFS pointer, not the model itself: run 'git lfs pull' to fetch it")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ModelError(f"{source} is an HTML page, not a model: the download link led to a web page")
    if data[:4] == b"PK\x03\x04":
        raise ModelError(
            f"{source} is a zip archive, not an ONNX model: unpack it, or export it if it is a PyTorch file"
        )
    if data[:2] == b"\x1f\x8b":
        raise ModelError(f"{source} is gzip-compressed: unpack it first")
    if data[4:8] == b"ORTM":
        raise ModelError(f"{source} is in onnxruntime's own ORT format: give the .onnx file it was made from")
    if data[4:8] == b"TFL3":
        raise ModelError(f"{source} is a TensorFlow Lite model: convert it with tf2onnx first")


def external_tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Return the initialisers whose bytes live in another file."""
    return [t for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]


def external_file(tensor: onnx.TensorProto, folder: Path | None, source: str) -> Path:
    """Path of the file that holds an external tensor, checked to lie in the model's own folder.

    Links are followed first, so that a cache whose links point into one folder of blobs works.
    """
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    if folder is None:
        raise ModelError(f"{source} keeps its weights in {location!r}, but was not read from a folder")
    relative = Path(location)
    if relative.is_absolute() or ".." in relative.parts or not location:
        raise ModelError(f"{source} points outside its folder for its weights ({location!r}): refused")
    beside = Path(source).parent / relative
    resolved = (beside if beside.exists() else folder / relative).resolve()
    if not resolved.is_relative_to(folder) and not resolved.is_relative_to(Path(source).parent.resolve()):
        raise ModelError(f"{source} points outside its folder for its weights ({location!r} is a link): refused")
    if not resolved.is_file():
        raise ModelError(f"{source} keeps its weights in {location!r}, which is missing: put it beside the model")
    return resolved


def _check_external(proto: onnx.ModelProto, source: str, folder: Path | None) -> None:
    for tensor in external_tensors(proto):
        file = external_file(tensor, folder, source)
        entries = {entry.key: entry.value for entry in tensor.external_data}
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
        except ValueError:
            raise ModelError(f"{source}: weight {tensor.name!r} has a broken reference to {file.name}") from None
        if min(offset, length) < 0 or offset + length > file.stat().st_size:
            raise ModelError(f"{source}: {file.name} is too short for weight {tensor.name!r}: it is truncated")
        expected = int(np.prod(list(tensor.dims), dtype=np.int64)) * _itemsize(tensor)
        if length and expected and length < expected:
            raise ModelError(
                f"{source}: weight {tensor.name!r} needs {expected:,} bytes of {file.name}, its entry says {length:,}"
            )


def _itemsize(tensor: onnx.TensorProto) -> int:
    """Bytes per element, 0 where several share a byte or the type is unknown."""
    packed = {getattr(onnx.TensorProto, name, None) for name in ("INT4", "UINT4", "FLOAT4E2M1", "INT2", "UINT2")}
    if tensor.data_type in packed or tensor.data_type in (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED):
        return 0
    return int(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize)


def _check_operators(proto: onnx.ModelProto, source: str) -> None:
    for node in proto.graph.node:
        if node.domain in KNOWN_DOMAINS or node.domain.startswith(RUNTIME_DOMAINS):
            continue
        raise ModelError(
            f"{source} uses the custom operator {node.domain}::{node.op_type} (node {node.name or node.output[0]!r}),"
            " which onnxruntime doesn't have"
        )
