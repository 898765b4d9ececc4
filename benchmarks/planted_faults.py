"""Is the layer in which a fault was planted the one that is named first?

``python -m benchmarks.planted_faults [--into DIR] [--plants N] [--real ../shared/real]``. Each plant takes a network,
or its int8 form, whose other layers all err a little, changes one layer of a copy, and compares the two. A hit names
A's tensor that the layer makes (or one that only holds the same values); the last two columns are what naming the first
layer that differs, or that of the largest accumulated error, would have hit.
"""

from __future__ import annotations

import argparse
import copy
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks.alignment import engine, files, subjects
from benchmarks.siblings import made, producers
from onnx_inspect.analysis.comparison import Comparison, Limits
from onnx_inspect.comparing.models import compare
from onnx_inspect.graph.read import read
from onnx_inspect.inputs.read import read as read_batch

WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Plant:
    """A changed model, and the tensor of the unchanged one in which it shows first."""

    model: onnx.ModelProto
    guilty: str
    what: str


class Garden:
    """A model in which something is to be planted."""

    def __init__(self, model: onnx.ModelProto, rng: random.Random) -> None:
        self.model, self.rng = copy.deepcopy(model), rng
        self.weights = {t.name: t for t in self.model.graph.initializer}
        self.makers = producers(self.model)
        self.constants = {n.output[0]: n for n in self.model.graph.node if n.op_type == "Constant"}

    def stored(self, name: str) -> str | None:
        """The initialiser behind a weight, seen through DequantizeLinear; None where there is none of some size."""
        maker = self.makers.get(name)
        if maker is not None and maker.op_type in ("DequantizeLinear", "Identity"):
            name = maker.input[0]
        return name if name in self.weights and int(np.prod(self.weights[name].dims)) > 1 else None

    def layers(self, kinds: tuple[str, ...], slot: int = 1) -> list[tuple[onnx.NodeProto, str]]:
        """Nodes of some kinds that read a stored tensor in a place."""
        return [
            (node, stored)
            for node in self.model.graph.node
            if node.op_type in kinds and len(node.input) > slot and (stored := self.stored(node.input[slot]))
        ]

    def value(self, name: str) -> NDArray[np.generic]:
        return numpy_helper.to_array(self.weights[name])

    def put(self, name: str, value: NDArray[np.generic]) -> None:
        self.weights[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))

    def scale_of(self, name: str) -> str | None:
        """The scale of the DequantizeLinear that reads a stored tensor."""
        readers = (n for n in self.model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == name)
        return next((n.input[1] for n in readers if n.input[1] in self.weights), None)


def weight_scaled(garden: Garden) -> Plant | None:
    found = garden.layers(WEIGHTED)
    if not found:
        return None
    node, name = garden.rng.choice(found)
    scale = garden.scale_of(name)
    key = scale or name
    factor = garden.rng.choice([0.7, 1.3, 1.5])
    garden.put(key, (garden.value(key) * factor).astype(garden.value(key).dtype))
    return Plant(garden.model, node.output[0], f"weight of {node.name} times {factor}")


def bias_dropped(garden: Garden) -> Plant | None:
    found = garden.layers(("Conv", "Gemm"), 2)
    live = [(n, s) for n, s in found if np.abs(garden.value(s).astype(np.float64)).max() > 0]
    if not live:
        found = [
            (n, stored)
            for n in garden.model.graph.node
            if n.op_type == "Add"
            for name in n.input
            if (stored := garden.stored(name)) and len(garden.weights[stored].dims) == 1
        ]
        live = [(n, s) for n, s in found if np.abs(garden.value(s).astype(np.float64)).max() > 0]
    if not live:
        return None
    node, name = garden.rng.choice(live)
    garden.put(name, np.zeros_like(garden.value(name)))
    return Plant(garden.model, node.output[0], f"bias of {node.name} dropped")


def relu_removed(garden: Garden) -> Plant | None:
    ends = {o.name for o in garden.model.graph.output}
    found = [n for n in garden.model.graph.node if n.op_type in ("Relu", "Clip") and n.output[0] not in ends]
    if not found:
        return None
    node = garden.rng.choice(found)
    for reader in garden.model.graph.node:
        reader.input[:] = [node.input[0] if name == node.output[0] else name for name in reader.input]
    garden.model.graph.node.remove(node)
    return Plant(garden.model, node.output[0], f"{node.op_type} {node.name} removed")


def channels_permuted(garden: Garden) -> Plant | None:
    found = [
        (n, s) for n, s in garden.layers(("Conv",)) if garden.scale_of(s) is None and garden.weights[s].dims[0] > 3
    ]
    if not found:
        return None
    node, name = garden.rng.choice(found)
    value = garden.value(name)
    one, other = garden.rng.sample(range(len(value)), 2)
    order = np.arange(len(value))
    order[[one, other]] = order[[other, one]]
    garden.put(name, value[order])
    return Plant(garden.model, node.output[0], f"channels {one} and {other} of {node.name} exchanged")


def wrong_pad(garden: Garden) -> Plant | None:
    found = []
    for node in garden.model.graph.node:
        pads = next((a for a in node.attribute if a.name == "pads"), None)
        if node.op_type in ("Conv", "MaxPool", "AveragePool") and pads is not None and sum(pads.ints) > 0:
            found.append((node, pads))
    if not found:
        return None
    node, pads = garden.rng.choice(found)
    half = len(pads.ints) // 2
    total = [pads.ints[i] + pads.ints[i + half] for i in range(half)]
    pads.ints[:] = [0] * half + total
    return Plant(garden.model, node.output[0], f"pads of {node.name} all at the end")


def weight_coarse(garden: Garden) -> Plant | None:
    """One weight rounded to three bits."""
    found = [(n, s) for n, s in garden.layers(WEIGHTED) if garden.value(s).dtype == np.float32]
    if not found:
        return None
    node, name = garden.rng.choice(found)
    value = garden.value(name)
    step = float(np.abs(value).max()) / 3
    garden.put(name, (np.rint(value / step) * step).astype(np.float32))
    return Plant(garden.model, node.output[0], f"weight of {node.name} in three bits")


def range_wrong(garden: Garden) -> Plant | None:
    """The range of one activation's quantiser too wide, so that its steps are coarse, or too narrow."""
    found = []
    for node in garden.model.graph.node:
        read, weights = node.input[0] if node.input else "", garden.weights
        own = node.op_type == "QuantizeLinear" and read not in weights and node.input[1] in weights
        if own and all(read != i.name for i in garden.model.graph.input):
            found.append(node)
    if not found:
        return None
    node = garden.rng.choice(found)
    factor = garden.rng.choice([12.0, 0.25])
    name = node.input[1]
    own = f"{node.output[0]}_planted_scale"
    garden.model.graph.initializer.append(
        numpy_helper.from_array((garden.value(name) * factor).astype(np.float32), own)
    )
    for other in garden.model.graph.node:
        if other is node or (other.op_type == "DequantizeLinear" and other.input[0] == node.output[0]):
            other.input[1] = own
    return Plant(garden.model, node.output[0], f"range of {node.name} times {factor}")


FAULTS: dict[str, Callable[[Garden], Plant | None]] = {
    "weight scaled": weight_scaled,
    "bias dropped": bias_dropped,
    "Relu removed": relu_removed,
    "channels exchanged": channels_permuted,
    "wrong pad": wrong_pad,
    "weight badly quantised": weight_coarse,
    "activation badly quantised": range_wrong,
}


def plants(into: Path, real: Path | None, count: int) -> Iterator[tuple[str, str, Path, Path, set[str], list[str]]]:
    """Fault, what was done, A's file, B's file, A's tensors of which any is right, inputs."""
    rng = random.Random(0)
    folder = into / "planted"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        for name, path, words, calibration in files(into, real):
            if name in ("nanodet_m_416", "ppocr_v2_cls", "vit_cifar10_pgd_2_3_16"):
                continue
            model = read(path)
            batch = read_batch(model.inputs, calibration, metadata=model.metadata)
            feeds = [{n: v[i : i + 1] for n, v in batch.arrays.items()} for i in range(batch.n)]
            (into / "siblings").mkdir(parents=True, exist_ok=True)
            ((_, quantised),) = made(path, into / "siblings", feeds, "static int8, QDQ")
            for fault, plant in FAULTS.items():
                int8 = fault == "activation badly quantised" or (number % 2 == 1 and fault != "Relu removed")
                if int8 and isinstance(quantised, str):
                    continue
                base = onnx.load(quantised.path if int8 and not isinstance(quantised, str) else path)
                planted = plant(Garden(base, rng))
                if planted is None:
                    continue
                target = folder / f"{name}-{fault.replace(' ', '-')}-{number}.onnx"
                onnx.save(planted.model, target)
                guilty = {planted.guilty}
                if int8 and not isinstance(quantised, str):  # names of the int8 file, in the float one
                    guilty = {a for a, b in quantised.truth.items() if planted.guilty in b} or guilty
                yield fault + (" (int8)" if int8 else ""), f"{name}: {planted.what}", path, target, guilty, words


def compared(one: Path, other: Path, words: list[str]) -> Comparison:
    a, b, names = subjects(one, other, words)
    return compare(a, b, list(names.items()), sources=a.batch.sources, limits=Limits(), make_engine=engine)


def first_worst(found: Comparison) -> tuple[str, str]:
    """What naive readings would name: the first layer that differs, the one of the worst accumulated error."""
    apart = [(p.a, p.apart.noise) for p in found.matched]
    first = next((name for name, noise in apart if noise > 1e-6), "")
    return first, max(apart, key=lambda entry: entry[1], default=("", 0.0))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=Path("/tmp/onnx-inspect-alignment"))
    parser.add_argument("--real", type=Path)
    parser.add_argument("--plants", type=int, default=2, help="of each fault in each network")
    given = parser.parse_args()
    tally: dict[str, Counter[str]] = {}
    for fault, what, one, other, guilty, words in plants(given.into, given.real, given.plants):
        found = compared(one, other, words)
        counts = tally.setdefault(fault, Counter())
        counts["all"] += 1
        named = [{s.a} for s in found.suspects]
        ties = {t: {p.a, *p.a_tied} for p in found.matched for t in (p.a, *p.a_tied)}
        named = [{tied for name in one for tied in ties.get(name, {name})} for one in named]
        hit = bool(named and named[0] & guilty)
        counts["hit"] += hit
        counts["among three"] += any(one & guilty for one in named[:3])
        for key, name in zip(("first", "worst"), first_worst(found), strict=True):
            counts[key] += name in guilty
        culprit = found.culprit
        said = "nothing" if culprit is None else f"{culprit.a} / {culprit.b}: {culprit.why}"
        print(
            f"{'hit ' if hit else 'MISS'} {fault}: {what}: {'/'.join(sorted(guilty))}; {said}",
            file=sys.stderr,
            flush=True,
        )
    whole: Counter[str] = Counter()
    print(f"{'fault':36} {'plants':>6} {'first':>6} {'of three':>8}   by the first error  by the largest error")
    for fault, counts in sorted(tally.items()):
        whole.update(counts)
        print(row(fault, counts))
    print(row("all", whole) + f"   {whole['hit'] / max(whole['all'], 1):.1%} named first")


def row(fault: str, c: Counter[str]) -> str:
    return f"{fault:36} {c['all']:6} {c['hit']:6} {c['among three']:8} {c['first']:20} {c['worst']:21}"


if __name__ == "__main__":
    main()
