"""Work beside other work keeps its order, tells its errors, and ends when nobody wants it any more."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from onnx_inspect.capture.ahead import Behind, ahead


def test_items_come_in_order_from_another_thread() -> None:
    threads = set()

    def work() -> Iterator[int]:
        for n in range(50):
            threads.add(threading.get_ident())
            yield n

    assert list(ahead(work())) == list(range(50))
    assert threading.get_ident() not in threads


def test_an_error_comes_in_its_place() -> None:
    def work() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("third")

    items = ahead(work())
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="third"):
        next(items)


def test_leaving_early_ends_the_thread() -> None:
    before = threading.active_count()
    made = []

    def work() -> Iterator[int]:
        for n in range(1000):
            made.append(n)
            yield n

    items = ahead(work(), depth=2)
    assert next(items) == 0
    items.close()
    assert threading.active_count() == before
    assert len(made) <= 5


def test_calls_are_made_in_order_before_the_end() -> None:
    done: list[int] = []
    with Behind(done.append) as later:
        for n in range(20):
            later(n)
    assert done == list(range(20))


def test_what_goes_wrong_behind_is_raised_and_nothing_more_is_done() -> None:
    done: list[int] = []

    def work(n: int) -> None:
        if n == 3:
            raise OSError("disk full")
        done.append(n)

    with pytest.raises(OSError, match="disk full"), Behind(work) as later:
        for n in range(20):
            later(n)
    assert done == [0, 1, 2]


def test_an_error_in_front_is_not_hidden_by_one_behind() -> None:
    def work() -> None:
        raise OSError("behind")

    with pytest.raises(ValueError, match="in front"), Behind(work) as later:
        later()
        raise ValueError("in front")
