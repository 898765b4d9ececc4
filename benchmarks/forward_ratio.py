"""What each method costs, in forward passes of the same model: alternated in one run, medians of ratios, 2 threads.

    python benchmarks/forward_ratio.py [--model net.onnx] [--rounds 9]

Without --model a ResNet-18 topology with random weights is exported first (needs torch).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from onnx_inspect import methods as explain  # noqa: E402
from onnx_inspect.cam._probe import Probe  # noqa: E402
from onnx_inspect.engine import Engine  # noqa: E402
from onnx_inspect.graph.model import Model  # noqa: E402
from onnx_inspect.graph.read import read  # noqa: E402
from onnx_inspect.inputs.batch import Batch  # noqa: E402

METHODS = ("cam", "eigen-cam", "recipro-cam", "ablation-cam")
THREADS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        net = read(options.model or exported(Path(folder)))
        measure(net, options.rounds)


def exported(folder: Path) -> Path:
    import torch

    from benchmarks.networks import resnet18

    path = folder / "resnet18.onnx"
    batch = {"x": {0: torch.export.Dim("batch")}}
    torch.onnx.export(
        resnet18(), (torch.randn(2, 3, 224, 224),), path, dynamo=True, dynamic_shapes=batch, external_data=False
    )
    return path


def measure(net: Model, rounds: int) -> None:
    shape = [d if isinstance(d, int) else 1 for d in net.inputs[0].shape or ()]
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    name = net.inputs[0].name
    batch = Batch({name: x}, name, ("random",), (None,), (None,), None, None, ())
    plain = make(net)
    plain.run({name: x})
    view = explain.scene(net, batch, make_engine=make)
    print(f"{net.source}: layer {view.layer.name} {view.captured[view.layer.output.name].shape[1:]}, {THREADS} threads")
    ratios: dict[str, list[float]] = {f"{m}{tail}": [] for m in METHODS for tail in ("", " (tail runs only)")}
    seconds: list[float] = []
    for _ in range(rounds + 1):
        forward = timed(lambda: plain.run({name: x}))
        seconds.append(forward)
        for method in METHODS:
            for label, forget_linear in ((method, False), (f"{method} (tail runs only)", True)):
                ratios[label].append(timed(lambda m=method, f=forget_linear: once(view, m, f)) / forward)
    print(f"forward pass: {statistics.median(seconds[1:]) * 1e3:.1f} ms")
    for label, values in ratios.items():
        if "only" not in label or label.startswith("ablation"):
            print(f"  {label:<34} {statistics.median(values[1:]):6.2f} forward passes (sessions made beforehand)")


def once(view: explain.Scene, method: str, forget_linear: bool) -> None:
    """One explanation from the input on: head, tail, method; only the sessions and the layer's choice are reused."""
    fresh = view.of(replace(view.batch), settled=None)
    kept = Probe.linear_weights
    try:
        if forget_linear:
            Probe.linear_weights = lambda self: None  # type: ignore[method-assign]
        explain.attribute(fresh, method)
    finally:
        Probe.linear_weights = kept  # type: ignore[method-assign]


def make(model: Model) -> Engine:
    return Engine(model, threads=THREADS)


def timed(action: object) -> float:
    time.sleep(0.05)  # until the threads of the session before have stopped spinning
    action()  # type: ignore[operator]  # whoever runs first after another session reads its weights from memory
    start = time.perf_counter()
    action()  # type: ignore[operator]
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
