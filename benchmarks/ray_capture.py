"""How much faster a capture is on Ray with two workers than in this process, both with one thread for each session.

    python benchmarks/ray_capture.py [--model net.onnx] [--samples 2048] [--rounds 3] [--workers 2]

Needs onnx-inspect[ray]. A cluster of this machine's processors is started before the clock; captures of random
pictures to disk take turns in one run. Each on the cluster starts its actors and makes their sessions, some seconds:
throughput is told both with that and from the first shard's arrival on. Ratios are medians over the rounds; each result
is compared with the local one, byte for byte. With fewer idle cores than workers the ratio tells of the machine: its
load is printed beside.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from onnx_inspect.capture.local import write  # noqa: E402
from onnx_inspect.capture.setup import Job, job, source  # noqa: E402
from onnx_inspect.capture.spread import blocks  # noqa: E402
from onnx_inspect.engine import Engine  # noqa: E402
from onnx_inspect.graph.read import read  # noqa: E402
from onnx_inspect.inputs.dataset import find  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "fixtures" / "shapes_resnet.onnx")
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    import ray

    ray.init(num_cpus=options.workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    with tempfile.TemporaryDirectory() as folder:
        planned = plan(options.model, options.samples, Path(folder), 8 * options.workers)
        spread = functools.partial(blocks, workers=options.workers)
        print(f"{options.model.name}, {options.samples:,} samples, {planned.plan.shards} shards")
        whole, steady = [], []
        for number in range(options.rounds):
            local = timed(planned, Path(folder) / f"local{number}", None)
            cluster = timed(planned, Path(folder) / f"ray{number}", spread)
            same(Path(folder) / f"local{number}", Path(folder) / f"ray{number}")
            whole.append(local[0] / cluster[0])
            steady.append(cluster[1] / local[1])
            load = os.getloadavg()[0]
            print(
                f"local {local[1]:,.0f}/s, ray {cluster[1]:,.0f}/s once running; {local[0]:.1f} and {cluster[0]:.1f} s"
                f" in all; load {load:.1f}"
            )
        print(
            f"{options.workers} workers against this process: {statistics.median(steady):.2f} times the throughput once"
            f" running, {statistics.median(whole):.2f} times with their start (medians of {options.rounds})"
        )
    ray.shutdown()


def plan(path: Path, samples: int, folder: Path, least: int) -> Job:
    """A capture of random pictures of the size that the model takes."""
    net = read(path)
    name, shape = net.inputs[0].name, net.inputs[0].shape or ()
    height, width = (int(d) if isinstance(d, int) else 224 for d in shape[2:4])
    pictures = np.random.default_rng(0).integers(0, 256, (samples, height, width, 3), np.uint8)
    np.savez(folder / "pictures.npz", images=pictures)
    words = [str(folder / "pictures.npz")]
    found = source(net, find(words, {spec.name: spec for spec in net.inputs}, name), primary=name)
    layers = [net.layer("Relu:-1")]
    return job(found, layers, pool_by="mean", least=least, make_engine=functools.partial(Engine, threads=1))


def timed(planned: Job, folder: Path, run: Any) -> tuple[float, float]:
    """Seconds of one capture to disk, and samples a second from the first shard's arrival to the last's."""
    seen: list[tuple[float, int]] = []
    start = time.perf_counter()
    write(planned, folder, report=lambda done, total: seen.append((time.perf_counter(), done)), run=run)
    return time.perf_counter() - start, (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0])


def same(one: Path, two: Path) -> None:
    """Compare two captures byte for byte."""
    for path in one.rglob("*"):
        if path.is_file() and path.read_bytes() != (two / path.relative_to(one)).read_bytes():
            raise SystemExit(f"{path} and the cluster's differ")


if __name__ == "__main__":
    main()
