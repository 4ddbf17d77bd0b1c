"""Reading ahead in a thread, and work in several threads, in order."""

import threading
import time

import pytest

from utils.ahead import ReadAhead, in_order


def test_items_come_in_order_and_none_is_lost():
    ahead = ReadAhead(iter([3, None, 1, ValueError("an item")]), 2)
    found = list(ahead)
    assert found[:3] == [3, None, 1]
    assert str(found[3]) == "an item"
    assert ahead.waited >= 0


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        yield 2
        raise ZeroDivisionError

    found = []
    with pytest.raises(ZeroDivisionError):
        found.extend(ReadAhead(items(), 5))
    assert found == [1, 2]


def test_a_loop_that_ends_early_ends_the_thread():
    """So that no batches are made after early stopping."""
    taken, closed = [], threading.Event()

    def items():
        try:
            for item in range(100_000):
                taken.append(item)
                yield item
        finally:
            closed.set()

    for item in ReadAhead(items(), 3):
        if item == 5:
            break
    assert closed.wait(10)
    assert len(taken) <= 6 + 3 + 2


@pytest.mark.parametrize("waiting", [1, 4])
def test_work_is_in_order_and_bounded(waiting):
    taken, started = [], []

    def items():
        for item in range(30):
            taken.append(item)
            yield item

    def work(item):
        time.sleep(0.002 * (item % 3))
        return item**2

    found = []
    for result in in_order(work, items(), 3, waiting, start=lambda: started.append(threading.get_ident())):
        found.append(result)
        assert len(taken) <= len(found) + 3 + waiting
    assert found == [item**2 for item in range(30)]
    assert 1 <= len(set(started)) <= 3


def test_what_has_not_begun_is_left_out_after_an_error():
    done = []

    def work(item):
        time.sleep(0.01)
        done.append(item)
        return 1 // item

    with pytest.raises(ZeroDivisionError):
        list(in_order(work, iter([1, 0, *range(1, 50)]), 2, 20))
    assert len(done) < 10
