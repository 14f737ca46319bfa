"""The scheduler: takes experiments from submission to their end, without the HTTP around it.

Threads
=======
Handlers (in the server's threads) write to the store first and then update memory (`Placement`, under one lock); the
store blocks until the change is on the disk, so it is never called with the lock held. One thread, *placing*, sleeps
until a submission, a registration, a freed slot or a result wakes it, or until the next back-off or lease is due. It
chooses runs and workers; sending is left to a thread for each worker (delivery.py). So no timer delays an experiment,
and a worker that hangs holds up only itself.

Store and memory
================
The store decides. A move that it refuses (`Stale`) means that something else came first, and memory follows it. Any
case that was forgotten is found by `audit`, which compares the two every few seconds and adds every unfinished run that
memory lacks.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from service.http.client import Client
from service.jobs.fields import runs_of
from service.jobs.states import Blame, State, backoff_s, blame_for_error
from service.runtime.logs import Log
from service.runtime.prometheus import Metrics
from service.scheduling.attempt_checks import AttemptChecks
from service.scheduling.attempt_secrets import AttemptSecrets
from service.scheduling.change_notifier import ChangeNotifier
from service.scheduling.delivery import Delivery
from service.scheduling.dispatch import OfferAnswer
from service.scheduling.leases import Lease
from service.scheduling.overview import View
from service.scheduling.placement import Placement
from service.scheduling.progress import Progress
from service.scheduling.run_metrics import RunMetrics
from service.storage.records import Run, Stale, StoreError
from service.storage.registry import Registry
from service.storage.store import Store

LOOK_S = 1.0            # the placing thread looks at leases at least this often, to notice that it was stopped
AUDIT_S = 15.0          # between two comparisons of memory with the store
PAGE = 5000             # queued runs that are read at a time after a start
RETRY_S = 0.5           # after the store could not be written


class NameTaken(Exception):
    """Another living worker has this name."""


class Scheduler:
    """See above. `make_client` gives the client for a worker's URL and key; `callback` is the orchestrator's own URL
    as the workers reach it; `clock` is monotonic."""

    def __init__(self, store: Store, *, lease_s: float, heartbeat_s: float, callback: Callable[[], str],
                 make_client: Callable[[str, str], Client], log: Log, metrics: Metrics, secrets: AttemptSecrets,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self.notifier = ChangeNotifier()
        self.registry = Registry(store)
        self._lease_s, self._heartbeat_s = lease_s, heartbeat_s
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._placement = Placement(lease_s, clock)
        self.checks = AttemptChecks(self._placement, self._lock, store, secrets)
        self.view = View(self._placement, self._lock, clock)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._draining = False
        self._lost: set[str] = set()
        self._stored_workers: dict[str, dict[str, Any]] = {}
        self._thread = threading.Thread(target=self._place_forever, name="placing", daemon=True)
        self._audited = clock()
        self._suspects: set[str] = set()
        self._taken_up: int | None = 0      # number of the last queued run of the last stop; None: there are no more
        self._run_metrics = RunMetrics(metrics, store, self.view.worker_states)
        self._progress = Progress(store, self.notifier, self._run_metrics, log, clock)
        self._delivery = Delivery(
            self._placement, self._lock, make_client=make_client, callback=callback, secrets=secrets,
            lease_s=lease_s, segment_files=store.segment_files, log=log, counters=self._run_metrics,
            stopping=self._stopping, clock=clock)

    def start(self) -> None:
        """Continue what was unfinished at the last stop, then place."""
        for name, about in self.registry.workers().items():
            self._placement.remember(name, about["url"], about)
        for run in self.store.at_workers():     # before their workers call
            self._take_up(run)
        self._take_up_queued()
        self._thread.start()

    def drain(self) -> None:
        """Grant nothing any more; results are still taken."""
        self._draining = True

    def stop(self, timeout_s: float) -> bool:
        """End the threads; whether every call to a worker had ended in time."""
        until = time.monotonic() + timeout_s
        self._draining = True
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return self._delivery.tasks.close(max(until - time.monotonic(), 0.0))

    def alive(self) -> None:
        """For the watchdog: raises RuntimeError when placing has died or is stuck."""
        if not self._thread.is_alive():
            raise RuntimeError("the placing thread has ended")
        if not self._lock.acquire(timeout=5.0):
            raise RuntimeError("the lock has been held for 5 s")
        self._lock.release()

    # --- from clients ----------------------------------------------------------------------------------------------

    def submit(self, document: dict[str, Any], clips: list[dict[str, Any]], *, principal: str, key: str | None,
               body_sha256: str, trace: str, origin: Mapping[str, str] | None = None,
               segments: Sequence[int] = ()) -> tuple[str, bool]:
        """Accept an experiment: its id, and whether it is new. `segments`: into how many each run is cut, if any is.
        Raises KeyReused, StoreError."""
        settings = runs_of(document)
        if segments:
            settings = [{**each, "segments": n if n > 1 else None} for each, n in zip(settings, segments, strict=True)]
        experiment_id, runs = self.store.submit(document, settings, clips=clips, principal=principal,
                                                key=key, body_sha256=body_sha256, trace=trace, origin=origin)
        with self._lock:
            for run in runs:
                if not run.waits:
                    self._placement.enqueue(run)
        self._wake.set()
        if runs:
            self._run_metrics.accepted.inc(len(runs))
            self._log.info("experiment-accepted", experiment=experiment_id, runs=len(runs), traceparent=trace)
        return experiment_id, bool(runs)

    def cancel(self, experiment_id: str, reason: str) -> None:
        """Raises UnknownExperiment, Finished, StoreError."""
        self._stop_all(self.store.cancel(experiment_id, reason), State.CANCELLED)
        self._log.info("experiment-cancelled", experiment=experiment_id, reason=reason)
        self.notifier.notify(experiment_id)

    # --- from workers ----------------------------------------------------------------------------------------------

    def heartbeat(self, name: str, url: str, slots: int, about: dict[str, Any],
                  running: dict[tuple[str, int], dict[str, Any]], *, boot_id: str, draining: bool,
                  dispatch_key: str = "", attempt_secrets: bool = False) -> dict[str, Any]:
        """The answer to a worker that registers or says that it lives. Raises NameTaken."""
        with self._lock:
            known = self._placement.workers.get(name)
            if known is not None and known.present and known.url != url and \
                    self._clock() - known.heard < 2 * self._heartbeat_s:
                raise NameTaken(f"worker {name} lives at {known.url}")
            new = known is None or not known.present or known.boot_id != boot_id
            renewed, unknown = self._placement.heartbeat(name, url, slots, about, running, boot_id=boot_id,
                                                         draining=draining)
            begun = [lease for lease in renewed if not lease.started]
            for lease in begun:
                self._placement.start(lease)
            for lease in renewed:
                self._progress.record(lease)
            worker = self._placement.workers[name]
            worker.dispatch_key, worker.attempt_secrets = dispatch_key, attempt_secrets
            drained = worker.drained
        for lease in begun:
            self._progress.begun(lease)
        if new:
            self._log.info("worker-registered", worker=name, url=url, slots=slots)
        self._store_worker(name, {"url": url, "boot_id": boot_id, "drained": drained, "dispatch_key": dispatch_key,
                                  "attempt_secrets": attempt_secrets, **about})
        self._wake.set()
        for run_id, attempt in unknown:
            self._log.info("attempt-unknown", worker=name, run=run_id, attempt=attempt)
        return {"lease_s": self._lease_s, "heartbeat_s": self._heartbeat_s,
                "unknown": [{"run": run_id, "attempt": attempt} for run_id, attempt in unknown]}

    def progress(self, run_id: str, attempt: int, data: dict[str, Any]) -> None:
        """Raises Stale, UnknownExperiment."""
        with self._lock:
            lease = self._placement.current(run_id, attempt)
            if lease is not None:
                begun = not lease.started
                if begun:
                    self._placement.start(lease)
                lease.progress = data
                self._progress.record(lease)
        if lease is None:
            run = self.store.run(run_id)
            raise Stale(f"attempt {attempt} of {run_id} is over; the run is {run.state}, attempt {run.attempt}")
        if begun:
            self._progress.begun(lease)

    def finished(self, run_id: str, attempt: int, state: State, result: Mapping[str, Any] | None,
                 error: Mapping[str, Any] | None, artifacts: Mapping[str, Mapping[str, Any]]) -> Run:
        """A worker reports how an attempt ended. Raises Stale (remembered), UnknownExperiment, StoreError."""
        try:
            if state is State.COMPLETED:
                run = self.store.complete(run_id, attempt, result or {}, artifacts)
            elif state is State.CANCELLED:
                run, _, others = self.store.cancel_run(run_id, attempt, "cancelled at the worker")
                self._stop_all(others, run.state)
            else:
                reason = {"type": str((error or {}).get("type") or "error"),
                          "detail": str((error or {}).get("detail") or "the worker gave no reason")}
                return self._end(run_id, attempt, reason["type"], reason, blame_for_error(error or {}))
        except Stale as stale:
            self._run_metrics.refused.inc()
            self._log.warning("result-refused", run=run_id, attempt=attempt, state=state, reason=str(stale))
            self.store.refuse(run_id, attempt, f"result: {state}", str(stale))
            self._free(run_id, attempt)
            raise
        with self._lock:
            lease = self._placement.current(run_id, attempt)
            if lease is not None:
                self._placement.withdraw(run_id)
                self._run_metrics.ended.inc(state=run.state)
                self._log.info("run-ended", run=run_id, attempt=attempt, state=run.state, traceparent=run.trace)
        if run.whole is not None and run.state is State.COMPLETED:
            self._look_at_whole(run)
        self._free(run_id, attempt)
        self.notifier.notify(run.experiment_id)
        return run

    def drain_worker(self, name: str, drained: bool) -> bool:
        """Give the worker nothing new, or something again; false if it is not known."""
        with self._lock:
            worker = self._placement.drain(name, drained)
            if worker is not None:
                about = {"url": worker.url, "boot_id": worker.boot_id, "dispatch_key": worker.dispatch_key,
                         "attempt_secrets": worker.attempt_secrets, **worker.about, "drained": drained}
        if worker is None:
            return False
        self._store_worker(name, about)
        self._wake.set()
        return True

    # --- placing ---------------------------------------------------------------------------------------------------

    def _place_forever(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                due_s = None if self._draining else self._placement.next_due_s()
            if self._taken_up is None:
                self._wake.wait(LOOK_S if due_s is None else min(due_s, LOOK_S))
            self._wake.clear()
            try:
                if self._taken_up is not None:
                    self._take_up_queued()
                self._look()
            except StoreError as error:
                self._log.error("placing-failed", error=error)
                self._stopping.wait(RETRY_S)

    def _look(self) -> None:
        """End attempts whose lease or deadline has passed, and grant new ones."""
        with self._lock:
            self._placement.looking(LOOK_S)
            over = [(lease, "lost", f"worker {lease.worker} was not heard of for {self._lease_s:g} s", Blame.WORKER)
                    for lease in self._placement.expired()]
            over += [(lease, "timeout", f"the run took longer than its {lease.run.settings['timeout_s']:g} s",
                      Blame.RUN) for lease in self._placement.overdue()]
            for lease, *_ in over:
                self._placement.withdraw(lease.run.id)
            granted = [] if self._draining else self._placement.choose()
            lost = {worker.name for worker in self._placement.workers.values() if not self._placement.alive(worker)}
            forgotten = self._placement.forget_lost()
        for lease, outcome, detail, blame in over:
            self._delivery.tasks.do("leases", partial(self._take_back, lease, outcome, detail, blame))
        for lease in granted:
            self._delivery.tasks.do(lease.worker, partial(self._hand_over, lease))
        for name in sorted(lost - self._lost):
            self._log.warning("worker-lost", worker=name)
        self._lost = lost
        for name in forgotten:
            self.registry.forget_worker(name)
        if self._taken_up is None and self._clock() - self._audited > AUDIT_S:
            self._audited = self._clock()
            self._audit()

    def _hand_over(self, lease: Lease) -> None:
        """In the worker's thread: store the grant, then send it."""
        with self._lock:
            if not self._placement.renew(lease):
                return
        try:
            placed = self.store.place(lease.run.id, lease.run.attempt, lease.worker)
        except Stale:       # cancelled since it was chosen
            self._drop(lease)
            return
        except StoreError as error:
            self._log.error("grant-not-stored", run=lease.run.id, error=error)
            self._drop(lease)
            with self._lock:
                self._placement.enqueue(lease.run, delay_s=RETRY_S)
            return
        with self._lock:
            lease.run = placed
            renewed = self._placement.renew(lease)
        self.notifier.notify(placed.experiment_id)
        self._run_metrics.waited.observe(lease.waited)
        if not renewed:       # taken back between the two: the attempt is closed before anything was sent
            self._end_quietly(placed, "busy", "the grant was taken back before it was sent", Blame.NOBODY)
            return
        self._offer(lease, ask_first=False)

    def _offer(self, lease: Lease, *, ask_first: bool) -> None:
        """In the worker's thread: send the attempt and act on the answer."""
        outcome = self._delivery.offer(lease, ask_first=ask_first)
        if outcome is None or outcome.answer is OfferAnswer.UNCLEAR:
            return      # the lease decides
        if outcome.answer is OfferAnswer.HELD:
            self._held(lease)
        else:
            self._end_quietly(lease.run, outcome.answer.value, f"worker {lease.worker}: {outcome.detail}",
                              outcome.blame)

    def _held(self, lease: Lease) -> None:
        with self._lock:
            self._placement.well(lease.worker)
            current = self._placement.leases.get(lease.run.id) is lease
            begun = current and not lease.started
            if begun:
                self._placement.start(lease)
        if begun:
            self._progress.begun(lease)
        elif not current and not self._has_ended(lease):
            self._delivery.cancel(lease.worker, lease.run)

    def _has_ended(self, lease: Lease) -> bool:
        """Whether the worker itself ended the attempt already (its result overtook the 202)."""
        with self._lock:
            worker = self._placement.workers.get(lease.worker)
            return worker is None or lease.key not in worker.busy

    def _take_back(self, lease: Lease, outcome: str, detail: str, blame: Blame) -> None:
        """In the thread for leases: the attempt is over, whatever its worker reports later."""
        if lease.run.attempt != lease.attempt:  # granted, never written down: nothing to close
            with self._lock:
                self._placement.let_go(lease.key)
                self._placement.enqueue(lease.run)
            self._wake.set()
            return
        self._log.warning("lease-ended", run=lease.run.id, attempt=lease.attempt, worker=lease.worker, why=outcome)
        self._run_metrics.lease_ends.inc(why=outcome)
        self._end_quietly(lease.run, outcome, detail, blame)
        self._delivery.cancel(lease.worker, lease.run)

    def _end_quietly(self, run: Run, outcome: str, detail: str, blame: Blame) -> None:
        """End an attempt that may have ended otherwise meanwhile; tries until the store takes it."""
        while not self._stopping.is_set():
            try:
                self._end(run.id, run.attempt, outcome, {"type": outcome, "detail": detail}, blame)
                return
            except Stale:
                self._free(run.id, run.attempt)
                return
            except StoreError as error:
                self._log.error("end-not-stored", run=run.id, attempt=run.attempt, error=error)
                self._stopping.wait(RETRY_S)

    def _end(self, run_id: str, attempt: int, outcome: str, error: Mapping[str, Any], blame: Blame) -> Run:
        """Close the attempt without a result, and queue the run again if it may. Raises Stale, StoreError."""
        run, ended_now, others = self.store.end_attempt(run_id, attempt, outcome, error, blame)
        self._stop_all(others, run.state)
        self._log.info("attempt-ended", run=run_id, attempt=attempt, outcome=outcome, detail=error["detail"],
                       state=run.state, traceparent=run.trace)
        again = run.state is State.QUEUED and run.attempt == attempt
        avoid = frozenset(self.store.avoided(run_id)) if again else frozenset()
        delay_s = backoff_s(run.tries) if blame is Blame.WORKER else 0.0
        with self._lock:
            if self._placement.current(run_id, attempt) is not None:
                self._placement.withdraw(run_id)
            if again:
                self._placement.enqueue(run, avoid, delay_s)
        if ended_now and run.state is State.FAILED:
            self._run_metrics.ended.inc(state=State.FAILED)
        self._free(run_id, attempt)
        self.notifier.notify(run.experiment_id)
        return run

    def _drop(self, lease: Lease) -> None:
        with self._lock:
            if self._placement.leases.get(lease.run.id) is lease:
                self._placement.withdraw(lease.run.id)
            self._placement.let_go(lease.key)
        self._wake.set()

    def _take_up(self, run: Run) -> None:
        """An unfinished run that memory does not know."""
        if run.waits:
            return      # the last of its segments brings it
        if run.state is State.QUEUED:
            avoid = frozenset(self.store.avoided(run.id)) if run.attempt else frozenset()
            with self._lock:
                self._placement.enqueue(run, avoid)
            return
        with self._lock:
            lease = self._placement.restore(run, started=run.state is State.RUNNING)
        if run.state is State.DISPATCHED:
            self._delivery.tasks.do(lease.worker, partial(self._offer, lease, ask_first=True))

    def _take_up_queued(self) -> None:
        """The next of the runs that were queued at the last stop, oldest first. A few thousand at a time, so that
        placing begins before all of a long queue has been read."""
        runs = self.store.queued(self._taken_up or 0, PAGE)
        for run in runs:
            with self._lock:
                known = self._placement.knows(run.id)
            if not known:
                self._take_up(run)
        self._taken_up = runs[-1].number if len(runs) == PAGE else None
        if self._taken_up is None:
            self._log.info("queue-read")

    def _audit(self) -> None:
        """Take up every unfinished run that memory has not known for two audits."""
        stored = self.store.unfinished_attempts()
        with self._lock:
            unknown = {run_id for run_id in stored if not self._placement.knows(run_id)}
        for run_id in unknown & self._suspects:
            self._log.error("run-taken-up", run=run_id, state=stored[run_id][0])
            self._take_up(self.store.run(run_id))
        self._suspects = unknown

    def _look_at_whole(self, segment: Run) -> None:
        """A segment has completed: if it was the last one, its whole joins the queue."""
        whole = self.store.whole_of(segment)
        with self._lock:
            if whole.state is State.QUEUED and not whole.waits and not self._placement.knows(whole.id):
                self._placement.enqueue(whole)

    def _stop_all(self, runs: Iterable[Run], state: State) -> None:
        """Runs that have ended in the store in that state, segments as cancelled, wherever they are; given as they were
        before."""
        for run in runs:
            with self._lock:
                self._placement.withdraw(run.id)
            if run.worker:
                self._delivery.cancel(run.worker, run)
            self._run_metrics.ended.inc(state=state if run.whole is None else State.CANCELLED)

    # --- small parts -----------------------------------------------------------------------------------------------

    def _free(self, run_id: str, attempt: int) -> None:
        with self._lock:
            self._placement.let_go((run_id, attempt))
        self._wake.set()

    def _store_worker(self, name: str, about: dict[str, Any]) -> None:
        """Remember how a worker is reached. A disk that will not take it must not cost the worker its leases."""
        if self._stored_workers.get(name) != about:
            try:
                self.registry.put_worker(name, about)
                self._stored_workers[name] = about
            except StoreError as error:
                self._log.error("not-stored", what="worker", worker=name, error=error)
