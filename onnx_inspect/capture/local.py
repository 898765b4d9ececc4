"""How a whole data set is captured on one machine: reading ahead, running, writing behind; to disk or into memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from onnx_inspect.capture.ahead import Behind, ahead
from onnx_inspect.capture.reading import Captured, open
from onnx_inspect.capture.setup import Job
from onnx_inspect.capture.store import Store, prepare
from onnx_inspect.capture.work import Block, Worker, joined
from onnx_inspect.errors import InputError, RunError

THREADS = 4  # that read files at most; half of the processors are left to the model
Report = Callable[[int, int], None]


class Blocks(Protocol):
    """What makes shards of a data set, each once, in any order: :func:`blocks`, or a cluster."""

    def __call__(
        self, worker: Worker, shards: Iterable[int], *, report: Report | None = None
    ) -> Iterator[tuple[int, Block]]:
        """Shards and what they hold."""


@dataclass(frozen=True)
class Written:
    """What a capture to disk did: where it lies, and how many shards were there already."""

    captured: Captured
    folder: Path
    resumed: int


def write(job: Job, folder: str | Path, *, report: Report | None = None, run: Blocks | None = None) -> Written:
    """Capture a data set to disk, going on where an earlier run was interrupted.

    Whatever ends it (also SIGKILL) loses the shard that was being made and nothing else; what a resumed capture gives
    is what an uninterrupted one gives, bit for bit.

    Parameters
    ----------
    report : callable, optional
        Called with (samples done, samples in all).
    run : callable, optional
        What makes shards in place of :func:`blocks`.

    Raises
    ------
    OutputError
        The folder can't be written, or holds something else.
    InputError
        The data set can't be read.
    """
    folder = Path(folder).expanduser()
    store, missing = prepare(folder, job.plan, job.about())
    resumed = job.plan.shards - len(missing)
    with Behind(store.write) as writing:
        for shard, block in (run or blocks)(job.worker, missing, report=report):
            writing(shard, block)
    return Written(finish(job, store), folder, resumed)


def finish(job: Job, store: Store) -> Captured:
    """Make sure that every sample of the data set is there once, say so in the manifest, and open the capture.

    Raises
    ------
    InputError
        No sample could be read.
    RunError
        Samples are missing or doubled: somebody else has written to the folder.
    """
    found = open(store.folder)
    there = np.unique(found.places).size + len(found.skipped)
    if there != job.plan.samples or len(found) + len(found.skipped) != there:
        raise RunError(
            f"{store.folder} holds {len(found):,} samples and {len(found.skipped):,} broken ones of"
            f" {job.plan.samples:,}: its files were changed while they were written; remove the folder and start again"
        )
    store.tidy()
    counts = {"rows": len(found), "skipped": len(found.skipped)}
    store.write_manifest({"complete": True, **counts, "plan": job.plan.to_json(), **job.about()})
    return found


def into_memory(job: Job, *, report: Report | None = None, run: Blocks | None = None) -> Captured:
    """Capture a data set without writing anything; `report` and `run` as for :func:`write`.

    Raises
    ------
    InputError
        The data set can't be read, or none of its samples can.
    """
    made = dict((run or blocks)(job.worker, range(job.plan.shards), report=report))
    found = joined([made[shard] for shard in range(job.plan.shards)], job.plan.layers)
    if not found.sources:
        raise InputError(f"no sample of the data set could be read: {found.skipped[0].reason}")
    return Captured(
        arrays=found.arrays,
        sources=found.sources,
        labels=found.labels,
        predictions=found.predictions,
        confidences=found.confidences,
        places=np.array(found.places, np.int64),
        skipped=found.skipped,
        **job.naming(),
    )


def blocks(worker: Worker, shards: Iterable[int], *, report: Report | None = None) -> Iterator[tuple[int, Block]]:
    """Shards of a data set one after another, read by a thread of their own while the model runs."""
    chosen, plan = list(shards), worker.plan
    total = plan.samples
    done = total - sum(len(plan.places(shard)) for shard in chosen)

    portions = [(shard, places) for shard in chosen for places in plan.portions(shard)]
    threads = min(THREADS, max(1, (os.cpu_count() or 1) // 2)) if worker.reader.dataset.entries.concurrent else 1
    parts: list[Block] = []
    with closing(ahead(worker.read, [places for _, places in portions], threads=threads)) as readings:
        for (shard, places), reading in zip(portions, readings, strict=True):
            parts.append(worker.compute(reading))
            done += len(places)
            if report is not None:
                report(done, total)
            if places.stop == plan.places(shard).stop:
                yield shard, joined(parts, plan.layers)
                parts = []
