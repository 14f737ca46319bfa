"""The attempts of a worker: accepted, given a slot, ended, and remembered for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from service.http.parsing import Problem
from service.runs.assignment import Dispatch
from service.runs.attempts import Attempt, AttemptContext, LocalResults
from service.runs.outbox import Entry
from service.runs.outcome import Outcome
from service.runs.slots import Slot
from service.runtime.logs import Log

REMEMBERED = 1000  # ended attempts that GET /experiment/{run} still knows, when others keep their results
RETRY_AFTER = {"Retry-After": "1"}  # when a slot becomes free is not known


class AssignedRuns:
    """The newest attempt of each run. Safe from any thread. Set ``draining`` and nothing more is taken in."""

    def __init__(self, slots: Iterable[Slot], context: AttemptContext, local_results: LocalResults,
                 about: Callable[[], dict[str, Any]], log: Log) -> None:
        """``about``: what codec processes have said of themselves; {} until one has."""
        self.draining = False
        self._slots, self._context, self._local_results = slots, context, local_results
        self._about, self._log = about, log
        self._lock = threading.RLock()
        self._attempts: dict[str, Attempt] = {}
        self.idle = threading.Condition(self._lock)  # notified when an attempt has ended

    def remember(self, entries: Iterable[Entry]) -> None:
        """Ends of an earlier life: whoever asks for them, or sends them again, finds them ended."""
        for entry in entries:
            dispatch = Dispatch(*entry.key, {}, {}, entry.message["callback"])
            self._attempts[dispatch.run] = Attempt(dispatch, self._context, entry.message["state"],
                                                   error=entry.message["error"], ended_at=time.time())

    def newest(self, run: str) -> Attempt | None:
        with self._lock:
            return self._attempts.get(run)

    def alive(self) -> None:
        """For the watchdog: raises RuntimeError when someone keeps the lock."""
        if not self._lock.acquire(timeout=5.0):
            raise RuntimeError("the worker's lock has been held for 5 s")
        self._lock.release()

    def unfinished(self) -> list[Attempt]:
        with self._lock:
            return [attempt for attempt in self._attempts.values() if attempt.ended_at is None]

    def accept(self, dispatch: Dispatch) -> Attempt:
        """Start the attempt, or find that it was started already. Raises Problem: 503 full, 409 stale, 422."""
        with self._lock:
            known = self._attempts.get(dispatch.run)
            if known and known.dispatch.attempt == dispatch.attempt:
                return known
            if known and known.dispatch.attempt > dispatch.attempt:
                detail = f"attempt: {known.dispatch.attempt} of run {dispatch.run} is here, {dispatch.attempt} is stale"
                raise Problem(409, "stale-attempt", detail, field="attempt")
            if not dispatch.callback and self._local_results.folder(dispatch.run):
                raise Problem(409, "already-ended", f"run: {dispatch.run} has ended here", field="run")
            if self.draining:
                raise Problem(503, "draining", "this worker takes no more work", headers=RETRY_AFTER)
            names = self._about().get("known")
            if names and dispatch.experiment["codec"] not in names:
                detail = f"codec: {dispatch.experiment['codec']} is not known here, known are {', '.join(names)}"
                raise Problem(422, "unknown-codec", detail, field="codec")
            if known and known.ended_at is None:
                self.end(known, Outcome("cancelled"))  # the orchestrator has given it up
            attempt = Attempt(dispatch, self._context)
            taker = self._give(attempt)
            self._attempts[dispatch.run] = attempt
            self._forget_old()
        self._log.info("run-accepted", run=dispatch.run, attempt=dispatch.attempt, slot=taker.index,
                      trace_id=dispatch.trace_id)
        return attempt

    def fence(self, run: str, number: int) -> None:
        """The orchestrator has given this attempt up: stop computing for nobody."""
        attempt = self.newest(run)
        if attempt and attempt.dispatch.attempt == number and attempt.ended_at is None:
            self._log.info("attempt-fenced", run=run, attempt=number)
            self.end(attempt, Outcome("cancelled"))

    def end(self, attempt: Attempt, outcome: Outcome) -> None:
        attempt.stop(outcome)
        for slot in self._slots:
            if slot.end(attempt, outcome):
                return

    def _give(self, attempt: Attempt) -> Slot:
        """Record the attempt and find it a slot, one that is ready rather than one that starts. Raises Problem 503."""
        free = sorted((slot for slot in self._slots if slot.free), key=lambda slot: slot.state != "ready")
        if free:
            try:
                attempt.record()
            except OSError as error:
                detail = f"the worker cannot store the run: {error}"
                raise Problem(503, "disk-full", detail, headers=RETRY_AFTER) from error
        for slot in free:
            if slot.offer(attempt):
                return slot
        attempt.unrecord()
        broken = next((slot.reason for slot in self._slots if slot.state == "failed"), "")
        raise Problem(503, "no-free-slot", broken or "every slot of this worker is busy", headers=RETRY_AFTER)

    def _forget_old(self) -> None:
        ended = [run for run, attempt in self._attempts.items() if attempt.ended_at is not None]
        for run in ended[: max(0, len(ended) - REMEMBERED)]:
            del self._attempts[run]
