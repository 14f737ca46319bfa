"""Progress of attempts, stored for clients that watch: the start of each, and a few progress events a second.

These writes are not waited for; what is lost, the next heartbeat reports again.
"""

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from service.runtime.logs import Log
from service.scheduling.change_notifier import ChangeNotifier
from service.scheduling.leases import Lease
from service.scheduling.run_metrics import RunMetrics
from service.storage.records import Stale
from service.storage.store import Store

KEPT_S = 0.2        # between two progress events of a run that are kept for replay


class Progress:
    """See above; `clock` is monotonic."""

    def __init__(self, store: Store, notifier: ChangeNotifier, metrics: RunMetrics, log: Log,
                 clock: Callable[[], float]) -> None:
        self._store, self._notifier, self._run_metrics = store, notifier, metrics
        self._log, self._clock = log, clock

    def begun(self, lease: Lease) -> None:
        """The worker is now known to hold the attempt."""
        took_s = self._clock() - lease.granted + lease.waited
        self._run_metrics.started.observe(took_s)
        self._log.emf({"StartLatency": (1000 * took_s, "Milliseconds")})
        self._store.start(lease.run.id, lease.attempt).add_done_callback(partial(self._written, lease, "start"))

    def record(self, lease: Lease) -> None:
        """Wake those who wait; keep some of it for replay. Called with the lock of leases held."""
        now = self._clock()
        if all(value is None for value in lease.progress.values()):
            return      # a heartbeat of a run that has said nothing yet
        if now - lease.stored >= KEPT_S and lease.progress != lease.recorded and lease.run.attempt == lease.attempt:
            lease.stored, lease.recorded = now, lease.progress
            data = {"run": lease.run.id, "attempt": lease.attempt, **with_eta(lease, now)}
            future = self._store.progress(lease.run.id, lease.attempt, data)
            future.add_done_callback(partial(self._written, lease, "progress"))

    def _written(self, lease: Lease, what: str, done: "Future[Any]") -> None:
        """In the store's thread: it is on disk, or is not."""
        error = done.exception()
        if error is None:
            self._notifier.notify(lease.run.experiment_id)
        elif not isinstance(error, Stale):
            self._log.error("not-stored", what=what, run=lease.run.id, error=error)
            if what == "start":
                lease.started = False   # the next heartbeat says it again


def with_eta(lease: Lease, now_s: float) -> dict[str, Any]:
    """The lease's progress, with the seconds left if it goes on at the rate so far."""
    fraction, eta_s = lease.progress.get("fraction"), None
    if isinstance(fraction, int | float) and 0.02 < fraction <= 1 and lease.began > 0:
        eta_s = round((now_s - lease.began) * (1 - fraction) / fraction, 1)
    return {**lease.progress, "eta_s": eta_s}
