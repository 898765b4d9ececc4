"""How a PyTorch model becomes an ONNX file whose layers keep their names and whose numbers were checked."""

from __future__ import annotations

import ast
import io
import logging
import os
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from exporters._contract import ExportSpec, Reference, Report, Trace, publish
from exporters._hooks import arguments, call, leaves, resolve, returning, still, watched
from exporters._names import name_outputs
from exporters._samples import at_least_two, batches, samples
from onnx_inspect.errors import InputError, MissingExtra, ModelError

SCOPES = "pkg.torch.onnx.name_scopes"
EXPECTED = (  # warnings raised inside torch at every export, which its user can do nothing about
    "isinstance(treespec, LeafSpec)",
    "legacy TorchScript-based ONNX export",
    "The feature will be removed. Please remove usage of this function",
    "Exporting a model to ONNX with a batch_size other than 1",
    "_check_is_size will be removed",
    "_flat_weights",
)
CHATTY = (
    "torch.onnx",  # "torchvision is not installed"
    "torch.export",  # what each way of tracing that failed found out; the last one's reason is in the error
    "torch.fx.experimental.symbolic_shapes",
    "onnxscript.version_converter",  # the opset that came out is checked instead
    "onnx_ir.passes.common.initializer_deduplication",  # "skipped ... as it is a graph input or output"
)


def export(
    model: Any,
    *,
    input: Any,
    out: str | Path,
    weights: str | Path | None = None,
    layers: Sequence[str] = (),
    opset: int = 18,
    legacy: bool = False,
    dynamic: bool = True,
    preprocess: Any = None,
    labels: Sequence[str] | None = None,
    outputs: Sequence[str] = (),
    tolerance: float = 1e-4,
    seed: int = 0,
) -> Report:
    """Export a model, check it against PyTorch, note its modules in it, and write it.

    Parameters
    ----------
    model : nn.Module, or a class or function that makes one, or str
        The string ``module.path:factory`` is imported with the current folder on the path.
    input : tuple of int, str, tensor, ndarray, or a list of those
        The shape of the input, batch first, for which random float32 numbers are made; or text, ``1,3,32,32`` or, with
        another type, ``1,16:int64``; or a sample as it is. A list has one of them per input.
    out : path
        Nothing is left there when anything fails.
    weights : path, optional
        What `torch.save` wrote: a state_dict, or a checkpoint with one under ``state_dict`` or ``model``.
    layers : sequence of str
        Module paths or globs (``layer4.*``); each becomes an output of that name. A module that is called several
        times, or that returns several tensors, gives ``path``, ``path#1``, ``path#2``, ...
    legacy : bool
        Trace with TorchScript instead of torch.export.
    dynamic : bool
        Leave the batch size open.
    preprocess : Preprocess or mapping, optional
        Stamped in the file, so that pictures can be given to it as they are.
    labels : sequence of str, optional
        Class names; stamped.
    outputs : sequence of str
        Names for the model's outputs; by default a dict's keys, else ``output``, ``output_1``, ...
    tolerance : float
        Largest |difference| allowed, relative to the largest |value| of an output.
    seed : int
        Of the samples that are made up.

    Returns
    -------
    Report

    Raises
    ------
    MissingExtra
        PyTorch isn't installed.
    InputError
        The factory, the weights or the input don't fit.
    LayerError
        A layer isn't a module of the model, or isn't called.
    ModelError
        PyTorch can't export the model.
    RunError
        The exported model computes something else.

    Examples
    --------
    >>> import torch, tempfile, pathlib
    >>> out = pathlib.Path(tempfile.mkdtemp()) / "net.onnx"
    >>> report = export(torch.nn.Sequential(torch.nn.Linear(4, 3)), input=(1, 4), layers=["0"], out=out)
    >>> report.modules["0"], max(report.max_difference.values()) < 1e-5
    ('0', True)
    """
    started = time.perf_counter()
    torch = _torch()
    from exporters._torch_model import load

    network = load(model, weights)
    sample = samples(input, network, seed)
    spec = ExportSpec(
        source=network,
        sample={name: _numpy(value) for name, value in sample.items()},
        out=Path(out),
        layers=tuple(layers),
        opset=opset,
        preprocess=preprocess.to_json() if hasattr(preprocess, "to_json") else preprocess,
        labels=tuple(labels) if labels is not None else None,
        outputs=tuple(outputs),
        tolerance=tolerance,
    )
    with still(network), torch.no_grad():
        exposed = resolve(network, spec.layers, sample)
        references = [_reference(spec, exposed, batch) for batch in batches(sample, dynamic, seed)]
        with _quiet() as notes:
            proto = _legacy(spec, exposed, sample, dynamic) if legacy else _dynamo(spec, exposed, sample, dynamic)
    return publish(
        spec,
        proto,
        references,
        scopes=_scopes(proto, network),
        framework="pytorch",
        version=str(torch.__version__),
        started=started,
        notes=notes,
    )


def layers(model: Any, *, weights: str | Path | None = None) -> Callable[[Mapping[str, NDArray[Any]]], Trace]:
    """Make a network ready to be looked at layer by layer, for instance beside its export.

    Parameters
    ----------
    model, weights
        As for :func:`export`.

    Returns
    -------
    callable
        Takes arrays by input name, in the order of the network's inputs; gives what each module made of them.

    Raises
    ------
    MissingExtra
        PyTorch isn't installed.
    InputError
        The factory or the weights don't fit.
    """
    _torch()
    from exporters._layers import Layers
    from exporters._torch_model import load

    return Layers(load(model, weights))


def _torch() -> Any:
    try:
        import onnxscript  # noqa: F401  torch.onnx needs it and says so only in the middle of an export
        import torch
    except ImportError as error:
        raise MissingExtra(f"exporting from PyTorch needs {error.name}: pip install 'onnx-inspect[torch]'") from error
    return torch


def _reference(spec: ExportSpec, exposed: Sequence[str], batch: Mapping[str, Any]) -> Reference:
    """Compute with PyTorch what the exported model must give for a batch."""
    with watched(spec.source) as captured:
        result = call(spec.source, batch)
    modules = {path: _numpy(value) for path, value in captured.items()}
    outputs = dict(zip(_names(result, spec), map(_numpy, leaves(result)), strict=True))
    floats = {path: value for path, value in modules.items() if value.dtype.kind == "f"}
    return Reference(
        feeds={name: _numpy(value) for name, value in batch.items()},
        outputs=outputs | {name: modules[name] for name in exposed},
        modules=floats,
    )


def _names(result: Any, spec: ExportSpec) -> list[str]:
    """Names of the model's own outputs."""
    count = len(leaves(result))
    keyed = isinstance(result, Mapping) and len(result) == count
    own = [str(key) for key in result] if keyed else [f"output_{i}" if i else "output" for i in range(count)]
    if len(spec.outputs) > len(own):
        raise InputError(
            f"{len(spec.outputs)} output names were given, {type(spec.source).__name__} has {len(own)} outputs"
        )
    return [*spec.outputs, *own[len(spec.outputs) :]]


def _numpy(tensor: Any) -> NDArray[Any]:
    """As numpy has it: types that it lacks become float32."""
    import torch

    tensor = tensor.detach().cpu()
    narrow = tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64)
    array: NDArray[Any] = (tensor.float() if narrow else tensor).numpy()
    return array


def _dynamo(spec: ExportSpec, exposed: Sequence[str], sample: Mapping[str, Any], dynamic: bool) -> onnx.ModelProto:
    import torch

    batch = at_least_two(sample) if dynamic else sample
    names = _output_names(spec, exposed, batch)
    shared = torch.export.Dim("batch")
    size = len(next(iter(batch.values())))
    shapes = tuple({0: shared} if len(value) == size else None for value in batch.values())
    with returning(spec.source, exposed):
        try:
            program = torch.onnx.export(
                spec.source,
                arguments(spec.source, batch),
                dynamo=True,
                opset_version=spec.opset,
                input_names=list(batch),
                output_names=_temporary(names),
                dynamic_shapes=shapes if dynamic else None,
                verbose=False,
            )
        except Exception as error:  # whatever torch raises on code it can't trace
            raise _refusal(
                error, "try --legacy, or --fixed-batch if the batch size is written into the model"
            ) from error
    proto: onnx.ModelProto = program.model_proto
    name_outputs(proto, names)
    return proto


def _legacy(spec: ExportSpec, exposed: Sequence[str], sample: Mapping[str, Any], dynamic: bool) -> onnx.ModelProto:
    import torch

    names = _output_names(spec, exposed, sample)
    temporary = _temporary(names)
    file = io.BytesIO()
    with returning(spec.source, exposed):
        axes = _moving_axes(spec.source, sample, temporary) if dynamic else {}
        try:
            torch.onnx.export(
                spec.source,
                arguments(spec.source, sample),
                file,
                dynamo=False,
                opset_version=spec.opset,
                input_names=list(sample),
                output_names=temporary,
                dynamic_axes=axes,
            )
        except Exception as error:  # as above
            raise _refusal(error, "try without --legacy, or another --opset") from error
    proto = onnx.load_from_string(file.getvalue())
    name_outputs(proto, names)
    return proto


def _refusal(error: Exception, remedy: str) -> ModelError:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    message = textwrap.shorten(str(cause), 240, placeholder=" ...")
    return ModelError(f"PyTorch can't export the model ({type(cause).__name__}: {message}): {remedy}")


def _moving_axes(network: Any, sample: Mapping[str, Any], outputs: list[str]) -> dict[str, dict[int, str]]:
    """Which axis of each input and output grows with the batch, found by running two batch sizes."""
    size = len(next(iter(sample.values())))
    larger = {n: v.repeat(2, *[1] * (v.ndim - 1)) if len(v) == size else v for n, v in sample.items()}
    axes = {name: {0: "batch"} for name, value in sample.items() if len(value) == size}
    pairs = zip(outputs, leaves(call(network, sample)), leaves(call(network, larger)), strict=True)
    for name, one, two in pairs:
        moved = [i for i, (a, b) in enumerate(zip(one.shape, two.shape, strict=True)) if a != b]
        axes |= {name: {i: "batch" for i in moved}} if moved else {}
    return axes


def _output_names(spec: ExportSpec, exposed: Sequence[str], sample: Mapping[str, Any]) -> list[str]:
    """Names of all outputs: the model's own, then the exposed layers'."""
    wanted = [*_names(call(spec.source, sample), spec), *exposed]
    taken = next((name for i, name in enumerate(wanted) if name in wanted[:i] or name in sample), None)
    if taken is not None:
        raise InputError(f"{taken!r} would name two values of the exported model: give outputs another --output-name")
    return wanted


def _temporary(names: Sequence[str]) -> list[str]:
    """Names to export under: torch would let an output and some inner value share a wanted one."""
    return [f"onnx_inspect_output_{i}" for i in range(len(names))]


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """Collect what torch warns of in the user's own code; drop the rest: it comes at every export, or by the page."""
    loggers = [logging.getLogger(name) for name in CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    notes: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught, redirect_stderr(io.StringIO()), _graphs_dropped():
            warnings.simplefilter("always")
            yield notes
        notes += dict.fromkeys(_note(warning) for warning in caught if _is_news(warning))
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _is_news(warning: warnings.WarningMessage) -> bool:
    import torch

    own = Path(warning.filename).is_relative_to(Path(torch.__file__).parent)
    traced = issubclass(warning.category, torch.jit.TracerWarning)  # of torch's own layers: the check covers them
    return not (own and traced) and not any(text in str(warning.message) for text in EXPECTED)


def _note(warning: warnings.WarningMessage) -> str:
    text = textwrap.shorten(str(warning.message), 200, placeholder=" ...")
    return f"{Path(warning.filename).name}:{warning.lineno}: {text}"


@contextmanager
def _graphs_dropped() -> Iterator[None]:
    """Keep the legacy exporter's C++ part from printing its whole graph when it fails."""
    import torch

    redirect = getattr(torch._C, "_jit_set_onnx_log_output_stream", None)
    if redirect is None:
        yield
        return
    redirect("stderr")  # is not buffered, so nothing comes out after the descriptor is put back
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
        redirect("stdout")


def _scopes(proto: onnx.ModelProto, network: Any) -> dict[str, tuple[str, ...]]:
    """Module paths that each node lies in: from dynamo's notes, or from the legacy exporter's node names."""
    paths = {path for path, _ in network.named_modules() if path}
    scopes: dict[str, tuple[str, ...]] = {}
    for node in proto.graph.node:
        notes = next((p.value for p in node.metadata_props if p.key == SCOPES), None)
        parts = ast.literal_eval(notes) if notes else _legacy_scopes(node.name, paths)
        scopes[node.name] = tuple(p for p in parts if p in paths)
    return scopes


def _legacy_scopes(name: str, paths: set[str]) -> list[str]:
    """``/blocks.0/mlp/mlp.2/MatMul`` lies in ``blocks.0``, ``blocks.0.mlp`` and ``blocks.0.mlp.2``."""
    found: list[str] = []
    for part in name.strip("/").split("/")[:-1]:
        outer = found[-1] if found else ""
        tail = part.rpartition(".")[2]
        choices = (part, f"{outer}.{part}", f"{outer}.{tail}")
        found += [path for path in choices if path in paths and path.startswith(outer)][:1]
    return found
