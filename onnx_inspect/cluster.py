"""How work on numbered portions is spread over several processes or machines: by Ray Data, never by our own hand."""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from onnx_inspect.errors import InspectError, MissingExtra, RunError

T = TypeVar("T")
PATIENCE = 10.0  # seconds for a connection
BLOCKS = 1000  # that Ray keeps account of at most; portions share one where there are more


def spread(
    portions: Sequence[int], make: Callable[[], Callable[[int], T]], *, workers: int | None = None, cpus: int = 1
) -> Iterator[tuple[int, T]]:
    """Do numbered portions of work on a Ray cluster; each comes back once, in any order.

    The cluster is the one that ``RAY_ADDRESS`` names, or else processes on this machine. Ray Data hands out portions
    (``map_batches`` with an actor class), restarts an actor that has died, wherever it was, and repeats what it hadn't
    handed in. A portion that was worked on twice is still delivered once: nothing is written by the actors, results
    travel to the caller, who is handed each number one time and is told of numbers that are missing.

    Parameters
    ----------
    portions : sequence of int
    make : callable
        Called once in each actor, to make what holds the session; both must be picklable, as must the results.
    workers : int, optional
        Actors; by default as many as the cluster has processors for.
    cpus : int
        Processors that each of them takes.

    Raises
    ------
    MissingExtra
        Ray isn't installed.
    RunError
        The cluster can't be reached or gave up, or portions are missing.
    InspectError
        What a portion's own work raised.
    """
    if not portions:
        return
    with _connected(cpus * workers if workers else None) as ray:
        actors = min(workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // cpus), len(portions))
        numbers = ray.data.from_items(
            [{"portion": int(n)} for n in portions], override_num_blocks=min(len(portions), BLOCKS)
        )
        done = numbers.map_batches(
            _Actor,
            fn_constructor_args=(make,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=cpus,
        )
        waiting = set(portions)
        try:
            for batch in done.iter_batches(batch_size=1, prefetch_batches=1):
                number, result = int(batch["portion"][0]), pickle.loads(batch["result"][0])
                if isinstance(result, InspectError):
                    raise result
                if number in waiting:
                    waiting.remove(number)
                    yield number, result
        except ray.exceptions.RayError as error:
            raise RunError(f"the Ray cluster gave up: {_last_line(error)}") from error
        if waiting:
            raise RunError(f"the Ray cluster lost {len(waiting)} of {len(portions)} portions: run the command again")


class _Actor:
    """What Ray keeps alive on a machine: the session, made once."""

    def __init__(self, make: Callable[[], Callable[[int], Any]]) -> None:
        self._work = make()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        results = np.empty(len(batch["portion"]), object)
        for row, number in enumerate(batch["portion"].tolist()):
            try:
                results[row] = pickle.dumps(self._work(number), protocol=5)
            except InspectError as error:  # the caller's to tell; Ray would wrap it in its own words
                results[row] = pickle.dumps(error)
        return {"portion": batch["portion"], "result": results}


@contextmanager
def _connected(cpus: int | None) -> Iterator[Any]:
    """Ray's module, connected to the cluster that ``RAY_ADDRESS`` names, or to processes started for the time."""
    # Ray's core warns that an actor can't be restarted once its maker's arguments are lost: they are the caller's, who
    # outlives it. Said before Ray is imported, or it isn't heard.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
        import ray.exceptions
    except ImportError as error:
        raise MissingExtra("--engine ray needs Ray: pip install 'onnx-inspect[ray]'") from error
    own = not ray.is_initialized()
    if own:
        _connect(ray, cpus)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        if own:
            ray.shutdown()


def _connect(ray: Any, cpus: int | None) -> None:
    address = os.environ.get("RAY_ADDRESS")
    local: dict[str, Any] = {} if address else {"num_cpus": cpus, "include_dashboard": False}
    _reach(address or "")
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, ray.exceptions.RayError, RuntimeError, ValueError) as error:
        raise RunError(f"no Ray cluster at {address or 'this machine'}: {_last_line(error)}") from error


def _reach(address: str) -> None:
    """See within seconds whether anybody answers at host:port; Ray itself waits for minutes.

    Raises
    ------
    RunError
        Nobody does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # a word of Ray's own, like auto or local
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except OSError as error:
        raise RunError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({error.strerror or error}): start one with"
            " ray start --head, or unset RAY_ADDRESS to use this machine"
        ) from error


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
