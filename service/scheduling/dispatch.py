"""Talking to workers: handing an attempt over, resolving what stayed unclear, cancelling.

A POST to a worker ends in one of three ways (service/http/client.py): answered, surely not delivered, or ambiguous: it
may have been delivered and the answer lost. An ambiguous one is never sent again blindly. The worker is asked what it
knows of the run (GET /experiment/{run}); if it holds the attempt, that was the answer; if it does not know it, the
same attempt is offered again, which a worker that did get it after all answers with 202 and no second start. While it
can neither be reached nor asked, nothing is decided: the lease runs out by itself, and whatever the worker may then be
doing is fenced off.

Each worker has two lanes, threads that live while there is something to do: one hands over, one cancels. A worker
that hangs therefore holds up nobody but itself, and not even its own cancels.
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
LANE_IDLE_S = 30.0      # a lane without work for so long gives its thread back
NOT_NOW = (503, 507, 429, 408)


class Answer(Enum):
    """What became of an offer."""

    HELD = "held"                   # the worker has the attempt
    BUSY = "busy"                   # it takes nothing now; the attempt never began
    UNREACHABLE = "unreachable"     # surely not delivered
    REFUSED = "refused"             # it will not take this run
    UNCLEAR = "unclear"             # given up asking; the lease decides


@dataclass(frozen=True)
class Outcome:
    """`retry_after_s`: what a busy worker asked for; `blame`: whose fault it is that it was refused, or unclear."""

    answer: Answer
    detail: str = ""
    retry_after_s: float = 0.0
    blame: Blame = Blame.NOBODY


def offer(client: Client, payload: dict[str, Any], *, trace: Trace | None, still_wanted: Callable[[], bool],
          pause: Callable[[float], object], ask_first: bool = False) -> Outcome:
    """Hand `payload` (POST /experiment of the worker) over; `ask_first` when an earlier life may have sent it.

    `still_wanted` says whether the attempt's lease is in force, `pause` sleeps (and may wake early)."""
    run, attempt = payload["run"], payload["attempt"]
    unsure = ask_first
    while True:
        try:
            if unsure and _holds(client, run, attempt, trace):
                return Outcome(Answer.HELD)
            client.post("/experiment", payload, trace=trace, read_s=READ_S)
            return Outcome(Answer.HELD)
        except Refused as refused:
            return _judge(refused)
        except Unreachable as error:
            if not unsure:
                return Outcome(Answer.UNREACHABLE, str(error))
            trouble = str(error)
        except Ambiguous as error:
            unsure, trouble = True, str(error)
        if still_wanted():
            pause(ASK_PAUSE_S)
        if not still_wanted():
            return Outcome(Answer.UNCLEAR, trouble, blame=Blame.WORKER)


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


def _judge(refused: Refused) -> Outcome:
    """What a 4xx or 5xx to an offer means."""
    detail = str(refused.problem.get("detail") or refused)
    if refused.status in NOT_NOW or refused.status in (401, 403):
        # A key that does not fit is no fault of the run either; the worker is left alone for longer and longer.
        return Outcome(Answer.BUSY if refused.status in NOT_NOW else Answer.UNREACHABLE, detail,
                       refused.retry_after_s or 0.0)
    if refused.status == 409:
        return Outcome(Answer.UNCLEAR, detail)  # it has ended there, or a later attempt has begun: it will be told
    wrong_request = refused.status == 422 and refused.slug != "unknown-codec"
    return Outcome(Answer.REFUSED, detail, blame=Blame.RUN if wrong_request else Blame.WORKER)


class Lanes:
    """Threads by name, each doing one thing after another."""

    def __init__(self, report: Callable[[str, BaseException], None]) -> None:
        """`report(lane, error)` hears of what a task raised."""
        self._report = report
        self._lock = threading.Condition()
        self._queues: dict[str, deque[Callable[[], object]]] = {}
        self._busy: set[str] = set()
        self._closing = False

    def do(self, lane: str, task: Callable[[], object]) -> None:
        """Do `task` after what is already in the lane."""
        with self._lock:
            if lane in self._queues:
                self._queues[lane].append(task)
                self._lock.notify_all()
                return
            self._queues[lane] = deque([task])
        threading.Thread(target=self._live, args=(lane,), name=f"lane-{lane}", daemon=True).start()

    def close(self, timeout_s: float) -> bool:
        """Wait until every lane is empty; whether that was so in time."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
            return self._lock.wait_for(lambda: not self._queues, timeout_s)

    def _stirs(self, queue: deque[Callable[[], object]]) -> bool:
        return bool(queue) or self._closing

    def _live(self, lane: str) -> None:
        while True:
            with self._lock:
                queue = self._queues[lane]
                if not queue:
                    self._lock.wait_for(partial(self._stirs, queue), LANE_IDLE_S)
                if not queue:
                    del self._queues[lane]
                    self._lock.notify_all()
                    return
                task = queue.popleft()
            try:
                task()
            except Exception as error:  # a lane outlives whatever one task runs into
                self._report(lane, error)
