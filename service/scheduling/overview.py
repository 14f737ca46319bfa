"""The present state for people: workers, progress of runs, and why other runs wait."""

import threading
from collections.abc import Callable
from typing import Any

from service.scheduling.placement import Placement
from service.scheduling.progress import with_eta


class View:
    """See above. `lock` guards `placement`; `clock` is monotonic."""

    def __init__(self, placement: Placement, lock: threading.Lock, clock: Callable[[], float]) -> None:
        self._placement, self._lock, self._clock = placement, lock, clock

    def live_progress(self, run_id: str) -> dict[str, Any] | None:
        """The newest progress of a run that is at work."""
        with self._lock:
            lease = self._placement.leases.get(run_id)
            return with_eta(lease, self._clock()) if lease is not None and lease.started and lease.progress else None

    def why(self, run_id: str) -> tuple[str, str, float | None]:
        """See Placement.why."""
        with self._lock:
            return self._placement.why(run_id)

    def codecs(self) -> set[str] | None:
        """Codecs that any worker known here offers; None while no worker has said."""
        with self._lock:
            offers = [worker.about.get("codecs") or () for worker in self._placement.workers.values()]
        found = {codec for offered in offers for codec in offered}
        return found or None

    def segmented(self, codec: str) -> tuple[bool, int]:
        """Whether any worker known here cuts clips for the codec, and how many slots those that live have."""
        with self._lock:
            able = [worker for worker in self._placement.workers.values() if codec in worker.about.get("segmented", ())]
            return bool(able), sum(worker.slots for worker in able if self._placement.alive(worker))

    def workers(self) -> list[dict[str, Any]]:
        """Every worker, for people."""
        with self._lock:
            now = self._clock()
            placed = self._placement
            return [{
                "name": worker.name, "url": worker.url, "state": placed.state_of(worker), "slots": worker.slots,
                "free": worker.free, **worker.about, "boot_id": worker.boot_id, "trouble": worker.trouble,
                "heard_s_ago": round(now - worker.heard, 3),
                "running": [{"run": lease.run.id, "attempt": lease.attempt, **lease.progress,
                             "lease_s_left": round(lease.expires - now, 3)}
                            for lease in placed.leases_of(worker.name)],
            } for worker in sorted(placed.workers.values(), key=lambda worker: worker.name)]

    def worker_states(self) -> list[str]:
        """Each worker's state, in a word."""
        with self._lock:
            return [self._placement.state_of(worker) for worker in self._placement.workers.values()]
