"""Work beside other work keeps its order, tells its errors, and ends when nobody wants it any more."""

from __future__ import annotations

import threading

import pytest

from onnx_inspect.capture.ahead import Behind, ahead


@pytest.mark.parametrize("count", [1, 3])
def test_results_come_in_order_from_other_threads(count: int) -> None:
    threads = set()

    def work(n: int) -> int:
        threads.add(threading.get_ident())
        return 2 * n

    assert list(ahead(work, range(50), threads=count)) == list(range(0, 100, 2))
    assert threading.get_ident() not in threads and len(threads) <= count


def test_an_error_comes_in_its_place() -> None:
    def work(n: int) -> int:
        if n == 2:
            raise ValueError("third")
        return n

    results = ahead(work, range(9))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="third"):
        next(results)


@pytest.mark.parametrize("count", [1, 3])
def test_leaving_early_ends_the_threads_and_little_was_made(count: int) -> None:
    before = threading.active_count()
    made = []
    results = ahead(made.append, range(1000), threads=count)
    next(results)
    results.close()
    assert threading.active_count() == before
    assert len(made) <= count + 2


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
