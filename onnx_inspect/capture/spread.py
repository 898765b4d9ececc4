"""How a data set is captured on a Ray cluster: shards as portions, results the same as the local engine's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from onnx_inspect.capture.local import Report
from onnx_inspect.capture.work import Block, Worker
from onnx_inspect.cluster import spread


def blocks(
    worker: Worker,
    shards: Iterable[int],
    *,
    report: Report | None = None,
    workers: int | None = None,
    cpus: int = 1,
) -> Iterator[tuple[int, Block]]:
    """Shards of a data set as they are done, in any order, in place of :func:`onnx_inspect.capture.local.blocks`.

    An actor makes its session once, from the model's bytes, and reads samples itself: paths must mean the same on every
    machine. What a shard holds depends on its number alone, so that one that was made twice is the same twice; the
    shards of a capture to disk are written by the caller, whole or not at all, under their number.

    Parameters
    ----------
    workers, cpus : int
        See :func:`onnx_inspect.cluster.spread`.
    """
    chosen, plan = list(shards), worker.plan
    done = plan.samples - sum(len(plan.places(shard)) for shard in chosen)
    bare = replace(worker)  # without a session, which can't be sent
    for shard, block in spread(chosen, functools.partial(_made, bare), workers=workers, cpus=cpus):
        done += len(plan.places(shard))
        if report is not None:
            report(done, plan.samples)
        yield shard, block


def _made(worker: Worker) -> Callable[[int], Block]:
    return worker.block
