"""How work of one kind is done beside work of another: a thread that reads ahead, and one that writes behind."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
DEPTH = 2  # results that wait at one time


def ahead(work: Iterable[T], depth: int = DEPTH) -> Generator[T]:
    """Give what an iterable gives, made by a thread of its own, `depth` items before they are asked for.

    An error in it is raised here, in its place. Closing this generator ends the thread.
    """
    waiting: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
    closed = threading.Event()

    def put(item: tuple[bool, Any]) -> None:
        while not closed.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return
            except queue.Full:
                continue  # look whether anybody still wants it

    def make() -> None:
        try:
            for item in work:
                put((True, item))
                if closed.is_set():
                    return
        except BaseException as error:  # whatever it is, the one who asked must know
            put((False, error))
        else:
            put((False, None))

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            good, item = waiting.get()
            if good:
                yield item
            elif item is None:
                return
            else:
                raise item
    finally:
        closed.set()
        thread.join()


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
