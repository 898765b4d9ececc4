"""What capturing a data set costs beside the plain forward passes of the same model, and whether memory stays flat.

    python benchmarks/capture.py [--model net.onnx] [--samples 512] [--rounds 5] [--threads 2] [--flat]

Forward passes over arrays in memory and captures to disk of the same samples take turns in one run; ratios are medians
over the rounds. On a busy machine the processor time tells more than the clock: with --threads 1 nothing spins, and
forward passes' share of a capture's processor time is what its throughput could be on one idle core. Without --model
it measures the shipped digits network and, where torch is installed, a ResNet-18 topology with random weights. Samples
come from a mapped .npy (as the network is fed), from an .npz of uint8 pictures and from JPEG files: with pictures the
plain run gets them decoded beforehand, the capture not.
--flat captures 1,000 and 20,000 pictures in processes of their own and prints the largest resident set of each.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.peak import peak  # noqa: E402
from onnx_inspect.capture.local import write  # noqa: E402
from onnx_inspect.capture.setup import Job, prepared  # noqa: E402
from onnx_inspect.engine import Engine  # noqa: E402
from onnx_inspect.graph.model import Model  # noqa: E402
from onnx_inspect.graph.read import read  # noqa: E402

DIGITS = ROOT / "fixtures" / "digits_convnet.onnx"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flat", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(one(Path(options.one[0]), Path(options.one[1])))
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.flat:
            flat(Path(folder))
            return
        for path, samples in models(options.model, options.samples, Path(folder)):
            measure(read(path), samples, options, Path(folder))


def models(given: Path | None, samples: int, folder: Path) -> list[tuple[Path, int]]:
    if given is not None:
        return [(given, samples)]
    try:
        from benchmarks.forward_ratio import exported

        return [(DIGITS, 8 * samples), (exported(folder), samples)]
    except ImportError:
        return [(DIGITS, 8 * samples)]


def measure(net: Model, samples: int, options: argparse.Namespace, folder: Path) -> None:
    shape = [d if isinstance(d, int) else 1 for d in net.inputs[0].shape or ()][1:]
    arrays = np.random.default_rng(0).normal(size=(samples, *shape)).astype(np.float32)
    np.save(folder / "fed.npy", arrays)
    pictures = np.random.default_rng(1).integers(0, 256, (samples, *shape[1:], 3), np.uint8)
    np.savez(folder / "pictures.npz", x=pictures)
    files = folder / f"files-{Path(net.source).stem}"
    files.mkdir()
    for n, picture in enumerate(pictures):
        smooth = Image.fromarray(picture[::8, ::8]).resize(picture.shape[1::-1])  # noise makes no usual JPEG
        smooth.save(files / f"{n:05d}.jpg", quality=90)
    last = [layer.name for layer in net.layers if layer.op_type in ("Relu", "MaxPool", "Add")][-1]
    print(f"{Path(net.source).name}: {samples} samples of {shape}, layer {last} pooled, {options.threads} threads")
    forward = Engine(net, threads=options.threads)
    for what, where in (("arrays as fed", "fed.npy"), ("uint8 .npz", "pictures.npz"), ("JPEG files", files.name)):
        made = planned(net, folder / where, last, options.threads)
        made.worker.engine.settle({net.inputs[0].name: arrays[:3]})
        out, name = folder / f"out-{Path(net.source).stem}-{where}", net.inputs[0].name
        clock, processor, rates = alternated(forward, made, arrays, out=out, rounds=options.rounds, name=name)
        print(
            f"  {what:<14} forward {rates[0]:7.0f}/s, capture {rates[1]:7.0f}/s: {statistics.median(clock):.1%}"
            f" ({min(clock):.1%} to {max(clock):.1%}); of processor time {statistics.median(processor):.1%};"
            f" reading alone {rates[2]:.0f}/s"
        )


def alternated(
    forward: Engine, made: Job, arrays: np.ndarray, *, out: Path, rounds: int, name: str
) -> tuple[list[float], list[float], list[float]]:
    """Plain time by our time for each round, by the clock and of the processor; samples a second of each kind."""
    actions = (
        lambda number: passes(forward, name, arrays, made),
        lambda number: write(made, out.with_name(f"{out.name}-{number}")),
        lambda number: reading(made),
    )
    taken = np.array([[timed(lambda a=a, n=n: a(n)) for a in actions] for n in range(rounds + 1)])[1:]  # (rounds, 3, 2)
    ratios = taken[:, 0] / taken[:, 1]
    return ratios[:, 0].tolist(), ratios[:, 1].tolist(), (len(arrays) / np.median(taken[..., 0], axis=0)).tolist()


def reading(made: Job) -> None:
    for shard in range(made.plan.shards):
        for places in made.plan.portions(shard):
            made.worker.read(places)


def planned(net: Model, data: Path, layer: str, threads: int) -> Job:
    return prepared(net, data, [layer], pool="mean", make_engine=partial(Engine, threads=threads))


def passes(engine: Engine, name: str, arrays: np.ndarray, made: Job) -> None:
    """The plain forward passes of all samples, in the same portions."""
    for shard in range(made.plan.shards):
        for places in made.plan.portions(shard):
            engine.run({name: arrays[places.start : places.stop]})


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of all processors."""
    time.sleep(0.05)  # until the threads of the session before have stopped spinning
    start, busy = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - start, time.process_time() - busy


def flat(folder: Path) -> None:
    """Largest resident set of captures of 1,000 and of 20,000 pictures."""
    for count in (1_000, 20_000):
        data = folder / f"{count}.npz"
        rng = np.random.default_rng(0)
        np.savez_compressed(
            data, images=rng.integers(0, 256, (count, 32, 32, 3), np.uint8), labels=np.arange(count) % 10
        )
        command = [sys.executable, __file__, "--one", str(data), str(folder / f"out-{count}")]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"{count:>6} pictures: {ran.stdout.strip()}")


def one(data: Path, out: Path) -> str:
    net = read(DIGITS)
    made = planned(net, data, "MaxPool:0", 2)
    before = peak()
    start = time.perf_counter()
    found = write(made, out).captured
    seconds = time.perf_counter() - start
    layer = found.layers[0]
    return f"{before:.0f} MiB before, {peak():.0f} MiB at most, {len(found)} rows of {layer} in {seconds:.1f} s"


if __name__ == "__main__":
    main()
