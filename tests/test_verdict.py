"""The judge of trials, given histories made by hand: the innocent go free, and each kind of guilt is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deployment_check.history import History
from deployment_check.verdict import verdict_of

END = {"status": "completed", "attempts": [{"attempt": 1, "outcome": "completed"}], "artifacts": {}}
NONE = {"queued": 0, "dispatched": 0, "running": 0, "completed": 0, "failed": 0, "cancelled": 0}


def sums(accepted: int, unfinished: tuple[str, ...] = (), **counts: int) -> dict[str, Any]:
    """A /conservation document."""
    found = {**NONE, **counts}
    return {"accepted": accepted, "holds": sum(found.values()) == accepted, **found, "refused": [],
            "unfinished": [{"run": name} for name in unfinished], "unfinished_total": len(unfinished)}


def failed(error: Any, outcomes: tuple[str, ...] = ("codec-crashed",)) -> dict[str, Any]:
    return {"status": "failed", "error": error, "artifacts": {},
            "attempts": [{"attempt": number, "outcome": outcome} for number, outcome in enumerate(outcomes, 1)]}


def innocent() -> History:
    """Two experiments: one completed, one failed with its reason; one stale result was refused."""
    history = History()
    for number, document in enumerate((END, failed({"type": "timeout", "detail": "too slow"}))):
        history.note("submitted", key=f"k{number}")
        history.note("acknowledged", key=f"k{number}", id=f"e{number}")
        history.note("status", id=f"e{number}", document={"status": "running", "attempts": []})
        history.note("started", run=f"e{number}", attempt=1)
        history.note("status", id=f"e{number}", document=document)
        history.note("ends", id=f"e{number}", count=1)
    history.note("listed", ids=["e1", "e0"])
    refused = [{"run": "e0", "attempt": 1, "at": "2026-01-01T00:00:00Z"}]
    history.note("conservation", document={**sums(2, completed=1, failed=1), "refused": refused})
    return history


def test_an_innocent_history_is_acquitted_and_counted() -> None:
    verdict = verdict_of(innocent())
    assert verdict.complaints == []
    assert verdict.holds
    assert verdict.lines() == [
        "submitted              2", "acknowledged           2", "completed              1", "failed with a reason   1",
        "cancelled              0", "lost                   0", "recorded twice         0", "invisible              0",
        "wrong                  0", "stale results refused  1", "orphan processes       0", "PASSED"]


# What is added to the innocent history, and the one complaint that it must lead to.
GUILT: dict[str, tuple[Callable[[History], None], tuple[str, str, str]]] = {
    "accepted and never ended": (
        lambda history: history.note("status", id="e0", document={"status": "queued", "attempts": []}),
        ("lost", "e0", "was accepted and is queued at the end")),
    "accepted and then unknown": (
        lambda history: history.note("status", id="e0", document={"status": "unknown"}),
        ("lost", "e0", "was accepted and is unknown at the end")),
    "failed without a reason": (
        lambda history: history.note("status", id="e1", document=failed({"type": "timeout", "detail": ""})),
        ("lost", "e1", "failed without a reason")),
    "one key, two experiments": (
        lambda history: history.note("acknowledged", key="k0", id="e1"),
        ("twice", "e1", "has the key k0, and so has e0")),
    "a result that changed": (
        lambda history: history.note("status", id="e0", document={**END, "metrics": {"psnr_db": 45.0}}),
        ("twice", "e0", "was completed and is completed; ['metrics'] changed")),
    "an end that was taken back": (
        lambda history: history.note("status", id="e0", document={**END, "status": "cancelled"}),
        ("twice", "e0", "was completed and is cancelled; ['status'] changed")),
    "two ends in one history": (
        lambda history: history.note("ends", id="e0", count=2),
        ("twice", "e0", "tells of 2 ends")),
    "an attempt started twice": (
        lambda history: history.note("started", run="e0", attempt=1),
        ("twice", "e0", "attempt 1 was started 2 times")),
    "one try too many": (
        lambda history: history.note("status", id="e1", document=failed({"type": "lost", "detail": "x"},
                                                                       ("lost", "busy", "lost", "lost", "lost"))),
        ("twice", "e1", "was tried 4 times; 3 is the most")),
    "not in the list": (
        lambda history: history.note("listed", ids=["e1"]),
        ("invisible", "e0", "was accepted before the list was asked for, and is not in it")),
    "a sum that is short": (
        lambda history: history.note("conservation", document=sums(2, completed=1)),
        ("invisible", "", "2 runs were accepted, and 1 are listed")),
    "cancelled in vain": (
        lambda history: history.note("cancelled", id="e0", status=202),
        ("wrong", "e0", "was cancelled with 202, and is completed")),
    "the result of another attempt": (
        lambda history: history.note("status", id="e0", document={**END, "provenance": {"attempt": 2}}),
        ("wrong", "e0", "has the result of attempt 2, and completed in [1]")),
    "an attempt left open": (
        lambda history: history.note("status", id="e1", document={
            **failed({"type": "x", "detail": "y"}), "attempts": [{"attempt": 1, "outcome": None}]}),
        ("wrong", "e1", "has ended, and an attempt has not: [None]")),
    "bytes that are others": (
        lambda history: history.note("artifact", id="e0", name="stream.nvc", wanted="aa", found="bb"),
        ("wrong", "e0", "stream.nvc has SHA-256 bb, aa was answered")),
    "more counted than submitted": (
        lambda history: history.note("conservation", document=sums(3, completed=3)),
        ("twice", "", "2 to 2 submissions were accepted, and the service counts 3")),
    "fewer counted than accepted": (
        lambda history: history.note("conservation", document=sums(1, completed=1)),
        ("lost", "", "2 to 2 submissions were accepted, and the service counts 1")),
}


@pytest.mark.parametrize("guilt", GUILT)
def test_guilt_is_found(guilt: str) -> None:
    history = innocent()
    add, complaint = GUILT[guilt]
    add(history)
    verdict = verdict_of(history)
    assert complaint in [tuple(found) for found in verdict.complaints]
    assert not verdict.holds
    assert verdict.lines()[-1] == "FAILED"


def test_unfinished_and_not_told_of_is_invisible() -> None:
    history = innocent()
    history.note("submitted", key="k2")
    history.note("acknowledged", key="k2", id="e2")
    history.note("conservation", document=sums(3, completed=2, failed=1))
    history.note("status", id="e2", document={"status": "queued", "attempts": []})
    complaint = ("invisible", "e2", "was unfinished, and is not listed as unfinished")
    assert complaint in verdict_of(history).complaints


def test_what_was_not_yet_acknowledged_need_not_be_seen() -> None:
    history = innocent()
    began_s = next(iter(history)).began_s
    history.note("listed", began_s, ids=[])
    assert verdict_of(history).holds


def test_a_document_read_before_the_end_and_answered_after_it_is_no_change() -> None:
    history = innocent()
    began_s = next(iter(history)).began_s
    history.note("status", began_s, id="e0", document={"status": "running", "attempts": []})
    history.note("status", id="e0", document=END)
    assert verdict_of(history).holds


def test_a_submission_that_nobody_answered_may_have_been_accepted_or_not() -> None:
    history = innocent()
    history.note("submitted", key="k2")
    assert verdict_of(history).holds
    history.note("conservation", document=sums(3, completed=2, failed=1))
    assert verdict_of(history).holds


def test_others_work_is_no_fault_where_the_deployment_is_shared() -> None:
    history = innocent()
    history.note("conservation", document=sums(90, completed=90))
    assert verdict_of(history, alone=False).holds


def test_a_process_that_is_left_over_is_a_fault_by_itself() -> None:
    history = innocent()
    history.note("orphans", pids=[17, 18])
    verdict = verdict_of(history)
    assert (verdict.orphans, verdict.complaints, verdict.holds) == (2, [], False)
