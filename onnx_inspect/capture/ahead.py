"""How work of one kind is done beside work of another: a thread that reads ahead, and one that writes behind."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")


def ahead(work: Callable[[S], T], items: Iterable[S], *, threads: int = 1) -> Generator[T]:
    """Give ``work(item)`` for each item in its order, made by threads of their own before they are asked for.

    At most `threads` and two more results wait or are being made at one time. An error is raised here, in its place.
    Closing this generator waits for what is being made, and makes nothing more.

    Parameters
    ----------
    threads : int
        With one, items are also worked on in their order.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")
    waiting: deque[Future[T]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class Behind:
    """Calls a function in a thread of its own, in order; at most `depth` calls wait. A context manager."""

    def __init__(self, function: Callable[..., None], depth: int = 1) -> None:
        self._function = function
        self._waiting: queue.Queue[tuple[Any, ...] | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def __enter__(self) -> Behind:
        return self

    def __exit__(self, *raised: object) -> None:
        """Finish what waits; raise what went wrong there, unless something else did already."""
        self._waiting.put(None)
        self._thread.join()
        if self._error is not None and raised[0] is None:
            raise self._error

    def __call__(self, *arguments: Any) -> None:
        """Hand over a call, and raise what an earlier one raised."""
        if self._error is not None:
            raise self._error
        self._waiting.put(arguments)

    def _work(self) -> None:
        while (arguments := self._waiting.get()) is not None:
            if self._error is None:
                try:
                    self._function(*arguments)
                except BaseException as error:  # raised where the next call is handed over
                    self._error = error
