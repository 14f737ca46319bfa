"""Workers, and which of them takes the next run: found in a time that grows with the logarithm of their number."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from service.scheduling.leases import Key

Kind = tuple[tuple[str, ...], str]              # codecs, device: what a worker says that it has
Entry = tuple[float, float, int, int, str]      # less of a share free, last grant, order of arrival, serial, name


@dataclass
class Worker:
    """A worker as its heartbeats describe it. `busy`: attempts that take a slot there; `ended`: attempts that have
    ended although a heartbeat on its way may still name them; `not_before`: no dispatch until then, because of
    `trouble`."""

    name: str
    url: str
    slots: int
    about: dict[str, Any]
    boot_id: str = ""
    heard: float = float("-inf")
    present: bool = False       # false: only remembered from before a restart
    draining: bool = False      # says so itself
    drained: bool = False       # someone told the orchestrator so
    dispatch_key: str = ""      # what it wants to be shown; "" of one of an earlier version
    attempt_secrets: bool = False   # it shows the secrets of its attempts
    busy: set[Key] = field(default_factory=set)
    ended: set[Key] = field(default_factory=set)
    not_before: float = float("-inf")
    trouble: str = ""
    failures: int = 0
    last_grant: float = float("-inf")
    order: int = 0      # of arrival

    @property
    def free(self) -> int:
        return max(0, self.slots - len(self.busy))

    def can(self, codec: str, device: str) -> bool:
        """Whether it has what such a run needs; a worker that does not list its codecs is taken to have any."""
        own = str(self.about.get("device") or device)
        return codec in (self.offers or (codec,)) and device in ("auto", own.partition(":")[0])

    @property
    def offers(self) -> tuple[str, ...]:
        """What it has of what runs need (`Run.needs`)."""
        segmented = [f"{codec} in segments" for codec in self.about.get("segmented") or ()]
        return (*(self.about.get("codecs") or ()), *segmented)

    @property
    def kind(self) -> Kind:
        return self.offers, str(self.about.get("device") or "")

    @property
    def takes_runs(self) -> bool:
        """Whether it takes any run, now or when a slot is free."""
        return self.present and self.slots > 0 and not self.draining and not self.drained


class FreeWorkers:
    """Workers with a free slot, for each kind of worker in a heap: the largest share of free slots first, and of equals
    the one that was given nothing for longest. A worker has one valid entry at most, known by its serial number."""

    def __init__(self, workers: dict[str, Worker], alive: Callable[[Worker], bool]) -> None:
        self._workers, self._alive = workers, alive
        self._heaps: dict[Kind, list[Entry]] = {}
        self._valid: dict[str, tuple[Kind, Entry]] = {}
        self._later: list[tuple[float, str]] = []       # those that are left alone, until when
        self._serial = 0

    def update(self, worker: Worker, now: float) -> None:
        """To be called after every change of a worker."""
        if not worker.takes_runs or not worker.free:
            self._valid.pop(worker.name, None)
            return
        if worker.not_before > now:
            self._valid.pop(worker.name, None)
            heapq.heappush(self._later, (worker.not_before, worker.name))
            return
        kind, rank = worker.kind, (-worker.free / worker.slots, worker.last_grant, worker.order)
        known = self._valid.get(worker.name)
        if known is not None and known[0] == kind and known[1][:3] == rank:
            return
        self._serial += 1
        entry = (*rank, self._serial, worker.name)
        self._valid[worker.name] = kind, entry
        heap = self._heaps.setdefault(kind, [])
        heapq.heappush(heap, entry)
        if len(heap) > 64 + 4 * len(self._valid):       # entries that are not valid any more
            heap[:] = [each for each in heap if self._is_valid(kind, each)]
            heapq.heapify(heap)

    def wake(self, now: float) -> None:
        """Workers that were left alone until now are asked again."""
        while self._later and self._later[0][0] <= now:
            _, name = heapq.heappop(self._later)
            if name in self._workers:
                self.update(self._workers[name], now)

    def next_wake(self) -> float | None:
        """When the next worker is asked again."""
        while self._later:
            time, name = self._later[0]
            if name in self._workers and self._workers[name].not_before == time:
                return time
            heapq.heappop(self._later)
        return None

    def best(self, codec: str, device: str, avoid: frozenset[str]) -> Worker | None:
        """The worker for such a run; those to avoid never."""
        heads = [entry for kind in list(self._heaps) if (entry := self._head(kind, codec, device, avoid)) is not None]
        return self._workers[min(heads)[-1]] if heads else None

    def _head(self, kind: Kind, codec: str, device: str, avoid: frozenset[str]) -> Entry | None:
        heap, passed = self._heaps[kind], []
        found = None
        while heap and found is None:
            entry = heap[0]
            if not self._is_valid(kind, entry):
                heapq.heappop(heap)
                continue
            worker = self._workers[entry[-1]]
            if not worker.can(codec, device):
                break       # nor can the others of its kind
            if not self._alive(worker):
                heapq.heappop(heap)
                del self._valid[worker.name]        # until it is heard of again
            elif worker.name in avoid:
                passed.append(heapq.heappop(heap))
            else:
                found = entry
        for entry in passed:
            heapq.heappush(heap, entry)
        if not heap:
            del self._heaps[kind]
        return found

    def _is_valid(self, kind: Kind, entry: Entry) -> bool:
        return self._valid.get(entry[-1]) == (kind, entry) and entry[-1] in self._workers
