"""How a model is run to lock what its layers give, and to verify it later on the very same inputs."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.depth import PLUMBING
from onnx_inspect.analysis.lock import Inputs, Lock, from_text
from onnx_inspect.analysis.sketch import Sketcher
from onnx_inspect.comparing.stream import BUDGET, opened, pieces, sample_bytes, split
from onnx_inspect.engine import Engine
from onnx_inspect.errors import InputError, TargetError
from onnx_inspect.graph import classifier as classifiers
from onnx_inspect.graph.dependence import dependent
from onnx_inspect.graph.model import METADATA_PREFIX, Layer, Model
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.inputs.files import exists
from onnx_inspect.inputs.read import read as read_inputs
from onnx_inspect.targets import matrix

MOST = 32  # samples run at one time


def lock(
    model: Model,
    batch: Batch,
    *,
    words: Sequence[str],
    named: Sequence[tuple[str, str]] = (),
    seed: int = 0,
    keep_inputs: bool = False,
    make_engine: Callable[[Model], Engine] = Engine,
) -> Lock:
    """Run a model and keep a sketch of each layer that computes something, of its inputs and of its outputs.

    Parameters
    ----------
    words, named
        What the batch was read from: kept, to find it again.
    seed : int
        Of random inputs, and of the sketches.
    keep_inputs : bool
        Also keep what the model was fed, so that nothing else is needed to verify.

    Raises
    ------
    InputError
        The model gives nothing that can be sketched.
    """
    layers = locked_layers(model)
    tensors = [layer.output.name for layer in layers]
    if not layers:
        raise InputError(f"{model.source} computes no numbers from its inputs: there is nothing to lock")
    sketchers = {la.output.name: Sketcher(la.name, la.op_type, la.output, batch.n, seed) for la in layers}
    entries = [Sketcher(spec.name, "", spec, batch.n, seed) for spec in model.inputs]
    for entry in entries:
        if batch.arrays[entry.name].dtype.kind in "biuf":
            array = batch.arrays[entry.name]
            entry.add(array[None] if entry.name in batch.shared else array)
    scores = _scores(model)
    most = max(1, min(MOST, BUDGET // max(1, sample_bytes(model, batch, tensors))))
    engine, answers = opened(model, [*tensors, *scores], make_engine), []
    for values in pieces(engine, batch, [*tensors, *scores], split(batch.n, most)):
        for name, sketcher in sketchers.items():
            sketcher.add(values[name])
        answers += [matrix(values[name]).argmax(axis=1) for name in scores]
    return Lock(
        model=Path(model.source).name,
        digest=model.digest,
        provider=engine.provider,
        seed=seed,
        inputs=_inputs(batch, words, named, keep_inputs),
        entries=tuple(entry.sketch() for entry in entries),
        layers=tuple(sketcher.sketch() for sketcher in sketchers.values()),
        outputs=tuple(o.name for o in model.outputs if o.name in sketchers),
        classes=tuple(int(c) for c in np.concatenate(answers)) if scores else None,
    )


def locked_layers(model: Model) -> tuple[Layer, ...]:
    """Layers of the main graph that compute numbers from the inputs, and all outputs that are numbers.

    What only moves, copies or converts values is left out: simplifiers add and remove it.
    """
    moved = dependent(model.proto.graph, [spec.name for spec in model.inputs])
    ends = {spec.name for spec in model.outputs}
    return tuple(
        layer
        for layer in model.layers
        if layer.output.name in moved
        and (layer.output.is_float or layer.output.dtype in ("", "int8", "uint8") or layer.output.name in ends)
        and (layer.op_type not in PLUMBING or layer.output.name in ends)
        and layer.output.dtype not in ("string", "sequence", "map", "optional")
    )


def read_lock(path: str | Path) -> Lock:
    """Read a lockfile.

    Raises
    ------
    InputError
        It is missing, no lockfile, or damaged.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such lockfile; write one with onnx-inspect lock") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is no lockfile: it is no text; write one with onnx-inspect lock") from None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from error
    return from_text(text, str(path))


def inputs_of(
    locked: Lock,
    model: Model,
    given: Sequence[str],
    named: Sequence[tuple[str, str]] = (),
    *,
    preprocess: str | None = None,
    labels: Path | None = None,
) -> Batch:
    """Read the inputs that a lock was made on, for the model to verify.

    In this order: `given` ones; what the lock itself holds; what it was made on, read or made up again. The model's own
    recorded preprocess counts, else the lock's where both take numbers of the same type.

    Raises
    ------
    InputError
        They aren't the locked ones, or can't be had.
    """
    kept = locked.inputs
    fresh = bool(given or named)
    if not fresh and kept.content is not None:
        return _kept(locked, model)
    if not fresh and (gone := [file for file in kept.files if not exists(Path(file))]):
        raise InputError(
            f"the lock was made on {gone[0]}, which is not here: name the same inputs (their SHA-256 is checked), or"
            " lock with --keep-inputs"
        )
    recorded = f"{METADATA_PREFIX}preprocess" in model.metadata
    alike = [entry.dtype for entry in locked.entries] == [spec.dtype for spec in model.inputs]
    if preprocess is None and not recorded and alike and kept.preprocess is not None:
        preprocess = json.dumps(dict(kept.preprocess))
    batch = read_inputs(
        model.inputs,
        list(given if fresh else kept.words),
        named=dict(named if fresh else kept.named),
        preprocess=preprocess,
        metadata=model.metadata,
        seed=locked.seed,
        labels=labels,
    )
    return replace(batch, notes=(*batch.notes, *_check_same(kept, batch)))


def _check_same(kept: Inputs, batch: Batch) -> tuple[str, ...]:
    """Refuse other inputs than were locked; say where the same pictures are fed in another way."""
    now = _inputs(batch, (), (), False)
    if len(now.fed) != len(kept.fed):
        raise InputError(f"the lock was made on {len(kept.fed)} inputs, here are {len(now.fed)}: name the same ones")
    rows = zip(kept.fed, now.fed, kept.pictures, now.pictures, kept.sources, now.sources, strict=True)
    changed = []
    for fed, fed_now, picture, picture_now, source, source_now in rows:
        if fed == fed_now:
            continue
        if not picture or picture != picture_now:
            way = "" if kept.files else "; this version of numpy makes other random numbers: lock anew"
            raise InputError(f"{source_now} is not what was locked as {source}: its SHA-256 differs{way}")
        changed.append(source_now)
    if not changed:
        return ()
    return (f"the same pictures are fed in another way than when they were locked: {', '.join(changed[:3])}",)


def _inputs(batch: Batch, words: Sequence[str], named: Sequence[tuple[str, str]], keep: bool) -> Inputs:
    whole = [a for name, a in batch.arrays.items() if name in batch.shared]
    asked = [value[1:] for value in [v for _, v in named] + [w.partition("=")[2] for w in words] if value[:1] == "@"]
    single = [a for name, a in batch.arrays.items() if name not in batch.shared]
    return Inputs(
        words=tuple(words),
        named=tuple(named),
        files=tuple(file for file in [*words, *asked] if exists(Path(file))),
        sources=batch.sources,
        pictures=tuple("" if picture is None else _digest([picture]) for picture in batch.originals),
        fed=tuple(_digest([*(a[n] for a in single), *whole]) for n in range(batch.n)),
        preprocess=None if batch.preprocess is None else batch.preprocess.to_json(),
        content={n: {"data": _packed(a), "shared": n in batch.shared} for n, a in batch.arrays.items()}
        if keep
        else None,
    )


def _digest(arrays: Sequence[NDArray[Any]]) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(repr(array.tolist()).encode() if array.dtype == object else np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _packed(array: NDArray[Any]) -> str:
    """An array as the text of a compressed .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array.astype(str) if array.dtype == object else array, allow_pickle=False)
    return base64.b64encode(zlib.compress(buffer.getvalue(), 9)).decode()


def _unpacked(text: str) -> NDArray[Any]:
    found: NDArray[Any] = np.load(io.BytesIO(zlib.decompress(base64.b64decode(text))), allow_pickle=False)
    return found


def _kept(locked: Lock, model: Model) -> Batch:
    """The arrays that a lock holds, in the order of the model's inputs."""
    content = locked.inputs.content or {}
    if len(content) != len(model.inputs):
        raise InputError(
            f"{model.source} takes {len(model.inputs)} inputs, the lock holds {len(content)}: lock it anew"
        )
    try:
        arrays = [_unpacked(entry["data"]) for entry in content.values()]
        shared = [bool(entry["shared"]) for entry in content.values()]
    except (ValueError, TypeError, KeyError, zlib.error, EOFError, OSError) as error:
        raise InputError(f"the inputs in the lockfile are damaged ({error}): name them, or lock anew") from None
    count = len(locked.inputs.sources)
    return Batch(
        arrays={spec.name: array for spec, array in zip(model.inputs, arrays, strict=True)},
        primary=model.inputs[0].name,
        sources=locked.inputs.sources,
        originals=(None,) * count,
        placements=(None,) * count,
        preprocess=None,
        labels=None,
        notes=(),
        shared=frozenset(spec.name for spec, whole in zip(model.inputs, shared, strict=True) if whole),
    )


def _scores(model: Model) -> list[str]:
    """The tensor of class scores, where there is one."""
    try:
        return [classifiers.find(model).scores]
    except TargetError:
        return []
