"""Talking to workers: handing an attempt over, resolving what stayed unclear, cancelling.

A POST to a worker ends in one of three ways (service/http/client.py): answered, surely not delivered, or ambiguous: it
may have been delivered and the answer lost. An ambiguous one is never sent again blindly. The worker is asked what it
knows of the run (GET /experiment/{run}); if it holds the attempt, that was the answer; if it does not know it, the
same attempt is offered again, which a worker that did get it after all answers with 202 and no second start. While it
can neither be reached nor asked, nothing is decided: the lease runs out by itself, and whatever the worker may then be
doing is fenced off.

Each worker has two threads, which live while there is something to do: one sends attempts, one cancels them. A worker
that hangs therefore holds up only itself, and not even its own cancellations.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from service.http.client import Ambiguous, Client, Refused, Unreachable
from service.http.exchange import Trace
from service.jobs.states import Blame

READ_S = 5.0            # an answer to a dispatch takes milliseconds; a worker that takes longer is asked again
ASK_PAUSE_S = 0.5       # between questions to a worker that does not answer
THREAD_IDLE_S = 30.0      # a thread without work for so long ends
NOT_NOW = (503, 507, 429, 408)


class OfferAnswer(Enum):
    """The result of an offer."""

    HELD = "held"                   # the worker has the attempt
    BUSY = "busy"                   # it takes nothing now; the attempt never began
    UNREACHABLE = "unreachable"     # surely not delivered
    REFUSED = "refused"             # it will not take this run
    UNCLEAR = "unclear"             # given up asking; the lease decides


@dataclass(frozen=True)
class OfferOutcome:
    """`retry_after_s`: what a busy worker asked for; `blame`: whose fault it is that it was refused, or unclear."""

    answer: OfferAnswer
    detail: str = ""
    retry_after_s: float = 0.0
    blame: Blame = Blame.NOBODY


def offer(client: Client, payload: dict[str, Any], *, trace: Trace | None, still_wanted: Callable[[], bool],
          pause: Callable[[float], object], ask_first: bool = False) -> OfferOutcome:
    """Hand `payload` (POST /experiment of the worker) over; `ask_first` when an earlier life may have sent it.

    `still_wanted` says whether the attempt's lease is in force, `pause` sleeps (and may wake early)."""
    run, attempt = payload["run"], payload["attempt"]
    unsure = ask_first
    while True:
        try:
            if unsure and _holds(client, run, attempt, trace):
                return OfferOutcome(OfferAnswer.HELD)
            client.post("/experiment", payload, trace=trace, read_s=READ_S)
            return OfferOutcome(OfferAnswer.HELD)
        except Refused as refused:
            return _judge(refused)
        except Unreachable as error:
            if not unsure:
                return OfferOutcome(OfferAnswer.UNREACHABLE, str(error))
            trouble = str(error)
        except Ambiguous as error:
            unsure, trouble = True, str(error)
        if still_wanted():
            pause(ASK_PAUSE_S)
        if not still_wanted():
            return OfferOutcome(OfferAnswer.UNCLEAR, trouble, blame=Blame.WORKER)


def cancel(client: Client, run: str, attempt: int, trace: Trace | None) -> None:
    """Tell the worker to stop the attempt. Raises ClientError if it may not have heard; one that does not know the
    attempt any more has nothing to stop."""
    try:
        client.post(f"/experiment/{run}/cancel", {"attempt": attempt}, idempotent=True, trace=trace, read_s=READ_S)
    except Refused as refused:
        if refused.status not in (404, 409):
            raise


def _holds(client: Client, run: str, attempt: int, trace: Trace | None) -> bool:
    """Whether the worker knows this attempt. Raises Unreachable, Ambiguous, Refused."""
    try:
        known = client.get(f"/experiment/{run}", trace=trace, read_s=READ_S).document
    except Refused as refused:
        if refused.status == 404:
            return False
        if refused.status in NOT_NOW:
            raise Ambiguous(f"the worker could not say: {refused}") from refused
        raise
    return isinstance(known, dict) and known.get("attempt") == attempt


def _judge(refused: Refused) -> OfferOutcome:
    """What a 4xx or 5xx to an offer means."""
    detail = str(refused.problem.get("detail") or refused)
    if refused.status in NOT_NOW or refused.status in (401, 403):
        # A key that does not fit is no fault of the run either; the worker is left alone for longer and longer.
        return OfferOutcome(OfferAnswer.BUSY if refused.status in NOT_NOW else OfferAnswer.UNREACHABLE, detail,
                       refused.retry_after_s or 0.0)
    if refused.status == 409:
        return OfferOutcome(OfferAnswer.UNCLEAR, detail)  # it has ended there, or a later attempt has begun
    wrong_request = refused.status == 422 and refused.slug != "unknown-codec"
    return OfferOutcome(OfferAnswer.REFUSED, detail, blame=Blame.RUN if wrong_request else Blame.WORKER)


class SerialTasks:
    """Threads by name, each doing one thing after another."""

    def __init__(self, report: Callable[[str, BaseException], None]) -> None:
        """`report(name, error)` is called with what a task raised."""
        self._report = report
        self._lock = threading.Condition()
        self._queues: dict[str, deque[Callable[[], object]]] = {}
        self._busy: set[str] = set()
        self._closing = False

    def do(self, name: str, task: Callable[[], object]) -> None:
        """Do `task` in the thread of that name, after those before it."""
        with self._lock:
            if name in self._queues:
                self._queues[name].append(task)
                self._lock.notify_all()
                return
            self._queues[name] = deque([task])
        threading.Thread(target=self._live, args=(name,), name=f"worker-{name}", daemon=True).start()

    def close(self, timeout_s: float) -> bool:
        """Wait until nothing is left to do; whether that was so in time."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
            return self._lock.wait_for(lambda: not self._queues, timeout_s)

    def _stirs(self, queue: deque[Callable[[], object]]) -> bool:
        return bool(queue) or self._closing

    def _live(self, name: str) -> None:
        while True:
            with self._lock:
                queue = self._queues[name]
                if not queue:
                    self._lock.wait_for(partial(self._stirs, queue), THREAD_IDLE_S)
                if not queue:
                    del self._queues[name]
                    self._lock.notify_all()
                    return
                task = queue.popleft()
            try:
                task()
            except Exception as error:  # one task that fails must not end the thread
                self._report(name, error)
