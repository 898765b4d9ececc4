"""How much memory one tool's Score-CAM takes at its peak; run in a process of its own, which loads no other tool.

    python benchmarks/peak.py ours|grad-cam resnet50 FOLDER THREADS

Prints MiB before the method began (libraries, weights, one forward pass) and at the peak. FOLDER holds NAME.onnx,
NAME.pt and picture.npy. The run is stopped once some hundred channels were scored: no tool's memory grows after that.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
ENOUGH = 256  # passes, two of our blocks and sixteen of a peer's batches


class Enough(Exception):
    """Raised to stop a run whose memory is known."""


def main() -> None:
    sys.path.insert(0, str(ROOT))
    tool, name, folder, threads = sys.argv[1:]
    picture = np.load(Path(folder) / "picture.npy")
    before = (ours if tool == "ours" else grad_cam)(name, Path(folder), picture, int(threads))
    print(f"{before:.0f} {peak():.0f}")


def ours(name: str, folder: Path, picture: np.ndarray, threads: int) -> float:
    from onnx_inspect import methods
    from onnx_inspect.engine import Engine
    from onnx_inspect.graph.read import read
    from onnx_inspect.inputs.batch import Batch

    def stop(done: int, count: int) -> None:
        if done >= ENOUGH and count > ENOUGH:
            raise Enough

    model = read(folder / f"{name}.onnx")
    Engine(model, threads=threads).run({model.inputs[0].name: picture})
    before = peak()
    one = Batch({model.inputs[0].name: picture}, model.inputs[0].name, ("made up",), (None,), (None,), None, None, ())
    view = methods.scene(model, one, make_engine=lambda m: Engine(m, threads=threads, progress=stop))
    with suppress(Enough):
        methods.attribute(view, "score-cam")
    return before


def grad_cam(name: str, folder: Path, picture: np.ndarray, threads: int) -> float:
    import torch

    from benchmarks import networks, peers

    torch.set_num_threads(threads)
    net = networks.UNTRAINED[name]()
    net.load_state_dict(torch.load(folder / f"{name}.pt"))
    x = torch.from_numpy(picture)
    with torch.inference_mode():
        net.eval()(x)
    before = peak()
    calls = 0

    def target(output: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > ENOUGH:
            raise Enough
        return output[0]

    subject = peers.Subject(net, net.layer4[-1], None, x, 0)
    with suppress(Enough):
        peers.grad_cam("ScoreCAM", subject)(x, [target])
    return before


def peak() -> float:
    """Largest resident set so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would also count the parent process, whose memory a child starts with
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
