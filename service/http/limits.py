"""What the server bounds besides connections: handlers at once, waiting clients, transfers, memory of bodies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from service.http.parsing import Problem


class HandlerGate:
    """At most `most` handlers run at once; at most `queue` more requests wait for one to end."""

    def __init__(self, most: int, queue: int) -> None:
        self._free = threading.Semaphore(most)
        self._queue = queue
        self._lock = threading.Lock()
        self.waiting = 0
        self.running = 0

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Run the block as one of the handlers.  Raises Problem 503 where the queue is full."""
        if not self._free.acquire(blocking=False):
            with self._lock:
                if self.waiting >= self._queue:
                    raise Problem(503, "overloaded", "too many requests are waiting; try again soon",
                                  headers={"Retry-After": "1"})
                self.waiting += 1
            self._free.acquire()
            with self._lock:
                self.waiting -= 1
        with self._lock:
            self.running += 1
        try:
            yield
        finally:
            with self._lock:
                self.running -= 1
            self._free.release()


class Budget:
    """A number of units (threads, bytes) that are taken and given back; never waits.

    A quarter is kept for workers, so that no number of clients stops their results; and each owner (a key, or an
    address without one) gets at most half, so that no client stops the others.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._taken: dict[str, int] = {}
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Units taken now."""
        return self._used

    def take(self, count: int = 1, *, owner: str = "", worker: bool = True) -> bool:
        """Take units; False, and nothing taken, where fewer are free for this owner.  Without an owner there is no
        bound but the total."""
        with self._lock:
            of_owner = self._taken.get(owner, 0)
            if self._used + count > (self.total if worker else max(self.total - self.total // 4, 1)):
                return False
            if owner and not worker and of_owner + count > max(self.total // 2, 1):
                return False
            self._used += count
            self._taken[owner] = of_owner + count
            return True

    def give_back(self, count: int = 1, *, owner: str = "") -> None:
        """Return what take() granted."""
        with self._lock:
            self._used -= count
            left = self._taken.pop(owner, 0) - count
            if left:
                self._taken[owner] = left
