"""A worker's right to an attempt, and which of many such rights run out next."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from service.storage.records import Run

Key = tuple[str, int]       # run, attempt


@dataclass
class Lease:
    """A worker's right to an attempt, until `expires` (monotonic seconds)."""

    run: Run
    attempt: int
    worker: str
    expires: float
    deadline: float
    granted: float = 0.0
    waited: float = 0.0     # seconds from joining the queue to the grant
    began: float = 0.0      # when the worker was known to hold it
    started: bool = False
    progress: dict[str, Any] = field(default_factory=dict)
    stored: float = 0.0     # when progress was last written down, and what
    recorded: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.run.id, self.attempt

    @property
    def due(self) -> float:
        """When it runs out, by silence or by its deadline."""
        return min(self.expires, self.deadline)


class Leases:
    """The leases by run. Finding those that have run out takes no time for the others: a heap has for each a time that
    is never later than its own, and is brought up to date when that time comes."""

    def __init__(self) -> None:
        self.by_run: dict[str, Lease] = {}
        self._by_worker: dict[str, dict[str, Lease]] = {}
        self._times: list[tuple[float, str, int]] = []

    def add(self, lease: Lease) -> None:
        """In place of another one of its run."""
        self.remove(lease.run.id)
        self.by_run[lease.run.id] = lease
        self._by_worker.setdefault(lease.worker, {})[lease.run.id] = lease
        self.sooner(lease)

    def remove(self, run_id: str) -> Lease | None:
        """Of this run; what it was, if there was one."""
        lease = self.by_run.pop(run_id, None)
        if lease is not None:
            held = self._by_worker[lease.worker]
            del held[run_id]
            if not held:
                del self._by_worker[lease.worker]
        return lease

    def of_worker(self, name: str) -> list[Lease]:
        return list(self._by_worker.get(name, {}).values())

    def sooner(self, lease: Lease) -> None:
        """To be called when `due` has become earlier."""
        heapq.heappush(self._times, (lease.due, *lease.key))

    def next_due(self) -> float | None:
        """When the first one runs out."""
        while self._times:
            time, run_id, attempt = self._times[0]
            lease = self.by_run.get(run_id)
            if lease is None or lease.attempt != attempt:
                heapq.heappop(self._times)
            elif lease.due > time:
                heapq.heapreplace(self._times, (lease.due, run_id, attempt))
            else:
                return time
        return None

    def over(self, now: float) -> Iterator[Lease]:
        """Those that have run out. They stay until they are removed."""
        found = {}
        while (time := self.next_due()) is not None and time <= now:
            _, run_id, _ = heapq.heappop(self._times)
            found[run_id] = self.by_run[run_id]
        for lease in found.values():
            self.sooner(lease)
        yield from found.values()
