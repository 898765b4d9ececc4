"""How a model is run: the only place that knows onnxruntime."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from onnx_inspect.errors import InputError, ModelError, ProviderError, RunError
from onnx_inspect.graph import batch as batching
from onnx_inspect.graph.model import Model, TensorSpec
from onnx_inspect.graph.read import external_file, external_tensors
from onnx_inspect.graph.surgery import data_dependent, elem_type, expose, value_info

Arrays = dict[str, NDArray[Any]]
Progress = Callable[[int, int], None]  # (samples done, samples in all)

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
BUDGET = 512 * 2**20  # bytes of activations that one chunk may take
MAX_CHUNK = 32  # more samples at once are no faster on a CPU
NO_NUMPY = ("bfloat16", "float8", "int4", "uint4", "int2", "uint2", "float4")
SEED = 0  # of random operators, so that two runs agree


class Engine:
    """A model ready to run, on any number of samples.

    Parameters
    ----------
    model : Model
        What to run; sessions are created at the first run and reused.
    providers : sequence of str
        ``cpu``, ``cuda``, or onnxruntime's own names, most wanted first.
    threads : int, optional
        Threads within an operator; onnxruntime's own choice when None.
    exact : bool
        Switch graph optimisations off, so that nothing is fused.
    allow_fallback : bool
        Run on the CPU where a wanted provider can't be had, instead of raising.
    budget : int
        Bytes of activations that a chunk of samples may take.
    max_chunk : int
        Most samples in one chunk.
    progress : callable, optional
        Called with (samples done, samples in all).

    Raises
    ------
    ProviderError
        A provider isn't available and `allow_fallback` is off.
    """

    def __init__(
        self,
        model: Model,
        *,
        providers: Sequence[str] = ("cpu",),
        threads: int | None = None,
        exact: bool = False,
        allow_fallback: bool = False,
        budget: int = BUDGET,
        max_chunk: int = MAX_CHUNK,
        progress: Progress | None = None,
    ) -> None:
        self.model = model
        self.threads, self.exact, self.allow_fallback = threads, exact, allow_fallback
        self.budget, self.max_chunk, self.progress = budget, max_chunk, progress
        self.wanted = _resolve(providers, allow_fallback)
        self.passes = 0
        self._runners: dict[bool, _Runner] = {}  # keyed by "batch axis freed"
        self._batched: bool | None = None  # whether several samples at once give what singles give
        self._note = ""

    @property
    def provider(self) -> str:
        """What really runs the model, for instance ``CPUExecutionProvider``; ``A+B`` where nodes are shared."""
        return next(iter(self._runners.values()), None or self._runner(False)).provider

    @property
    def batching(self) -> str:
        """How samples are run together, in words; "" before a run of several."""
        return self._note

    def run(self, feeds: Mapping[str, NDArray[Any]], fetch: Sequence[str] | None = None) -> Arrays:
        """Outputs by name for N samples, however the model fixes its batch.

        Parameters
        ----------
        feeds : mapping of input name to ndarray, (N, ...)
            Converted to the declared type where that loses nothing but precision.
        fetch : sequence of str, optional
            Outputs wanted; all by default.

        Returns
        -------
        dict of str to ndarray, (N, ...)
            Types without a numpy counterpart arrive as float32; a sequence of maps as (N, keys) in the keys' order.

        Raises
        ------
        InputError
            A missing or unknown input, a wrong shape or type.
        ModelError, RunError
            The runtime refuses the model or fails in it.
        """
        arrays = self._convert(feeds)
        count = self._count(arrays)
        names = list(fetch) if fetch is not None else [o.name for o in self.model.outputs]
        fixed = batching.fixed_batch(self.model)
        if count == fixed or (count == 1 and fixed is None):
            self.passes += count
            return self._runner(False).run(arrays, names)
        if fixed is not None and fixed > 1:
            return self._in_blocks(arrays, names, count, fixed)
        chunk = self._chunk(names)
        if count > 1 and chunk > 1 and self._can_batch(arrays, names):
            return self._in_chunks(arrays, names, count, chunk)
        return self._in_singles(arrays, names, count)

    def first(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """The first sample of some feeds."""
        return self._rows(self._convert(feeds), 0, 1)

    def _in_chunks(self, arrays: Arrays, names: list[str], count: int, chunk: int) -> Arrays:
        runner = self._runner(batching.fixed_batch(self.model) is not None)
        parts = []
        for start in range(0, count, chunk):
            stop = min(start + chunk, count)
            parts.append(runner.run(self._rows(arrays, start, stop), names))
            self._advance(stop - start, stop, count)
        return self._join(parts, names)

    def _in_singles(self, arrays: Arrays, names: list[str], count: int) -> Arrays:
        parts = []
        for start in range(count):
            parts.append(self._runner(False).run(self._rows(arrays, start, start + 1), names))
            self._advance(1, start + 1, count)
        return self._join(parts, names)

    def _in_blocks(self, arrays: Arrays, names: list[str], count: int, size: int) -> Arrays:
        """Run a model that insists on `size` samples: the last block is filled up with its own last sample."""
        self._note = f"the model's batch is fixed at {size}: run in blocks of {size}"
        axes = batching.batch_axes(self.model)
        parts = []
        for start in range(0, count, size):
            rows = self._rows(arrays, start, min(start + size, count))
            missing = start + size - count
            for name, axis in axes.items():
                if axis is not None and missing > 0 and name in rows:
                    last = np.take(rows[name], [-1] * missing, axis=axis)
                    rows[name] = np.concatenate([rows[name], last], axis=axis)
            parts.append(self._runner(False).run(rows, names))
            self._advance(size, min(start + size, count), count)
        joined = self._join(parts, names)
        return {n: np.take(v, range(count), self._output_axis(n)) if v.ndim else v for n, v in joined.items()}

    def _can_batch(self, arrays: Arrays, names: list[str]) -> bool:
        """Prove once that two samples together give what each gives alone."""
        if self._batched is None:
            pair, singles = self._rows(arrays, 0, 2), [self._rows(arrays, i, i + 1) for i in range(2)]
            alone = self._join([self._runner(False).run(rows, names) for rows in singles], names)
            self.passes += 2
            freed = batching.fixed_batch(self.model) is not None
            try:
                together = self._runner(freed).run(pair, names)
                self.passes += 2
            except (RunError, ModelError) as error:
                reason = f"a batch of two fails ({str(error)[:120]})"
            else:
                reason = _difference(alone, together)
            self._batched = not reason
            way = "freed from a fixed batch of one" if freed else "as the model declares"
            self._note = f"in batches, {way}" if self._batched else f"one sample at a time: {reason}"
        return self._batched

    def _runner(self, freed: bool) -> _Runner:
        if freed not in self._runners:
            model = batching.free(self.model) if freed else self.model
            self._runners[freed] = _Runner(model, self.wanted, self.threads, self.exact, self.allow_fallback)
        return self._runners[freed]

    def _rows(self, arrays: Arrays, start: int, stop: int) -> Arrays:
        axes = batching.batch_axes(self.model)
        rows: Arrays = {}
        for name, array in arrays.items():
            axis = axes[name]
            if axis is None or array.shape[axis] == 1:
                rows[name] = array if axis is None else np.repeat(array, stop - start, axis)
            else:
                rows[name] = array[(slice(None),) * axis + (slice(start, stop),)]
        return rows

    def _join(self, parts: list[Arrays], names: list[str]) -> Arrays:
        joined: Arrays = {}
        for name in names:
            values = [part[name] for part in parts]
            axis = self._output_axis(name)
            if name not in self._varying:
                joined[name] = values[0]
            elif values[0].ndim == 0:
                joined[name] = np.stack(values)
            elif any(
                v.shape[:axis] + v.shape[axis + 1 :] != values[0].shape[:axis] + values[0].shape[axis + 1 :]
                for v in values
            ):
                raise RunError(
                    f"output {name!r} has another shape for each sample ({values[0].shape}, {values[-1].shape}, ...):"
                    " run the inputs one by one"
                )
            else:
                joined[name] = np.concatenate(values, axis=axis) if len(values) > 1 else values[0]
        return joined

    @cached_property
    def _varying(self) -> set[str]:
        """Tensors that differ from sample to sample; the rest only constants and shapes decide."""
        return data_dependent(self.model)

    def _output_axis(self, name: str) -> int:
        """Axis of an output along which samples lie: where its shape repeats the inputs' batch symbol, else 0."""
        axes = batching.batch_axes(self.model)
        symbols = {s.shape[a] for s in self.model.inputs if s.shape and (a := axes[s.name]) is not None}
        shape = self.model.tensor(name).shape or ()
        found = [i for i, dim in enumerate(shape) if isinstance(dim, str) and dim in symbols]
        return found[0] if found else 0

    def _advance(self, ran: int, done: int, count: int) -> None:
        self.passes += ran
        if self.progress is not None:
            self.progress(done, count)

    def _chunk(self, names: list[str]) -> int:
        """Samples per chunk within the budget: three of the largest tensors live at once, and what is fetched."""
        sizes = {name: _bytes(spec) for name, spec in self.model.tensors.items() if name not in self.model.constants}
        largest = max([*sizes.values(), 1])
        fetched = sum(sizes.get(name, largest) for name in names)
        return max(1, min(self.max_chunk, self.budget // (3 * largest + fetched)))

    def _convert(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        specs = {s.name: s for s in self.model.inputs}
        unknown = [name for name in feeds if name not in specs]
        missing = [name for name in specs if name not in feeds]
        if unknown:
            raise InputError(f"{self.model.source} has no input {unknown[0]!r}; it has: {', '.join(specs)}")
        if missing:
            wants = ", ".join(f"{n!r} ({specs[n].describe()})" for n in missing)
            raise InputError(f"{self.model.source} also needs {wants}: give it with -I {missing[0]}=@FILE")
        axes = batching.batch_axes(self.model)
        return {name: _fit(np.asarray(array), specs[name], axes[name]) for name, array in feeds.items()}

    def _count(self, arrays: Arrays) -> int:
        axes = batching.batch_axes(self.model)
        counts = {n: a.shape[axis] for n, a in arrays.items() if (axis := axes[n]) is not None and a.ndim}
        several = {c for c in counts.values() if c != 1}
        if len(several) > 1:
            raise InputError(f"the inputs hold different numbers of samples: {counts}")
        return several.pop() if several else 1


def available() -> list[str]:
    """Names of the providers that this installation of onnxruntime has."""
    return list(ort.get_available_providers())


def measure(model: Model, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes that tensors really have for one sample: for what shape inference can't tell.

    Raises
    ------
    InputError, ModelError, RunError
        As for :meth:`Engine.run`.
    """
    wanted = [name for name in names if name in model.producers]
    values = Engine(expose(model, wanted)).run(feeds, wanted)
    return {name: value.shape for name, value in values.items()}


class _Runner:
    """One session over one form of the model."""

    def __init__(
        self, model: Model, providers: list[str], threads: int | None, exact: bool, allow_fallback: bool
    ) -> None:
        model, self.renamed = _with_numpy_types(model)
        self.source = model.source
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads or 0
        if exact:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if providers != [PROVIDERS["cpu"]]:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        _attach_external(model, options)
        ort.set_seed(SEED)
        try:
            self.session = ort.InferenceSession(model.proto.SerializeToString(), options, providers=providers)
        except Exception as error:  # onnxruntime's exceptions share no base class; each becomes ours, with its cause
            raise _load_error(error, model.source) from error
        self.provider = self._placement(providers, allow_fallback)

    def _placement(self, providers: list[str], allow_fallback: bool) -> str:
        got = self.session.get_providers()
        if got[0] != providers[0] and not allow_fallback:
            raise ProviderError(
                f"{providers[0]} could not start for {self.source} (onnxruntime chose {got[0]}): check the driver and"
                " the CUDA libraries, or pass --allow-fallback"
            )
        if providers == [PROVIDERS["cpu"]]:
            return str(got[0])
        used = {s.ep_name for s in self.session.get_provider_graph_assignment_info() if list(s.get_nodes())}
        return "+".join(p for p in got if p in used) or str(got[0])

    def run(self, arrays: Arrays, names: Sequence[str]) -> Arrays:
        """Run once; `arrays` fit the session's batch."""
        asked = [self.renamed.get(name, name) for name in names]
        try:
            values = self.session.run(asked, arrays)
        except Exception as error:  # as above
            raise RunError(f"{self.source} failed while running: {_brief(error)}") from error
        return {name: _array(value) for name, value in zip(names, values, strict=True)}


def _resolve(providers: Sequence[str], allow_fallback: bool) -> list[str]:
    there = available()
    chosen = []
    for name in providers:
        full = PROVIDERS.get(name.lower(), name)
        if full in there:
            chosen.append(full)
        elif not allow_fallback:
            remedy = (
                "pip uninstall onnxruntime, then pip install onnx-inspect[gpu]"
                if full == PROVIDERS["cuda"]
                else f"this onnxruntime has: {', '.join(there)}"
            )
            raise ProviderError(f"provider {name!r} is not available: {remedy}; or pass --allow-fallback")
    return chosen or [PROVIDERS["cpu"]]


def _fit(array: NDArray[Any], spec: TensorSpec, axis: int | None) -> NDArray[Any]:
    """Convert to the declared type, native byte order and contiguous memory; check the shape."""
    if spec.shape is not None:
        fits = array.ndim == len(spec.shape) and all(
            not isinstance(want, int) or got == want or (i == axis and want >= 1)
            for i, (want, got) in enumerate(zip(spec.shape, array.shape, strict=False))
        )
        if not fits:
            raise InputError(f"input {spec.name!r} wants {spec.describe()}, got {array.dtype} {list(array.shape)}")
    if spec.dtype == "string":
        return np.ascontiguousarray(array.astype(object))
    dtype = np.dtype("float32" if not spec.dtype or spec.dtype.startswith(NO_NUMPY) else spec.dtype)
    if array.dtype.kind not in "fiub":
        raise InputError(f"input {spec.name!r} wants {spec.describe()}, got values of type {array.dtype}")
    if dtype.kind in "iu" and array.dtype.kind == "f" and not np.array_equal(array, np.round(array)):
        raise InputError(f"input {spec.name!r} wants {spec.describe()}, got fractions ({array.dtype})")
    if dtype.kind in "iu" and array.size:
        info = np.iinfo(dtype)
        if array.min() < info.min or array.max() > info.max:
            raise InputError(
                f"input {spec.name!r} holds {info.min} to {info.max} ({dtype}), got {array.min()} to {array.max()}"
            )
    return np.ascontiguousarray(array.astype(dtype, copy=False)).reshape(array.shape)


def _with_numpy_types(model: Model) -> tuple[Model, dict[str, str]]:
    """Cast inputs and outputs that numpy has no type for; the second value maps a name to its cast twin."""
    odd_in = [s for s in model.inputs if s.dtype.startswith(NO_NUMPY)]
    odd_out = [s for s in model.outputs if s.dtype.startswith(NO_NUMPY)]
    if not odd_in and not odd_out:
        return model, {}
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph, casts, renamed = proto.graph, [], {}
    for spec in odd_in:
        inner = f"{spec.name}__as_{spec.dtype}"
        casts.append(onnx.helper.make_node("Cast", [spec.name], [inner], name=inner, to=elem_type(spec.dtype)))
        for node in graph.node:
            node.input[:] = [inner if name == spec.name else name for name in node.input]
        next(v for v in graph.input if v.name == spec.name).CopyFrom(value_info(replace(spec, dtype="float32")))
    tail = []
    for spec in odd_out:
        renamed[spec.name] = f"{spec.name}__as_float32"
        tail.append(onnx.helper.make_node("Cast", [spec.name], [renamed[spec.name]], to=onnx.TensorProto.FLOAT))
        info = next(v for v in graph.output if v.name == spec.name)
        info.CopyFrom(value_info(replace(spec, name=renamed[spec.name], dtype="float32")))
    nodes = [*casts, *[onnx.NodeProto.FromString(n.SerializeToString()) for n in graph.node], *tail]
    del graph.node[:]
    graph.node.extend(nodes)
    return replace(model, proto=proto), renamed


def _attach_external(model: Model, options: Any) -> None:
    """Tell the session where external weights lie; files reached through a link are mapped and handed over."""
    tensors = external_tensors(model.proto)
    if not tensors:
        return
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(model.folder))
    linked_names, linked_values = [], []
    for tensor in tensors:
        file = external_file(tensor, model.folder, model.source)
        location = next(e.value for e in tensor.external_data if e.key == "location")
        if model.folder is not None and (model.folder / location).resolve() == model.folder / location:
            continue
        entries = {e.key: e.value for e in tensor.external_data}
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        mapped = np.memmap(file, dtype, "r", int(entries.get("offset", 0)), tuple(tensor.dims) or (1,))
        linked_names.append(tensor.name)
        linked_values.append(ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(mapped)))
    if linked_names:
        options.add_external_initializers(linked_names, linked_values)


def _array(value: Any) -> NDArray[Any]:
    """An output as an array; a sequence of maps becomes one row per map, columns in the order of its keys."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        keys = list(value[0])
        return np.array([[row[key] for key in keys] for row in value])
    if isinstance(value, list):
        return np.stack([np.asarray(v) for v in value]) if value else np.zeros(0, np.float32)
    return np.asarray(value)


def _difference(alone: Arrays, together: Arrays) -> str:
    """Why a batch doesn't equal its singles, "" when it does."""
    for name, one in alone.items():
        both = together[name]
        if both.shape != one.shape:
            return f"a batch of two gives {name!r} the shape {both.shape} instead of {one.shape}"
        if one.dtype.kind not in "fiub":
            if not np.array_equal(one, both):
                return f"a batch of two changes {name!r}"
            continue
        a, b = one.astype(np.float64), both.astype(np.float64)
        scale = float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
        # float16 carries 3 digits; a quantised integer may round the other way; float32 differs by summation order.
        allowed = {"f": 1e-2 if one.dtype == np.float16 else 1e-4}.get(one.dtype.kind, 0.0) * scale
        allowed = max(allowed, 1.0 if one.dtype.itemsize == 1 else 0.0)
        worst = float(np.nanmax(np.abs(np.where(a == b, 0.0, a - b)), initial=0.0))
        if worst > allowed or not np.array_equal(np.isnan(a), np.isnan(b)):
            return f"a batch of two changes {name!r} by {worst:.3g}"
    return ""


def _bytes(spec: TensorSpec) -> int:
    """Bytes of one sample of a tensor; unknown and symbolic dimensions count as 1."""
    count = 1
    for dim in spec.shape or ():
        count *= dim if isinstance(dim, int) else 1
    try:
        return count * np.dtype(spec.dtype or "float32").itemsize
    except TypeError:
        return count * 4


def _brief(error: Exception) -> str:
    """onnxruntime's message on one line, without its own prefix, paths of its source, and repeats."""
    text = " ".join(str(error).split())
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"/\S+?/onnxruntime/\S+?:\d+ ", "", text)
    return text[:400]


def _load_error(error: Exception, source: str) -> ModelError | RunError:
    kind = type(error).__name__
    if kind in ("NotImplemented", "EPFail", "EngineError"):
        return RunError(f"onnxruntime can't run {source}: {_brief(error)}")
    file = Path(source).name
    return ModelError(f"{file} is not a model that onnxruntime accepts: {_brief(error)}")
