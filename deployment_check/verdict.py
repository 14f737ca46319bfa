"""The judgement over a history: what became of everything that was submitted, and which promises were broken.

Each rule is one function that looks at the whole history and names what contradicts it. The kind of a complaint is one
of the counts of the verdict:

    lost        accepted, and at the end neither completed, failed with a reason, nor cancelled
    twice       more than one record of one thing: two experiments for one key, two ends of one run, an end that
                changed, an attempt that was started twice, more tries than there may be
    invisible   accepted, and missing from a list or from the conservation sum that was read later
    wrong       an end that contradicts what was asked for or what was measured
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from deployment_check.history import Entry, History
from service.jobs.states import MAX_TRIES, TERMINAL, UNFINISHED, State

ENDED = tuple(str(state) for state in TERMINAL)
NO_TRIES = ("busy", "unreachable", "handed-back")   # outcomes of attempts that never began, or were given back whole


class Complaint(NamedTuple):
    """One contradiction: its kind (see above), the experiment it is about ("" for none), and what was seen."""

    kind: str
    about: str
    words: str


@dataclass(frozen=True)
class Verdict:
    """What is printed at the end of a trial. `holds` is the exit code."""

    submitted: int
    acknowledged: int
    completed: int
    failed: int
    cancelled: int
    stale: int
    orphans: int
    complaints: list[Complaint] = field(default_factory=list)

    def count(self, name: str) -> int:
        """How many complaints there are of one count."""
        return sum(complaint.kind == name for complaint in self.complaints)

    @property
    def holds(self) -> bool:
        return not self.complaints and not self.orphans

    def lines(self) -> list[str]:
        """For people, and for scripts that read `name number`."""
        rows = {"submitted": self.submitted, "acknowledged": self.acknowledged, "completed": self.completed,
                "failed with a reason": self.failed, "cancelled": self.cancelled, "lost": self.count("lost"),
                "recorded twice": self.count("twice"), "invisible": self.count("invisible"),
                "wrong": self.count("wrong"), "stale results refused": self.stale, "orphan processes": self.orphans}
        shown = [f"{name:22} {number}" for name, number in rows.items()]
        shown += [f"  {complaint.kind}: {complaint.about} {complaint.words}" for complaint in self.complaints]
        return [*shown, "PASSED" if self.holds else "FAILED"]


def verdict_of(history: History, *, alone: bool = True) -> Verdict:
    """The verdict. `alone`: nobody else used the deployment, and it was empty before, so that its sums are known."""
    accepted = acknowledged(history)
    last = {name: documents[-1].about["document"] for name, documents in statuses(history).items()}
    states = Counter(last[name]["status"] for name in accepted if name in last)
    complaints = [complaint for rule in RULES for complaint in rule(history)]
    if alone:
        complaints += sums(history)
    stale = {(one["run"], one["attempt"], one["at"]) for entry in history.of("conservation")
             for one in entry.about["document"].get("refused", ()) if one["run"].partition(".")[0] in accepted}
    return Verdict(
        submitted=len({entry.about["key"] for entry in history.of("submitted")}), acknowledged=len(accepted),
        completed=states["completed"],
        failed=sum(reason_of(last[name]) is not None for name in accepted if name in last
                   and last[name]["status"] == "failed"),
        cancelled=states["cancelled"], stale=len(stale),
        orphans=len({pid for entry in history.of("orphans") for pid in entry.about["pids"]}), complaints=complaints)


def acknowledged(history: History) -> dict[str, float]:
    """Each accepted experiment's id, and when its client first knew."""
    found: dict[str, float] = {}
    for entry in history.of("acknowledged"):
        found.setdefault(entry.about["id"], entry.ended_s)
    return found


def statuses(history: History) -> dict[str, list[Entry]]:
    """The status documents of each experiment, in order."""
    found: dict[str, list[Entry]] = {}
    for entry in history.of("status"):
        found.setdefault(entry.about["id"], []).append(entry)
    return found


def reason_of(document: dict[str, Any]) -> str | None:
    """Why a run failed, if it says so."""
    error = document.get("error") or {}
    return f"{error['type']}: {error['detail']}" if error.get("type") and error.get("detail") else None


# --- rules ---------------------------------------------------------------------------------------------------------


def every_accepted_experiment_ends(history: History) -> Iterator[Complaint]:
    """Promises 1 and 8, and of a failure, 10: with a reason."""
    seen = statuses(history)
    for name in acknowledged(history):
        document = seen[name][-1].about["document"] if name in seen else {"status": "unknown"}
        if document["status"] not in ENDED:
            yield Complaint("lost", name, f"was accepted and is {document['status']} at the end")
        elif document["status"] == "failed" and reason_of(document) is None:
            yield Complaint("lost", name, "failed without a reason")


def one_key_is_one_experiment(history: History) -> Iterator[Complaint]:
    """Promise 2."""
    first: dict[str, str] = {}
    for entry in history.of("acknowledged"):
        key, name = entry.about["key"], entry.about["id"]
        if first.setdefault(key, name) != name:
            yield Complaint("twice", name, f"has the key {key}, and so has {first[key]}")
    for name, keys in Counter(name for name in first.values()).items():
        if keys > 1:
            yield Complaint("wrong", name, f"was given to {keys} keys")


def nothing_is_invisible(history: History) -> Iterator[Complaint]:
    """Promise 3: what was acknowledged before a list was asked for is in it; every sum is right at every read."""
    accepted, seen = acknowledged(history), statuses(history)
    for entry in history.of("listed"):
        for name in sorted(set(accepted) - set(entry.about["ids"])):
            if accepted[name] < entry.began_s:
                yield Complaint("invisible", name, "was accepted before the list was asked for, and is not in it")
    for entry in history.of("conservation"):
        document = entry.about["document"]
        there = sum(document[state] for state in State) + document.get("deleted", 0)
        if document["accepted"] != there or not document["holds"]:
            yield Complaint("invisible", "", f"{document['accepted']} runs were accepted, and {there} are listed")
        listed = {row["run"].partition(".")[0] for row in document["unfinished"]}
        if len(document["unfinished"]) < sum(document[state] for state in UNFINISHED):
            continue    # the answer is cut short at its limit
        for name in sorted(set(accepted) - listed):
            if accepted[name] < entry.began_s and any(
                    later.began_s > entry.ended_s and later.about["document"]["status"] not in ENDED
                    for later in seen.get(name, ())):
                yield Complaint("invisible", name, "was unfinished, and is not listed as unfinished")
    for entry in history.of("status"):
        if entry.about["document"]["status"] == "unknown" and accepted.get(entry.about["id"], entry.ended_s) \
                < entry.began_s:
            yield Complaint("invisible", entry.about["id"], "was accepted, and then unknown")


def an_attempt_starts_once(history: History) -> Iterator[Complaint]:
    """Promise 4."""
    starts = Counter((entry.about["run"], entry.about["attempt"]) for entry in history.of("started"))
    for (run, attempt), count in starts.items():
        if count > 1:
            yield Complaint("twice", run, f"attempt {attempt} was started {count} times")


def a_result_is_of_the_attempt_that_counts(history: History) -> Iterator[Complaint]:
    """Promise 5, where results bear the number of the attempt that made them, and the shape of every history."""
    for name, documents in statuses(history).items():
        document = documents[-1].about["document"]
        attempts = document.get("attempts") or []
        numbers = [attempt["attempt"] for attempt in attempts]
        if numbers != list(range(1, len(numbers) + 1)):
            yield Complaint("wrong", name, f"has the attempts {numbers}")
        outcomes = [attempt.get("outcome") for attempt in attempts]
        completed = [number for number, outcome in zip(numbers, outcomes, strict=True) if outcome == "completed"]
        if len(completed) > 1:
            yield Complaint("twice", name, f"completed in the attempts {completed}")
        if document["status"] == "completed" and completed != numbers[-1:]:
            yield Complaint("wrong", name, f"is completed, and its attempts ended {outcomes}")
        if document["status"] in ENDED and None in outcomes:
            yield Complaint("wrong", name, f"has ended, and an attempt has not: {outcomes}")
        witness = (document.get("provenance") or {}).get("attempt")
        if document["status"] == "completed" and witness is not None and [witness] != completed:
            yield Complaint("wrong", name, f"has the result of attempt {witness}, and completed in {completed}")


def an_end_is_final(history: History) -> Iterator[Complaint]:
    """Promise 9: one end for each run, and it never changes."""
    for name, documents in statuses(history).items():
        ends: list[Entry] = []
        for entry in documents:
            if ends and entry.began_s < ends[0].ended_s:
                continue    # it may have been read before
            document = entry.about["document"]
            if ends and document != ends[0].about["document"]:
                first = ends[0].about["document"]
                what = [part for part in {*first, *document} if first.get(part) != document.get(part)]
                yield Complaint("twice", name, f"was {first['status']} and is {document['status']}; {what} changed")
                break
            if document["status"] in ENDED:
                ends.append(entry)
    for entry in history.of("ends"):
        if entry.about["count"] > 1:
            yield Complaint("twice", entry.about["id"], f"tells of {entry.about['count']} ends")


def tries_are_bounded(history: History) -> Iterator[Complaint]:
    """Promise 10."""
    for name, documents in statuses(history).items():
        attempts = documents[-1].about["document"].get("attempts") or []
        tries = sum(attempt.get("outcome") not in NO_TRIES for attempt in attempts)
        if tries > MAX_TRIES:
            yield Complaint("twice", name, f"was tried {tries} times; {MAX_TRIES} is the most")


def cancelled_means_cancelled(history: History) -> Iterator[Complaint]:
    """Promise 11: a cancellation that was answered with 202 is the end."""
    seen = statuses(history)
    for name in sorted({entry.about["id"] for entry in history.of("cancelled") if entry.about["status"] == 202}):
        end = seen[name][-1].about["document"]["status"] if name in seen else "unknown"
        if end in ENDED and end != "cancelled":
            yield Complaint("wrong", name, f"was cancelled with 202, and is {end}")


def bytes_are_what_they_are_said_to_be(history: History) -> Iterator[Complaint]:
    """Law 1: numbers are measured on these very bytes."""
    for entry in history.of("artifact"):
        if entry.about["wanted"] != entry.about["found"]:
            yield Complaint("wrong", entry.about["id"], f"{entry.about['name']} has SHA-256 {entry.about['found']}, "
                                                        f"{entry.about['wanted']} was answered")


def sums(history: History) -> Iterator[Complaint]:
    """Promise 3 where nobody else submits: what the service counts is the answers that its clients got."""
    keys = {entry.about["key"] for entry in history.of("submitted")}
    known = {entry.about["key"] for entry in history.of("acknowledged")}
    refused = {entry.about["key"] for entry in history.of("refused")} - known
    least, most = len(acknowledged(history)), len(acknowledged(history)) + len(keys - known - refused)
    for entry in history.of("conservation")[-1:]:
        accepted = entry.about["document"]["accepted"] - entry.about["document"].get("segments", 0)
        if not least <= accepted <= most:
            yield Complaint("lost" if accepted < least else "twice", "",
                            f"{least} to {most} submissions were accepted, and the service counts {accepted}")


RULES = (every_accepted_experiment_ends, one_key_is_one_experiment, nothing_is_invisible, an_attempt_starts_once,
         a_result_is_of_the_attempt_that_counts, an_end_is_final, tries_are_bounded, cancelled_means_cancelled,
         bytes_are_what_they_are_said_to_be)
