"""How a file on disk becomes a Model, and what it is when it isn't one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from onnx_inspect.errors import ModelError
from onnx_inspect.graph import external
from onnx_inspect.graph.build import build
from onnx_inspect.graph.external import external_file as external_file
from onnx_inspect.graph.external import external_tensors as external_tensors
from onnx_inspect.graph.inline import inline
from onnx_inspect.graph.model import Model, subgraphs

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
    external.check(proto, source, folder)
    external.fetch_small(proto, source, folder)
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
    if start and all(c in b"\t\r\n" or 32 <= c < 127 for c in start):
        line = start.decode("ascii").splitlines()[0][:60]
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


def _check_operators(graph: onnx.GraphProto, source: str) -> None:
    for node in graph.node:
        if node.domain not in KNOWN_DOMAINS and not node.domain.startswith(RUNTIME_DOMAINS):
            raise ModelError(
                f"{source} uses the custom operator {node.domain}::{node.op_type} (node"
                f" {node.name or next(iter(node.output), '')!r}), which onnxruntime doesn't have"
            )
        for body in subgraphs(node):
            _check_operators(body, source)
