"""How a file on disk becomes a Model, and what it is when it isn't one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from onnx_inspect.errors import ModelError
from onnx_inspect.graph.build import build
from onnx_inspect.graph.inline import inline
from onnx_inspect.graph.model import Model, dtype_name, subgraphs
from onnx_inspect.graph.shapes import SMALL

KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training")
RUNTIME_DOMAINS = ("com.microsoft", "com.ms.", "org.pytorch.aten")  # prefixes that onnxruntime serves
LIMIT = 2**31 - 1  # bytes of a serialised protobuf

# Files that people mistake for a model: where their mark lies (None: where their text starts), the mark, what they are.
MISTAKEN: tuple[tuple[int | None, bytes | tuple[bytes, ...], str], ...] = (
    (None, b"version https://git-lfs", "a Git LFS pointer, not the model itself: run 'git lfs pull' to fetch it"),
    (None, (b"<!doctype", b"<html"), "an HTML page, not a model: the download link led to a web page"),
    (None, b"<?xml", "an XML file, not an ONNX model: a web page's error, or a model of OpenVINO"),
    (0, b"PK\x03\x04", "a zip archive, not an ONNX model: unpack it, or export it if it is a PyTorch file"),
    (0, b"\x1f\x8b", "gzip-compressed: unpack it first"),
    (257, b"ustar", "a tar archive: unpack it first"),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes them: convert it to ONNX first, for instance with tf2onnx"),
    (0, b"\x80\x02", "a Python pickle, for instance a PyTorch checkpoint: export the model to ONNX first"),
    (0, b"GGUF", "a GGUF file: it holds weights without a graph"),
    (8, b'{"', "a safetensors file: it holds weights without a graph; export the model to ONNX"),
    (4, b"ORTM", "in onnxruntime's own ORT format: give the .onnx file it was made from"),
    (4, b"TFL3", "a TensorFlow Lite model: convert it with tf2onnx first"),
)


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
    if not _is_text(proto.graph) or not all(_is_text(function) for function in proto.functions):
        raise ModelError(f"{source} holds names that are not UTF-8: it is damaged, or was written by a broken exporter")
    _check_external(proto, source, folder)
    _fetch_small(proto, source, folder)
    proto = inline(proto)
    _check_operators(proto.graph, source)
    return build(proto, source=source, digest=hashlib.sha256(data).hexdigest(), folder=folder)


def _recognise(data: bytes, source: str) -> None:
    """Name the kinds of file that people mistake for a model."""
    if not data:
        raise ModelError(f"{source} is empty (0 bytes): copy or download it again")
    if len(data) > LIMIT:
        raise ModelError(
            f"{source} has {len(data):,} bytes, an ONNX file can't have more than {LIMIT:,}: save it with external data"
        )
    start = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for offset, magic, what in MISTAKEN:
        if (start if offset is None else data[offset:]).startswith(magic):
            raise ModelError(f"{source} is {what}")
    if len(start) == len(data[:512].strip()) and all(c in b"\t\r\n" or 32 <= c < 127 for c in start):
        line = start.decode("ascii").splitlines()[0][:60] if start else ""
        raise ModelError(f"{source} is a text file, not a model; it starts with {line!r}")


def _is_text(graph: onnx.GraphProto | onnx.FunctionProto) -> bool:
    """Whether all names are text; protobuf hands out what isn't UTF-8 as bytes."""
    names: list[str | bytes] = [graph.name]
    if isinstance(graph, onnx.GraphProto):
        names += [v.name for v in (*graph.input, *graph.output, *graph.value_info)]
        names += [e.value for t in graph.initializer for e in t.external_data] + [t.name for t in graph.initializer]
    else:
        names += [*graph.input, *graph.output, *graph.attribute, graph.domain]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        names += [name for a in node.attribute for name in (a.name, a.ref_attr_name)]
    return all(isinstance(name, str) for name in names) and all(_is_text(g) for n in graph.node for g in subgraphs(n))


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
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    if folder is None:
        raise ModelError(f"{source} keeps its weights in {location!r}, but was not read from a folder")
    relative = PurePosixPath(location)
    if relative.is_absolute() or PureWindowsPath(location).anchor or ".." in relative.parts or not location:
        raise ModelError(f"{source} points outside its folder for its weights ({location!r}): refused")
    own = (
        Path(source).parent if Path(source).is_file() else folder
    )  # a link to the model may lie beside links to its data
    beside = own / relative
    resolved = (beside if beside.exists() else folder / relative).resolve()
    if not resolved.is_relative_to(folder) and not resolved.is_relative_to(own.resolve()):
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
        expected = math.prod(tensor.dims) * _itemsize(tensor)
        if min(offset, length) < 0 or offset + (length or expected) > file.stat().st_size:
            raise ModelError(f"{source}: {file.name} is too short for weight {tensor.name!r}: it is truncated")
        if length and length < expected:
            raise ModelError(
                f"{source}: weight {tensor.name!r} needs {expected:,} bytes of {file.name}, its entry says {length:,}"
            )


def _fetch_small(proto: onnx.ModelProto, source: str, folder: Path | None) -> None:
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


def _check_operators(graph: onnx.GraphProto, source: str) -> None:
    for node in graph.node:
        if node.domain not in KNOWN_DOMAINS and not node.domain.startswith(RUNTIME_DOMAINS):
            raise ModelError(
                f"{source} uses the custom operator {node.domain}::{node.op_type} (node"
                f" {node.name or next(iter(node.output), '')!r}), which onnxruntime doesn't have"
            )
        for body in subgraphs(node):
            _check_operators(body, source)
