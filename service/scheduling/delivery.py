"""What the orchestrator sends to workers: attempts that were granted, and the order to stop.

dispatch.py says what an answer means; this file says whom to call, with what, and for how long. Each worker has a
thread for offers and one for cancellations, so a worker that hangs holds up only itself, and not even its own
cancellations.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from service.http.client import Client, ClientError
from service.http.exchange import new_trace
from service.jobs.fields import for_worker
from service.jobs.states import Blame
from service.runtime.logs import Log
from service.scheduling.attempt_secrets import AttemptSecrets
from service.scheduling.dispatch import OfferAnswer, OfferOutcome, SerialTasks, cancel, offer
from service.scheduling.free_workers import Worker
from service.scheduling.leases import Lease
from service.scheduling.placement import Placement
from service.scheduling.run_metrics import RunMetrics
from service.storage.records import Run

RETRY_S = 0.5           # between two tries to tell a worker to stop
CANCEL_TRIES_S = 20.0   # a worker that cannot be reached by then learns it from the answer to its next heartbeat


SegmentFiles = Callable[[Run], list[tuple[str, dict[str, dict[str, Any]]]]]     # Store.segment_files


class Delivery:
    """See above. `lock` guards `placement`; `make_client` gives the client for a worker's URL and key; `callback` is
    the orchestrator's own URL as the workers reach it; `clock` is monotonic; `stopping` ends every wait."""

    def __init__(self, placement: Placement, lock: threading.Lock, *, make_client: Callable[[str, str], Client],
                 callback: Callable[[], str], secrets: AttemptSecrets, lease_s: float, segment_files: SegmentFiles,
                 counters: RunMetrics, log: Log,
                 clock: Callable[[], float], stopping: threading.Event) -> None:
        self._placement, self._lock = placement, lock
        self._make_client, self._callback, self._lease_s = make_client, callback, lease_s
        self._secrets, self._segment_files = secrets, segment_files
        self._run_metrics, self._log, self._clock, self._stopping = counters, log, clock, stopping
        self._clients: dict[tuple[str, str], Client] = {}
        self.tasks = SerialTasks(lambda name, error: log.error("worker-thread-failed", thread=name, error=error))

    def offer(self, lease: Lease, *, ask_first: bool) -> OfferOutcome | None:
        """In the worker's thread: send the attempt. The answer, or None where the worker is no longer known (the
        lease will run out). `ask_first` when an earlier life may have sent it."""
        run, name = lease.run, lease.worker
        with self._lock:
            worker = self._placement.workers.get(name)
        if worker is None:
            return None
        trace = new_trace(run.trace)
        began = self._clock()
        outcome = offer(self._client(worker), self._payload(run, worker.attempt_secrets), trace=trace,
                        ask_first=ask_first, still_wanted=lambda: self._is_current(lease), pause=self._stopping.wait)
        self._run_metrics.dispatches.inc(answer=outcome.answer.value)
        self._log.info("run-offered", run=run.id, attempt=run.attempt, worker=name, answer=outcome.answer.value,
                       detail=outcome.detail, trace_id=trace.trace_id)
        if outcome.answer is OfferAnswer.HELD:
            self._run_metrics.offered.observe(self._clock() - began)
        else:
            self._remember(name, outcome)
        return outcome

    def cancel(self, name: str, run: Run) -> None:
        """Tell the worker to stop the run's attempt, soon."""
        self.tasks.do(f"{name} cancels", partial(self._cancel, name, run))

    def _remember(self, name: str, outcome: OfferOutcome) -> None:
        """Leave a worker alone that did not take what it was offered."""
        with self._lock:
            if outcome.answer is OfferAnswer.BUSY:
                self._placement.busy(name, outcome.detail, outcome.retry_after_s)
            elif outcome.answer is not OfferAnswer.UNCLEAR:
                self._placement.trouble(name, outcome.detail, outcome.retry_after_s)
            elif outcome.blame is Blame.WORKER:
                self._placement.trouble(name, f"it does not answer: {outcome.detail}")

    def _cancel(self, name: str, run: Run) -> None:
        """In the worker's second thread. The answer to a heartbeat says the same; whichever comes first."""
        until = self._clock() + CANCEL_TRIES_S
        while not self._stopping.is_set() and self._clock() < until:
            with self._lock:
                worker = self._placement.workers.get(name)
                if worker is None or not self._placement.alive(worker):
                    return
            try:
                cancel(self._client(worker), run.id, run.attempt, new_trace(run.trace))
                return
            except ClientError as error:
                self._log.warning("cancel-not-delivered", worker=name, run=run.id, reason=str(error))
                self._stopping.wait(RETRY_S)

    def _payload(self, run: Run, with_secret: bool) -> dict[str, Any]:
        """The body of a dispatch; a worker of an earlier version refuses fields that it does not know."""
        secret = {"secret": self._secrets.of(run.id, run.attempt)} if with_secret else {}
        base = self._callback().rstrip("/")
        clip = {**run.clip, "url": base + run.clip["url"]} if run.clip.get("url") else run.clip
        cut: dict[str, Any] = {}
        if run.whole is not None:
            cut["segment"] = run.settings["segment"]
        elif run.in_segments:
            cut["segments"] = [{name: {**about, "url": f"{base}/experiment/{segment}/artifacts/{name}"}
                                for name, about in files.items()} for segment, files in self._segment_files(run)]
        return {"run": run.id, "attempt": run.attempt, "experiment": for_worker(run.settings), "clip": clip,
                "callback": base, "lease_s": self._lease_s, "timeout_s": run.settings["timeout_s"], **secret,
                **cut}

    def _is_current(self, lease: Lease) -> bool:
        with self._lock:
            return not self._stopping.is_set() and self._placement.leases.get(lease.run.id) is lease

    def _client(self, worker: Worker) -> Client:
        with self._lock:
            address = worker.url, worker.dispatch_key
            if address not in self._clients:
                for old in [known for known in self._clients if known[0] == worker.url]:
                    self._clients.pop(old).close()  # of an earlier process at this address
                self._clients[address] = self._make_client(*address)
            return self._clients[address]
