"""How many tensors of two models are matched rightly, wrongly or not at all, and by peers' rules: the truth is known.

``python -m benchmarks.alignment [--into DIR] [--real ../shared/real] [--only NETWORK] [--kind KIND]``. A tensor counts
where the pair's maker knows what became of it (:mod:`benchmarks.siblings`). ``right``: it lies in the class of tied
tensors that it was matched with; ``exact``: it is itself the one named; ``false``: matches of what the second model
doesn't have any more. The peers' columns are right/wrong/unmatched of their rules on the same names.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.siblings import KINDS, Sibling, Truth, made, tensors
from onnx_inspect.analysis.alignment import align
from onnx_inspect.comparing.subjects import ModelSubject, side
from onnx_inspect.engine import Engine
from onnx_inspect.errors import InspectError
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.points import INPUT
from onnx_inspect.graph.read import read
from onnx_inspect.inputs.paired import convention, paired
from onnx_inspect.inputs.read import read as read_batch

Arrays = dict[str, NDArray[Any]]


@dataclass
class Count:
    """Tensors of some pairs."""

    right: int = 0
    exact: int = 0
    wrong: list[str] = field(default_factory=list)
    abstained: list[str] = field(default_factory=list)
    false: int = 0
    polygraphy: list[int] = field(default_factory=lambda: [0, 0, 0])
    qdq: list[int] = field(default_factory=lambda: [0, 0, 0])

    def add(self, other: Count) -> None:
        self.right += other.right
        self.exact += other.exact
        self.false += other.false
        self.wrong += other.wrong
        self.abstained += other.abstained
        for mine, theirs in ((self.polygraphy, other.polygraphy), (self.qdq, other.qdq)):
            mine[:] = [a + b for a, b in zip(mine, theirs, strict=True)]

    @property
    def total(self) -> int:
        return self.right + len(self.wrong) + len(self.abstained)


def engine(model: Model) -> Engine:
    return Engine(model, exact=True, threads=1)


def subjects(one: Path, other: Path, words: list[str]) -> tuple[ModelSubject, ModelSubject, dict[str, str]]:
    """Two files ready to be compared on the inputs named."""
    a, b = read(one), read(other)
    own, theirs = convention(a, b), convention(b, a)
    batch = read_batch(a.inputs, words, preprocess=own[0] if own else None, metadata=a.metadata)
    twin, names = paired(batch, a, b, preprocess=theirs[0] if theirs else None)
    return ModelSubject(a, batch, engine), ModelSubject(b, twin, engine), names


def count(one: Path, sibling: Sibling, words: list[str]) -> Count:
    """Match two files and hold the matches against the truth."""
    a, b, names = subjects(one, sibling.path, words)
    of_a, of_b = side(a), side(b)
    found = align(of_a, of_b, list(names.items()))
    there = {p.name for p in of_b.points if p.name in of_b.prints}
    result = Count()
    list_a = [p.name for p in of_a.points if p.op_type != INPUT]
    list_b = [p.name for p in of_b.points if p.op_type != INPUT]
    by_rule = polygraphy(list_a, list_b)
    by_suffix = qdq_loss_debug(list_a, list_b)
    classes = {n: {m.b, *m.b_tied, *(p[1] for p in m.pairs)} for m in found.matches for n in (m.a, *m.a_tied)}
    claimed = {pair[0] for m in found.matches for pair in m.pairs}
    for p in of_a.points:
        if p.op_type == INPUT or p.name not in of_a.prints or p.name not in sibling.truth:
            continue
        truth, matched = sibling.truth[p.name] & there, classes.get(p.name)
        if not truth:
            result.false += p.name in claimed
            continue
        if matched is None:
            result.abstained.append(p.name)
        elif matched & truth:
            result.right += 1
            result.exact += found.partner(p.name) in truth
        else:
            result.wrong.append(f"{p.name} = {found.partner(p.name)}, but it is {'/'.join(sorted(truth))}")
        for rule, counts in ((by_rule, result.polygraphy), (by_suffix, result.qdq)):
            guess = rule.get(p.name)
            counts[2 if guess is None else 0 if guess in truth else 1] += 1
    return result


def polygraphy(a: list[str], b: list[str]) -> dict[str, str]:
    """The rule of Polygraphy's `run`: the same name, else the first that holds it or is held by it, else its place."""
    found = {}
    for place, name in enumerate(a):
        if name in b:
            found[name] = name
            continue
        low = name.lower()
        near = next((other for other in b if low in other.lower() or other.lower() in low), None)
        guess = near if near is not None else b[place] if place < len(b) else None
        if guess is not None:
            found[name] = guess
    return found


def qdq_loss_debug(a: list[str], b: list[str]) -> dict[str, str]:
    """The rule of onnxruntime's qdq_loss_debug: a float tensor of that name, without what quantisers append."""
    found, own = {}, set(a)
    for name in b:
        for suffix in ("_DequantizeLinear_Output", "_QuantizeLinear_Input"):
            base = name.removesuffix("_1").removesuffix(suffix)
            if base != name and base in own:
                found.setdefault(base, name)
    return found


def by_value(one: Path, other: Path, feeds: Mapping[str, Any]) -> Truth:
    """Truth of two float models that compute the same: B's tensors whose every element agrees, on other inputs."""
    a, b, _ = subjects(one, other, ["random", "random"])
    a_all = [{n: v.reshape(-1) for n, v in a.values(i, [p.name for p in a.points]).items()} for i in (0, 1)]
    b_all = [{n: v.reshape(-1) for n, v in b.values(i, [p.name for p in b.points]).items()} for i in (0, 1)]

    def alike(x: NDArray[Any], y: NDArray[Any]) -> bool:
        if x.size != y.size or x.dtype.kind != y.dtype.kind:
            return False
        scale = float(np.abs(x.astype(np.float64)).max(initial=0)) or 1.0
        return bool(np.abs(np.sort(x).astype(np.float64) - np.sort(y)).max(initial=0) <= 2e-5 * scale)

    return {
        p.name: {
            q.name for q in b.points if all(alike(x[p.name], y[q.name]) for x, y in zip(a_all, b_all, strict=True))
        }
        for p in a.points
        if p.op_type != INPUT
    }


def tf2onnx(one: Path, other: Path) -> Truth:
    """Truth of float and int8 files of tf2onnx, which names the value before its quantiser ``X_prequant``."""
    a, b = onnx.load(one), onnx.load(other)
    there = set(tensors(b))
    truth: Truth = {}
    for name in tensors(a):
        forms = {f"{name}_prequant", f"{name}_int8_prequant", f"{name}_int8"} & there
        truth[name] = forms or {name, f"{name}_dequant"} & there
    return truth


def pairs(
    into: Path, real: Path | None, only: str, kind: str
) -> Iterator[tuple[str, str, Path, Sibling | str, list[str]]]:
    """Kind, network, first file, sibling (or why there is none), inputs."""
    for name, path, words, calibration in files(into, real):
        if only and only not in name:
            continue
        target = into / "siblings"
        target.mkdir(parents=True, exist_ok=True)
        model = read(path)
        batch = read_batch(model.inputs, calibration, metadata=model.metadata)
        feeds = [
            {n: (v if n in batch.shared else v[i : i + 1]) for n, v in batch.arrays.items()} for i in range(batch.n)
        ]
        for label, sibling in made(path, target, feeds, kind):
            yield label, name, path, sibling, words
    if only:
        return
    yield from others(into, real)


def files(into: Path, real: Path | None) -> Iterator[tuple[str, Path, list[str], list[str]]]:
    """Networks, the inputs that they are compared on, and those that quantisers measure ranges on."""
    root = Path(__file__).parents[1] / "fixtures"
    drawn = [str(root / "inputs" / f"shape_{n}.png") for n in ("star", "cross")]
    every = sorted(str(path) for path in (root / "inputs").glob("shape_*.png"))
    digits = [str(root / "inputs" / f"digit_{n}.png") for n in (3, 5)]
    from benchmarks.small_networks import NETWORKS, built

    for name in NETWORKS:
        yield name, built(into, name), drawn, every
    written = sorted(str(path) for path in (root / "inputs").glob("digit_*.png"))
    yield "shapes_resnet", root / "shapes_resnet.onnx", drawn, every
    for name in ("digits_convnet", "digits_vit"):
        yield name, root / f"{name}.onnx", digits, written
    if real is not None:
        photographs = [str(real / "images" / f"{n}.jpg") for n in ("zebra", "hotdog")]
        seen = sorted(str(path) for path in (real / "images").glob("*.jpg"))[:8]
        for name in ("squeezenet1_fp32", "resnet20_cifar10", "vit_cifar10_pgd_2_3_16", "nanodet_m_416", "ppocr_v2_cls"):
            yield name, real / "models" / f"{name}.onnx", photographs, seen


def others(into: Path, real: Path | None) -> Iterator[tuple[str, str, Path, Sibling | str, list[str]]]:
    """Pairs of files that exist: two exporters, two checkpoints, siblings by other people."""
    from benchmarks.small_networks import NETWORKS, built

    root = Path(__file__).parents[1] / "fixtures"
    noise = ["random", "random"]
    for name in NETWORKS:
        one, other = built(into, name), built(into, name, dynamo=True)
        yield "dynamo against legacy", name, one, Sibling(other, by_value(one, other, {})), noise
        again = built(into, name, 1)
        yield "two checkpoints", name, one, Sibling(again, {n: {n} for n in tensors(onnx.load(one))}), noise
    for epoch in (1, 3):
        one, other = root / f"digits_convnet_epoch{epoch}.onnx", root / "digits_convnet.onnx"
        yield "two checkpoints", "digits_convnet", one, Sibling(other, {n: {n} for n in tensors(onnx.load(one))}), noise
    if real is None:
        return
    folder = real / "models"
    photographs = [str(real / "images" / f"{n}.jpg") for n in ("zebra", "hotdog")]
    one, other = folder / "captum_cifar_legacy_op11.onnx", folder / "captum_cifar_dynamo_op21.onnx"
    yield "dynamo against legacy", "captum", one, Sibling(other, by_value(one, other, {})), photographs
    one, other = folder / "mnist_cntk_op7.onnx", folder / "mnist_cntk_op8_optimised.onnx"
    yield "real siblings", "mnist_cntk", one, Sibling(other, by_value(one, other, {})), noise
    one, other = folder / "squeezenet1_fp32.onnx", folder / "squeezenet1_fp16.onnx"
    yield "real siblings", "squeezenet", one, Sibling(other, {n: {n} for n in tensors(onnx.load(one))}), photographs
    for name in ("resnet8_keras", "visual_wake_words"):
        one, other = folder / f"{name}_fp32.onnx", folder / f"{name}_int8.onnx"
        yield "real siblings", name, one, Sibling(other, tf2onnx(one, other)), photographs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=Path("/tmp/onnx-inspect-alignment"))
    parser.add_argument("--real", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--kind", default="")
    given = parser.parse_args()
    sums: dict[str, Count] = {}
    number: dict[str, int] = {}
    for kind, name, one, sibling, words in pairs(given.into, given.real, given.only, given.kind):
        if given.kind and given.kind != kind:
            continue
        if isinstance(sibling, str):
            print(f"{kind}: {name}: can't be made: {sibling}", file=sys.stderr)
            continue
        try:
            found = count(one, sibling, words)
        except InspectError as error:
            print(f"{kind}: {name}: left out, what was made of it is no valid model: {error}", file=sys.stderr)
            continue
        sums.setdefault(kind, Count()).add(found)
        number[kind] = number.get(kind, 0) + 1
        print(f"{kind}: {name}: {line(found)}", file=sys.stderr, flush=True)
        for text in found.wrong[:6]:
            print(f"    wrong: {text}", file=sys.stderr)
        for text in found.abstained[:6]:
            print(f"    abstained: {text}", file=sys.stderr)
    whole = Count()
    heads = f"{'tensors':>7} {'right':>6} {'wrong':>5} {'none':>5} {'exact':>6} {'false':>5}"
    print(f"{'kind (pairs)':32} {heads}  Polygraphy's rule  qdq_loss_debug's")
    for kind in [*(k for k in KINDS if k in sums), *(k for k in sums if k not in KINDS)]:
        print(f"{f'{kind} ({number[kind]})':32} {line(sums[kind])}")
        whole.add(sums[kind])
    print(f"{f'all ({sum(number.values())})':32} {line(whole)}  {whole.right / max(whole.total, 1):.2%} right")


def line(found: Count) -> str:
    own = (
        f"{found.total:7} {found.right:6} {len(found.wrong):5} {len(found.abstained):5} {found.exact:6} {found.false:5}"
    )
    return f"{own}  {'/'.join(map(str, found.polygraphy)):>17} {'/'.join(map(str, found.qdq)):>17}"


if __name__ == "__main__":
    main()
