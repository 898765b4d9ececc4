"""What every exporter promises: a file proven against its framework, with notes on what is inside; or no file."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from exporters._modules import match
from onnx_inspect._version import __version__
from onnx_inspect.atomic import replacing
from onnx_inspect.engine import Engine
from onnx_inspect.errors import ModelError, RunError
from onnx_inspect.graph.model import METADATA_PREFIX, Model
from onnx_inspect.graph.read import parse

Arrays = Mapping[str, NDArray[Any]]

LARGEST = 2**31 - 1  # bytes that one protobuf file can hold
MACHINE_NOTES = ("pkg.torch.onnx.stack_trace", "pkg.torch.onnx.fx_node")  # paths and code of the exporting machine


@dataclass(frozen=True)
class ExportSpec:
    """What to export, and how it is to be checked.

    Attributes
    ----------
    source : object
        The framework's model.
    sample : mapping of input name to ndarray
        What the model is traced with and first checked on.
    out : Path
    layers : tuple of str
        Module paths whose values become outputs, named by their path.
    opset : int
    preprocess : mapping or None
        The keys of a `Preprocess`; stamped.
    labels : tuple of str or None
        Class names in the order of the output; stamped.
    outputs : tuple of str
        Names for the model's own outputs, in their order; the exporter makes up what is missing.
    tolerance : float
        Largest |difference| allowed, relative to the largest |value| of the output.
    """

    source: Any
    sample: Arrays
    out: Path
    layers: tuple[str, ...] = ()
    opset: int = 18
    preprocess: Mapping[str, Any] | None = None
    labels: tuple[str, ...] | None = None
    outputs: tuple[str, ...] = ()
    tolerance: float = 1e-4


@dataclass(frozen=True)
class Reference:
    """What the framework computes for one batch: outputs and exposed layers by output name, modules by path."""

    feeds: Arrays
    outputs: Arrays
    modules: Arrays


@dataclass(frozen=True)
class Step:
    """One value that a framework's network makes.

    Attributes
    ----------
    name : str
        Path of the module, with ``#1``, ``#2``, ... where it makes several.
    op_type : str
        The ONNX operator that does the same work, ``Identity`` for what is handed on as it is.
    sources : tuple of str
        Steps and inputs that it is made of, as far as the framework tells.
    """

    name: str
    op_type: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Trace:
    """What a framework's network makes of one sample; an exporter's ``layers(source, weights=...)`` makes them.

    Attributes
    ----------
    steps : tuple of Step
        In the order in which they are made.
    values : mapping of step name to ndarray
    outputs : mapping of step name to ndarray
        The network's own, in its order.
    """

    steps: tuple[Step, ...]
    values: Arrays
    outputs: Arrays


@dataclass(frozen=True)
class Report:
    """What was written and how close it came.

    Attributes
    ----------
    path : Path
    max_difference : mapping of output name to float
        Largest |framework - ONNX| over all that was checked, in the output's own unit; layers included.
    modules : mapping of module path to tensor name
        Proven by value.
    unmapped : tuple of str
        Modules whose value is no tensor of the graph any more (fused or folded away).
    samples : int
        On how many samples it was checked.
    seconds : float
    tolerance : float
    framework : str
    notes : tuple of str
        What the framework warned of in the user's own code.
    """

    path: Path
    max_difference: Mapping[str, float]
    modules: Mapping[str, str]
    unmapped: tuple[str, ...]
    samples: int
    seconds: float
    tolerance: float
    framework: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as ``export --json`` prints them."""
        return {
            "path": str(self.path),
            "framework": self.framework,
            "tolerance": self.tolerance,
            "samples": self.samples,
            "max_difference": dict(self.max_difference),
            "modules": dict(self.modules),
            "unmapped": list(self.unmapped),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }


def publish(
    spec: ExportSpec,
    proto: onnx.ModelProto,
    references: Sequence[Reference],
    *,
    scopes: Mapping[str, Sequence[str]],
    framework: str,
    version: str,
    started: float,
    notes: Sequence[str] = (),
) -> Report:
    """Check an exported model against its framework, note in it what is known, write it.

    Parameters
    ----------
    references : sequence of Reference
        At least one; the last, of several different samples, also decides which tensor each module became.
    scopes : mapping of node name to module paths
        The modules that a node lies in, as far as the framework tells.
    started : float
        `time.perf_counter` at the start of the export.
    notes : sequence of str
        What the framework warned of.

    Raises
    ------
    ModelError
        The graph is not valid, or too large for one file.
    RunError
        onnxruntime can't run it, or what it computes differs by more than the tolerance. Nothing is written then.
    """
    _forget_machine(proto)
    model = _validated(proto, spec)
    differences = _differences(spec, model, references)
    modules = match(
        at_batch(model, references[-1]), references[-1].feeds, references[-1].modules, scopes, spec.tolerance
    )
    _stamp(proto, spec, modules, framework, version)
    data = proto.SerializeToString()
    with replacing(spec.out) as temporary:
        temporary.write_bytes(data)
    return Report(
        path=spec.out,
        max_difference=differences,
        modules=modules,
        unmapped=tuple(path for path in references[-1].modules if path not in modules),
        samples=sum(len(next(iter(r.feeds.values()))) for r in references),
        seconds=time.perf_counter() - started,
        tolerance=spec.tolerance,
        framework=framework,
        notes=tuple(notes),
    )


def at_batch(model: Model, reference: Reference) -> Model:
    """Return the model with its inputs declared at a reference's own shapes, so that it runs in one piece."""
    fixed = tuple(
        replace(s, shape=np.shape(reference.feeds[s.name])) for s in model.inputs if s.name in reference.feeds
    )
    return replace(model, inputs=fixed)


def _forget_machine(proto: onnx.ModelProto) -> None:
    """Drop the notes that hold paths and code of the machine the export ran on."""
    for node in proto.graph.node:
        kept = [p for p in node.metadata_props if p.key not in MACHINE_NOTES]
        if len(kept) < len(node.metadata_props):
            del node.metadata_props[:]
            node.metadata_props.extend(kept)
        node.ClearField("doc_string")


def _validated(proto: onnx.ModelProto, spec: ExportSpec) -> Model:
    if sum(len(t.raw_data) for t in proto.graph.initializer) > LARGEST:
        raise ModelError(f"{spec.out}: the weights take more than 2 GB, more than one file holds: export parts of it")
    made = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    if made != spec.opset:
        raise ModelError(
            f"opset {spec.opset} was asked for, this way of exporting makes {made}: ask for that, or --legacy"
        )
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        message = " ".join(str(error).split())
        raise ModelError(f"{spec.out}: the exported graph is not valid ({message}): try another opset") from error
    return parse(proto.SerializeToString(), source=str(spec.out))


def _differences(spec: ExportSpec, model: Model, references: Sequence[Reference]) -> dict[str, float]:
    """Largest |difference| per output over all references, each within the tolerance."""
    worst: dict[str, float] = {}
    for reference in references:
        found = Engine(at_batch(model, reference)).run(reference.feeds)
        for name, expected in reference.outputs.items():
            difference = distance(found[name], expected)
            peak = float(np.abs(expected[np.isfinite(expected)], dtype=np.float64).max(initial=0)) or 1.0
            if not difference <= spec.tolerance * peak:
                raise RunError(
                    f"output {name!r} of the exported model differs from {type(spec.source).__name__} by"
                    f" {difference:.3g} where its largest value is {peak:.3g}, more than the tolerance of"
                    f" {spec.tolerance:g}: nothing was written; try --legacy, another --opset or a larger --tolerance"
                )
            worst[name] = max(worst.get(name, 0.0), difference)
    return worst


def distance(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest |found - expected|; infinite where shapes, NaNs or infinities don't agree."""
    if found.shape != expected.shape:
        return float("inf")
    one, other = found.astype(np.float64), expected.astype(np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        gaps = np.where(same, 0.0, np.abs(one - other))
    return float(np.where(np.isnan(gaps), np.inf, gaps).max(initial=0.0))


def _stamp(proto: onnx.ModelProto, spec: ExportSpec, modules: Mapping[str, str], framework: str, version: str) -> None:
    versions = {framework: version, "onnx": onnx.__version__, "onnx-inspect": __version__}
    notes: dict[str, Any] = {"modules": dict(modules), "framework": framework, "versions": versions}
    if spec.preprocess is not None:
        notes["preprocess"] = dict(spec.preprocess)
    if spec.labels is not None:
        notes["labels"] = list(spec.labels)
    for key, value in notes.items():
        text = value if isinstance(value, str) else json.dumps(value, allow_nan=False)
        proto.metadata_props.append(onnx.StringStringEntryProto(key=METADATA_PREFIX + key, value=text))
