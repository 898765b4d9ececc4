"""On a local Ray with two workers, one of them killed half way, a capture is what the local engine makes of it."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_inspect.capture.local import into_memory, write
from onnx_inspect.capture.setup import Job, job, source
from onnx_inspect.cluster import spread
from onnx_inspect.engine import Engine
from onnx_inspect.errors import InputError, RunError
from onnx_inspect.graph.read import read
from onnx_inspect.inputs.dataset import find

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'onnx-inspect[ray]'")
pytest.importorskip("ray.data", reason="Ray Data is not installed: pip install 'onnx-inspect[ray]'")
pytestmark = [
    pytest.mark.slow,  # a cluster takes ten seconds to start
    pytest.mark.filterwarnings("ignore"),  # Ray's own, of files and processes that it leaves to the system
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="workers are found by /proc, which this system lacks"),
]
FIXTURES = Path(__file__).parents[2] / "fixtures"
SHARDS = 24


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two processors of this machine as a cluster."""
    os.environ.pop("RAY_ADDRESS", None)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A capture of 24 shards of random pictures."""
    folder = tmp_path_factory.mktemp("data")
    pictures = np.random.default_rng(0).integers(0, 256, (SHARDS * 8, 64, 64, 3), np.uint8)
    np.savez(folder / "made.npz", images=pictures, labels=np.arange(len(pictures)) % 6)
    net = read(FIXTURES / "shapes_resnet.onnx")
    found = source(net, find([str(folder / "made.npz")], {s.name: s for s in net.inputs}, "input"), primary="input")
    layers = [net.layer("Relu:3"), net.layer("Relu:-1")]
    return job(found, layers, pool_by="none", shard=8, make_engine=functools.partial(Engine, threads=1))


def runner(seen: list[int], upon: Callable[[int], None] = lambda count: None) -> Any:
    """Two workers; tells which shards came, and calls `upon` with how many have come."""
    from onnx_inspect.capture.spread import blocks

    def run(worker: Any, shards: Any, *, report: Any = None) -> Iterator[Any]:
        for shard, block in blocks(worker, shards, report=report, workers=2):
            seen.append(shard)
            upon(len(seen))
            yield shard, block

    return run


def workers() -> list[int]:
    """Processes of ours that run an actor."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue  # it has just ended
        if words.startswith(b"ray::") and b"_Actor" in words and os.getpid() in ancestors(int(folder.name)):
            found.append(int(folder.name))
    return found


def ancestors(process: int) -> list[int]:
    """Processes that a process was started by, nearest first."""
    found = []
    while process > 1:
        try:
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
        found.append(process)
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_killed_worker_loses_nothing_and_doubles_nothing(cluster: None, planned: Job, tmp_path: Path) -> None:
    killed: list[int] = []
    seen: list[int] = []

    def kill(count: int) -> None:
        if count == 6 and not killed:
            alive = workers()
            assert len(alive) == 2
            killed.append(alive[0])
            os.kill(alive[0], signal.SIGKILL)

    done: list[tuple[int, int]] = []
    spread_out = write(planned, tmp_path / "ray", report=lambda *counts: done.append(counts), run=runner(seen, kill))
    local = write(planned, tmp_path / "local")
    assert killed and killed[0] not in workers()
    assert sorted(seen) == list(range(SHARDS))
    assert done[-1] == (SHARDS * 8, SHARDS * 8) and sorted(done) == done
    assert files(tmp_path / "ray") == files(tmp_path / "local")
    assert len(spread_out.captured) == len(local.captured) == SHARDS * 8


def test_into_memory_gives_the_same_in_the_same_order(cluster: None, planned: Job) -> None:
    one, two = into_memory(planned), into_memory(planned, run=runner([]))
    assert one.sources == two.sources
    for layer in one.layers:
        np.testing.assert_array_equal(one.array(layer), two.array(layer))
    np.testing.assert_array_equal(one.predictions, two.predictions)


def test_what_a_portion_raises_is_told_as_it_is(cluster: None) -> None:
    def make() -> Callable[[int], int]:
        def work(number: int) -> int:
            if number == 3:
                raise InputError("portion 3 is broken")
            return number

        return work

    with pytest.raises(InputError, match=r"^portion 3 is broken$"):
        list(spread(range(6), make, workers=2))
    assert list(spread([], make)) == []


def test_a_cluster_that_does_not_answer_is_named_at_once() -> None:
    from onnx_inspect.cluster import _reach

    with pytest.raises(RunError, match=r"no Ray cluster answers at RAY_ADDRESS=127\.0\.0\.1:1"):
        _reach("127.0.0.1:1")
    _reach("auto")


def test_maps_of_many_inputs_are_the_local_engines(cluster: None) -> None:
    from onnx_inspect.inputs.read import read as read_inputs
    from onnx_inspect.methods import explain_all
    from onnx_inspect.remote import explain_spread

    net = read(FIXTURES / "digits_convnet.onnx")
    batch = read_inputs(net.inputs, [str(FIXTURES / "inputs" / "digit_*.png")], metadata=net.metadata)
    explain = functools.partial(explain_all, methods=("recipro-cam", "rise"), params=(("masks", "50"),))
    make = functools.partial(Engine, threads=1)
    local, _ = explain(net, batch, make_engine=make)
    plain: dict[str, Any] = {"layers": (), "targets": (), "output": None, "make_engine": make, "workers": 2}
    spread_out, _ = explain_spread(explain, net, batch, **plain)
    assert batch.n == 4
    for (view, one), (chosen, two) in zip(local, spread_out, strict=True):
        assert (view.layer, view.why) == (chosen.layer, chosen.why)
        assert (one.method, one.layer, one.targets, one.sources) == (two.method, two.layer, two.targets, two.sources)
        np.testing.assert_allclose(one.values, two.values, atol=1e-6)  # inputs run singly: other sums in float32
        np.testing.assert_allclose(one.scores, two.scores, atol=1e-6)
