"""How a model is run: the only place that knows onnxruntime."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from onnx_inspect import feeds as feeding
from onnx_inspect import results
from onnx_inspect.errors import ModelError, ProviderError, RunError
from onnx_inspect.graph import batch as batching
from onnx_inspect.graph.bodies import stacked
from onnx_inspect.graph.casts import cast
from onnx_inspect.graph.external import located
from onnx_inspect.graph.free import free
from onnx_inspect.graph.memory import tensor_bytes
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.surgery import expose

Arrays = dict[str, NDArray[Any]]
Progress = Callable[[int, int], None]  # (samples done, samples in all)

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
BUDGET = 64 * 2**20  # bytes of activations that one chunk may take: 4 to 8 pictures of a ResNet, no slower than 32
MAX_CHUNK = 32  # more samples at once are no faster on a CPU
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

    Attributes
    ----------
    passes : int
        Samples run so far, those of proofs and of filled-up blocks included.

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
        # Idle threads wait busily: fastest for a session alone, but beside another they take its cores away. To be set
        # before the first run.
        self.spinning = True
        self.wanted = _resolve(providers, allow_fallback)
        self.passes = 0
        self._runners: dict[bool, _Runner] = {}  # keyed by "batch axis freed"
        self._axes = batching.batch_axes(model)
        self._fixed = batching.fixed_batch(model)
        self._proven: set[str] = set()  # outputs that several samples at once leave as singles make them
        self._refused = ""  # why samples can't be run together
        self._note = ""
        self._settled = False
        self._made: dict[str, int | None] = {}  # axis of samples of each output, once known; None where it has none
        self._chunks: dict[tuple[tuple[int, ...], ...], int] = {}  # by the inputs' shapes

    @property
    def provider(self) -> str:
        """What really runs the model, for instance ``CPUExecutionProvider``; ``A+B`` where nodes are shared."""
        return (next(iter(self._runners.values()), None) or self._runner(False)).provider

    @property
    def batching(self) -> str:
        """How samples are run together, in words; "" where that has not been tried."""
        return self._note

    def run(self, feeds: Mapping[str, NDArray[Any]], fetch: Sequence[str] | None = None) -> Arrays:
        """Outputs by name for N samples, however the model fixes its batch.

        Several samples are run together, in chunks that fit the budget, where a trial shows that they don't change each
        other's results; else one by one.

        Parameters
        ----------
        feeds : mapping of input name to ndarray, (N, ...)
            Converted to the declared type where that loses nothing but precision. An input with one sample serves all.
        fetch : sequence of str, optional
            Outputs wanted; all by default.

        Returns
        -------
        dict of str to ndarray
            With N samples along the axis on which the model puts them, axis 0 for nearly all. Outputs that put them
            nowhere (one number, a fixed count of tokens) get an axis 0 for them when N > 1; what no sample influences
            comes once. Types without a numpy counterpart arrive as float32; a sequence of maps as (N, keys) in the
            keys' order.

        Raises
        ------
        InputError
            A missing or unknown input, a wrong shape or type.
        ModelError, RunError
            The runtime refuses the model or fails in it.
        """
        arrays = feeding.fit(self.model, feeds, self._axes)
        count = feeding.count(arrays, self._axes)
        names = list(fetch) if fetch is not None else [o.name for o in self.model.outputs]
        if count == (self._fixed or 1):
            values = self._run(feeding.rows(arrays, self._axes, 0, count), names, count)
            self._report(count, count)
            return values
        if self._fixed is not None and self._fixed > 1:
            return self._in_blocks(arrays, names, count, self._fixed)
        chunk = self._chunk(arrays)
        done = self._prove(arrays, names, count) if count > 2 and chunk > 1 and not self._settled else []
        return self._in_chunks(arrays, names, count, chunk if self._proven.issuperset(names) else 1, done)

    def settle(self, feeds: Mapping[str, NDArray[Any]], fetch: Sequence[str] | None = None) -> None:
        """Decide once, on these samples (three or more), whether samples are run together; later runs don't try again.

        So what a run gives depends on its own samples alone, bit for bit, whatever was run before.
        """
        self.run(feeds, fetch)
        self._settled = True

    def first(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """The first sample of some feeds."""
        return feeding.rows(feeding.fit(self.model, feeds, self._axes), self._axes, 0, 1)

    def samples_first(self, name: str, value: NDArray[Any], count: int) -> NDArray[Any]:
        """Show an output of `count` samples that :meth:`run` gave as (N, ...); read-only where all samples share it.

        Raises
        ------
        RunError
            The output doesn't hold that many samples.
        """
        if name not in self._varying:
            return np.broadcast_to(value, (count, *value.shape))
        if count == 1:
            value = self._by_sample({name: value}, 1)[name]
        return np.moveaxis(value, self._made[name] or 0, 0)

    def _in_chunks(self, arrays: Arrays, names: list[str], count: int, chunk: int, done: list[Arrays]) -> Arrays:
        """Run samples `chunk` at a time; `done` holds what the first ones gave already."""
        parts = list(done)
        for start in range(len(done), count, chunk):
            stop = min(start + chunk, count)
            rows = feeding.rows(arrays, self._axes, start, stop)
            parts.append(self._by_sample(self._run(rows, names, stop - start, freed=chunk > 1), stop - start))
            self._report(stop, count)
        shared = [name for name in names if name not in self._varying]
        if shared and chunk > 1 and not done:  # shapes, for one: what a single sample makes doesn't tell of the chunk
            parts[0] |= self._run(feeding.rows(arrays, self._axes, 0, 1), shared, 1)
        return self._join(parts)

    def _in_blocks(self, arrays: Arrays, names: list[str], count: int, size: int) -> Arrays:
        """Run a model that insists on `size` samples: the last block is filled up with its own last sample."""
        parts = []
        for start in range(0, count, size):
            stop = min(start + size, count)
            rows = feeding.filled(feeding.rows(arrays, self._axes, start, stop), self._axes, size)
            parts.append(self._run(rows, names, size))
            self._report(stop, count)
        for name in self._varying.intersection(names):
            self._made[name] = results.block_axis(name, parts[0][name], size)
        if not self._note:
            copies = feeding.filled(feeding.rows(arrays, self._axes, 0, 1), self._axes, size)
            alone = self._cropped(self._run(copies, names, size), 1)
            mixed = results.disagreement(self._cropped(parts[0], 1), alone, self._dtypes)
            self._note = f"in blocks of {size}, at which the model's batch is fixed" + (
                "; a block's samples change each other's results" if mixed else ""
            )
        return self._cropped(self._join(parts), count)

    def _prove(self, arrays: Arrays, names: list[str], count: int) -> list[Arrays]:
        """Prove once that two samples together give what each gives alone; return what the first ones gave."""
        other = feeding.another(arrays, self._axes, count)
        if self._refused or self._proven.issuperset(names) or other is None:
            return []
        alone = []
        for index in (0, other):
            rows = feeding.rows(arrays, self._axes, index, index + 1)
            alone.append(self._by_sample(self._run(rows, names, 1), 1))
        try:
            pair = feeding.pick(arrays, self._axes, (0, other))
            together = self._by_sample(self._run(pair, names, 2, freed=True), 2)
        except (RunError, ModelError) as error:
            self._refused = f"a batch of two fails ({str(error)[:120]})"
        else:
            varying = {name: value for name, value in self._join(alone).items() if name in self._varying}
            self._refused = results.disagreement(varying, together, self._dtypes)
        if self._refused:
            self._note = f"one sample at a time: {self._refused}"
        else:
            self._proven.update(names)
            way = "as the model declares" if self._fixed is None else "freed from a batch of one"
            self._note = f"in batches, {way}"
        return alone if other == 1 else alone[:1]

    def _run(self, arrays: Arrays, names: list[str], count: int, *, freed: bool = False) -> Arrays:
        """Run once; `freed` asks for the form of the model that takes any number of samples."""
        values = self._runner(freed and self._fixed is not None).run(arrays, names)
        self.passes += count
        return values

    def _runner(self, freed: bool) -> _Runner:
        if freed not in self._runners:
            model = self._freed if freed else self.model
            self._runners[freed] = _Runner(
                model, self.wanted, self.threads, self.exact, self.allow_fallback, self.spinning
            )
        return self._runners[freed]

    @cached_property
    def _freed(self) -> Model:
        return free(self.model)

    @cached_property
    def _varying(self) -> set[str]:
        """Tensors that differ from sample to sample; the rest only constants and shapes decide."""
        return batching.varying(self.model)

    @cached_property
    def _dtypes(self) -> dict[str, str]:
        return {o.name: o.dtype for o in self.model.outputs}

    def _by_sample(self, values: Arrays, count: int) -> Arrays:
        """Give each output that varies an axis with one entry for each sample."""
        for name in self._varying.intersection(values).difference(self._made):
            self._made[name] = self._sample_axis(name, values[name].shape)  # a single sample's shape: it runs first
        return {
            name: results.by_sample(name, value, self._made[name], count) if name in self._varying else value
            for name, value in values.items()
        }

    def _sample_axis(self, name: str, one: tuple[int, ...]) -> int | None:
        """Axis along which an output holds its samples, told by its symbols or by what one sample made."""
        axis = batching.sample_axis(self.model, name)
        turns = stacked(self.model.around(name))
        sure = one.count(1) == 1 and one.index(1) == turns
        if axis is None and self._fixed is not None and not sure:
            axis = batching.loosened_axis(self.model, self._freed, name)
        if axis is None or axis >= len(one) or one[axis] != 1:
            axis = turns if len(one) > turns and one[turns] == 1 else None
        return axis

    def _join(self, parts: list[Arrays]) -> Arrays:
        return {
            name: results.join(name, [part[name] for part in parts], self._made[name])
            if name in self._varying
            else value
            for name, value in parts[0].items()
        }

    def _cropped(self, values: Arrays, count: int) -> Arrays:
        """The first samples of each output."""
        return {
            name: np.take(value, range(count), self._made[name]) if name in self._varying else value
            for name, value in values.items()
        }

    def _report(self, done: int, count: int) -> None:
        if self.progress is not None:
            self.progress(done, count)

    def _chunk(self, arrays: Arrays) -> int:
        """Samples per chunk within the budget: three of the largest tensors live at once, and all outputs."""
        one = {name: array.shape for name, array in feeding.rows(arrays, self._axes, 0, 1).items()}
        key = tuple(one.values())
        if key not in self._chunks:
            sizes = tensor_bytes(self.model, one)
            held = 3 * max(sizes.values(), default=1) + sum(sizes.get(o.name, 0) for o in self.model.outputs)
            self._chunks[key] = max(1, min(self.max_chunk, self.budget // max(held, 1)))
        return self._chunks[key]


def available() -> list[str]:
    """Names of the providers that this installation of onnxruntime has."""
    return list(ort.get_available_providers())


def version() -> str:
    """Version of onnxruntime."""
    return str(ort.__version__)


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
        self,
        model: Model,
        providers: list[str],
        threads: int | None,
        exact: bool,
        allow_fallback: bool,
        spinning: bool,
    ) -> None:
        self.cast = cast(model)
        model, self.source = self.cast.model, model.source
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads or 0
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        if exact:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if providers != [PROVIDERS["cpu"]]:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            self.session = _session(model, options, providers)
        except ModelError:
            raise
        except Exception as error:  # onnxruntime's exceptions share no base class; each becomes ours, with its cause
            if not allow_fallback or providers == [PROVIDERS["cpu"]]:
                raise _load_error(error, model.source) from error
            self.session = _session(model, options, [PROVIDERS["cpu"]])
        self.provider = self._placement(providers, allow_fallback)

    def _placement(self, providers: list[str], allow_fallback: bool) -> str:
        """Providers that really have nodes, the wanted ones first."""
        got: list[str] = self.session.get_providers()
        if got[0] != providers[0] and not allow_fallback:
            raise ProviderError(
                f"{providers[0]} could not start for {self.source} (onnxruntime chose {got[0]}): check the driver and"
                " the CUDA libraries, or pass --allow-fallback"
            )
        if got == [PROVIDERS["cpu"]] or not hasattr(self.session, "get_provider_graph_assignment_info"):
            return "+".join(got)
        used = {part.ep_name for part in self.session.get_provider_graph_assignment_info() if part.get_nodes()}
        return "+".join(name for name in got if name in used) or got[0]

    def run(self, arrays: Arrays, names: Sequence[str]) -> Arrays:
        """Run once; `arrays` fit the session's batch."""
        given = {self.cast.inputs.get(name, name): array for name, array in arrays.items()}
        asked = [self.cast.outputs.get(name, name) for name in names]
        try:
            values = self.session.run(asked, given)
        except Exception as error:  # as above
            raise RunError(f"{self.source} failed while running: {_brief(error)}") from error
        return {name: results.as_array(name, value) for name, value in zip(names, values, strict=True)}


def _session(model: Model, options: Any, providers: list[str]) -> Any:
    """Create a session; its random operators start from the same seed, and it never retries elsewhere by itself."""
    proto, folder = located(model)
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    ort.set_seed(SEED)
    return ort.InferenceSession(proto.SerializeToString(), options, providers=providers, enable_fallback=0)


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
    return list(dict.fromkeys(chosen)) or [PROVIDERS["cpu"]]


def _brief(error: Exception) -> str:
    """onnxruntime's message on one line, without its own prefix, paths of its source, and repeats."""
    text = " ".join(str(error).split())
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"/\S+?/onnxruntime/\S+?:\d+ ", "", text)
    return text[:400]


def _load_error(error: Exception, source: str) -> ModelError | RunError:
    if type(error).__name__ in ("NotImplemented", "EPFail", "EngineError"):
        return RunError(f"onnxruntime can't run {source}: {_brief(error)}")
    return ModelError(f"{Path(source).name} is not a model that onnxruntime accepts: {_brief(error)}")
