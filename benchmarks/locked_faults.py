"""How often `verify` names the layer that was tampered with: `python benchmarks/locked_faults.py [NET.onnx ...]`.

Every learned tensor of every Conv, Gemm and MatMul is tampered with in four ways, one at a time; the nodes and tensors
are renamed in half of the runs. Counted is whether the first layer that drifts is the guilty one.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnx_inspect.analysis.verdict import Limits, verify
from onnx_inspect.comparing.locking import lock
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import parse, read
from onnx_inspect.inputs.read import read as read_inputs

ROOT = Path(__file__).parents[1]
NETS = [ROOT / "fixtures" / f"{name}.onnx" for name in ("digits_convnet", "shapes_resnet", "digits_vit")]
Array = NDArray[np.float32]
Fault = Callable[[Array, np.random.Generator], Array]


def scaled(weight: Array, rng: np.random.Generator) -> Array:
    """All numbers times 1.05."""
    return weight * np.float32(1.05)


def dropped(weight: Array, rng: np.random.Generator) -> Array:
    """Nothing left."""
    return np.zeros_like(weight)


def swapped(weight: Array, rng: np.random.Generator) -> Array:
    """Two units exchanged."""
    found = weight.copy()
    one, other = rng.choice(len(weight), 2, replace=False)
    found[[one, other]] = found[[other, one]]
    return found


def coarse(weight: Array, rng: np.random.Generator) -> Array:
    """Rounded to four bits."""
    step = np.abs(weight).max() / 7
    return (np.round(weight / step) * step).astype(np.float32) if step else weight


FAULTS: dict[str, Fault] = {f.__name__: f for f in (scaled, dropped, swapped, coarse)}


def plants(proto: onnx.ModelProto) -> Iterator[tuple[int, str]]:
    """Nodes, and the learned tensors that they alone read."""
    readers = Counter(name for node in proto.graph.node for name in set(node.input))
    constants = {t.name for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    for number, node in enumerate(proto.graph.node):
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            yield from ((number, name) for name in node.input if name in constants and readers[name] == 1)


def tampered(proto: onnx.ModelProto, tensor: str, fault: Fault, rename: bool, seed: int) -> Model | None:
    """The model with one fault; None where that changes nothing."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    found = next(t for t in copy.graph.initializer if t.name == tensor)
    before = numpy_helper.to_array(found)
    after = fault(before, np.random.default_rng(seed)) if len(before) > 1 else before
    if np.linalg.norm(after - before) <= 1e-2 * np.linalg.norm(before):
        return None
    found.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(after), found.name))
    if rename:
        _rename(copy, random.Random(seed))
    return parse(copy.SerializeToString(), source="tampered.onnx")


def _rename(proto: onnx.ModelProto, rng: random.Random) -> None:
    graph = proto.graph
    kept = {value.name for value in (*graph.input, *graph.output)}
    names: dict[str, str] = {}

    def new(name: str) -> str:
        return name if not name or name in kept else names.setdefault(name, f"t{rng.randrange(10**9)}")

    for tensor in graph.initializer:
        tensor.name = new(tensor.name)
    for node in graph.node:
        node.name = f"n{rng.randrange(10**9)}"
        node.input[:], node.output[:] = map(new, node.input), map(new, node.output)
    del graph.value_info[:]
    kept_notes = [p for p in proto.metadata_props if p.key.endswith("preprocess")]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept_notes)


def main(paths: list[Path]) -> None:
    """Count and print."""
    total: Counter[str] = Counter()
    for path in paths:
        proto, model = onnx.load(path), read(path)
        words = ["random"] * 2
        batch = read_inputs(model.inputs, words, metadata=model.metadata)
        locked = lock(model, batch, words=words)
        names = [node.name for node in proto.graph.node]
        counts: Counter[str] = Counter()
        for number, tensor in plants(proto):
            for seed, (name, fault) in enumerate(FAULTS.items()):
                for rename in (False, True):
                    now = tampered(proto, tensor, fault, rename, seed)
                    if now is None:
                        continue
                    first = verify(locked, lock(now, batch, words=words), Limits()).first
                    verdict = "missed" if first is None else "right" if first.locked.name == names[number] else "wrong"
                    counts[verdict] += 1
                    if verdict != "right":
                        print(f"  {verdict}: {name} {names[number]} renamed={rename}", first and first.locked.name)
        print(f"{path.stem}: {dict(counts)}")
        total += counts
    print(f"all: {dict(total)}; named first {total['right'] / sum(total.values()):.1%}")


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]] or NETS)
