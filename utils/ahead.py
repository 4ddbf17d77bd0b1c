"""Work ahead of a loop in threads: one that reads, or several that compute. Results keep their order."""

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")


class ReadAhead(Generic[Item]):
    """Reads `items` in a thread, up to `depth` of them ahead. Iterate over it only once.

    waited: seconds that the loop spent waiting for items. The loop raises the errors of `items`; when it ends early,
    so does the thread.
    """

    def __init__(self, items: Iterable[Item], depth: int) -> None:
        self._queue: queue.Queue = queue.Queue(depth)
        self._stopped = threading.Event()
        self.waited = 0.0
        threading.Thread(target=self._fill, args=(items,), daemon=True).start()

    def _fill(self, items: Iterable[Item]) -> None:
        last = None
        try:
            for item in items:
                if not self._put((item,)):
                    return
        except Exception as error:  # raised in the loop's thread
            last = error
        self._put(last)

    def _put(self, item: object) -> bool:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=0.5)
                return True
        return False

    def __iter__(self) -> Iterator[Item]:
        try:
            while True:
                started = time.perf_counter()
                item = self._queue.get()
                self.waited += time.perf_counter() - started
                if item is None:
                    return
                if isinstance(item, Exception):
                    raise item
                yield item[0]
        finally:
            self._stopped.set()


def in_order(function: Callable[[Item], Result], items: Iterable[Item], threads: int, waiting: int = 1,
             start: Callable[[], object] | None = None) -> Iterator[Result]:
    """Yield function(item) for each item, in order.

    At most `threads` items are computed at a time, and at most `threads` + `waiting` are taken from `items` in advance.
    start: each thread calls it first. When the loop ends early or an item fails, items not yet begun are skipped.
    """
    with ThreadPoolExecutor(threads, initializer=start) as pool:
        ahead: deque = deque()
        try:
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) >= threads + waiting:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
