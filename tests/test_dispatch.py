"""What an offer to a worker comes to, for every way in which the call may end."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from service.http.client import Ambiguous, Refused, Unreachable
from service.jobs.states import Blame
from service.scheduling.dispatch import OfferAnswer, SerialTasks, cancel, offer

PAYLOAD = {"run": "exp_1_abcdef", "attempt": 2}
REFUSED, LOST = Unreachable("connection refused"), Ambiguous("reset")


def said(status: int, slug: str = "x", detail: str = "because", retry_after_s: float | None = None) -> Refused:
    return Refused(status, {"type": f"/problems/{slug}", "detail": detail}, retry_after_s)


class Scripted:
    """A client whose calls end as listed; remembers what was called."""

    def __init__(self, *ends: Any) -> None:
        self.ends = list(ends)
        self.calls: list[str] = []

    def _end(self, call: str) -> Any:
        self.calls.append(call)
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return SimpleNamespace(document=end)

    def get(self, path: str, **options: Any) -> Any:
        return self._end(f"GET {path}")

    def post(self, path: str, document: Any = None, **options: Any) -> Any:
        return self._end(f"POST {path}")


def make(*ends: Any, wanted: int = 100, ask_first: bool = False) -> tuple[Any, list[str]]:
    client = Scripted(*ends)
    left = iter(range(wanted))
    outcome = offer(client, PAYLOAD, trace=None, pause=lambda seconds: None,  # type: ignore[arg-type]
                    still_wanted=lambda: next(left, None) is not None, ask_first=ask_first)
    return outcome, [call.split()[0] for call in client.calls]


@pytest.mark.parametrize(("end", "answer", "blame"), [
    ({}, OfferAnswer.HELD, Blame.NOBODY),
    (REFUSED, OfferAnswer.UNREACHABLE, Blame.NOBODY),
    (said(503), OfferAnswer.BUSY, Blame.NOBODY),
    (said(507), OfferAnswer.BUSY, Blame.NOBODY),
    (said(401), OfferAnswer.UNREACHABLE, Blame.NOBODY),
    (said(409), OfferAnswer.UNCLEAR, Blame.NOBODY),
    (said(422, "invalid-field"), OfferAnswer.REFUSED, Blame.RUN),
    (said(422, "unknown-codec"), OfferAnswer.REFUSED, Blame.WORKER),
    (said(500), OfferAnswer.REFUSED, Blame.WORKER),
])
def test_one_answer_decides(end: Any, answer: OfferAnswer, blame: Blame) -> None:
    outcome, calls = make(end)
    assert (outcome.answer, outcome.blame, calls) == (answer, blame, ["POST"])


def test_a_busy_worker_says_when_to_ask_again() -> None:
    assert make(said(503, retry_after_s=7.0))[0].retry_after_s == 7.0


def test_a_lost_answer_is_resolved_by_asking() -> None:
    outcome, calls = make(LOST, {"attempt": 2})
    assert (outcome.answer, calls) == (OfferAnswer.HELD, ["POST", "GET"])


@pytest.mark.parametrize("answer", [said(404), {"attempt": 1}])
def test_what_the_worker_does_not_know_is_offered_again(answer: Any) -> None:
    outcome, calls = make(LOST, answer, {})
    assert (outcome.answer, calls) == (OfferAnswer.HELD, ["POST", "GET", "POST"])


def test_nothing_is_sent_again_before_the_worker_has_answered() -> None:
    outcome, calls = make(LOST, LOST, REFUSED, said(503), {"attempt": 2})
    assert (outcome.answer, calls) == (OfferAnswer.HELD, ["POST", "GET", "GET", "GET", "GET"])


def test_asking_ends_with_the_lease() -> None:
    outcome, calls = make(LOST, LOST, LOST, wanted=4)
    assert (outcome.answer, outcome.blame, calls) == (OfferAnswer.UNCLEAR, Blame.WORKER, ["POST", "GET", "GET"])


def test_an_attempt_from_before_a_restart_is_asked_about_first() -> None:
    assert make({"attempt": 2}, ask_first=True)[1] == ["GET"]
    assert make(said(404), {}, ask_first=True)[1] == ["GET", "POST"]


@pytest.mark.parametrize("end", [{}, said(404), said(409)])
def test_a_cancel_is_done_when_the_worker_has_nothing_to_stop(end: Any) -> None:
    cancel(Scripted(end), "exp_1_abcdef", 2, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("end", [REFUSED, LOST, said(503)])
def test_a_cancel_that_may_not_have_arrived_is_told(end: Exception) -> None:
    with pytest.raises(type(end)):
        cancel(Scripted(end), "exp_1_abcdef", 2, None)  # type: ignore[arg-type]


def test_a_lane_does_one_thing_after_another_and_lanes_do_not_wait_for_each_other() -> None:
    lanes = SerialTasks(lambda lane, error: None)
    done: list[str] = []
    gate, other = threading.Event(), threading.Event()
    lanes.do("w1", lambda: gate.wait(10))
    lanes.do("w1", lambda: done.append("w1"))
    lanes.do("w2", lambda: (done.append("w2"), other.set()))
    assert other.wait(10)
    gate.set()
    assert lanes.close(10)
    assert done == ["w2", "w1"]


def test_a_lane_outlives_a_task_that_fails() -> None:
    reported: list[str] = []
    lanes = SerialTasks(lambda lane, error: reported.append(f"{lane}: {error}"))
    done = threading.Event()

    def fail() -> None:
        raise ValueError("a mistake")

    lanes.do("w1", fail)
    lanes.do("w1", done.set)
    assert done.wait(10)
    assert reported == ["w1: a mistake"]
    assert lanes.close(10)
