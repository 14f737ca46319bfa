"""An experiment's document, the life of a run, and the rules for trying again.

Nothing here does I/O, reads a clock or starts a thread: what a request means and what may happen to a run is decided
here, `service/storage/store.py` writes it down, `orchestrator.py` and `worker.py` carry it out.

Theory of operation
===================
A client submits an *experiment*: one document (`FIELDS`, in service/jobs/fields.py). It has one *run*, or a grid of
them where fields of `GRID` are lists; a run is what a worker is handed. Experiments and runs are kept apart
everywhere, so that a grid is only an experiment with more runs.

A run lives in one of six states and moves only along the rows of `TABLE`. Three states are terminal and absorb: no
row leaves them, so exactly one terminal record can ever be written for a run. Any other pair of state and event is
refused by `next_state`, and the store applies the answer by compare-and-set on (run, attempt, state): of two writers
that both saw the old state one wins, and the other gets an error.

The *attempt* is a number that only grows. Placing a run grants attempt n + 1 to one worker together with a *lease*:
the right to report on that attempt, kept by heartbeats, until a time on the orchestrator's monotonic clock. The number
is the fencing token. A message that names an attempt other than the one now dispatched or running is stale: it
changes nothing and its sender gets a final answer. A lease that runs out ends its attempt at once, whether or not the
next attempt has been granted yet; the worker may be alive and may even have finished, but it can no longer be told
apart from one that lies. A lost lease therefore costs work, never truth.

A run of a clip that is cut has *segments*: runs like others, of its experiment, each placed, tried and fenced by
itself. It stays queued until all of them have completed; then it is placed itself, to join them. It ends with the first
of them that fails or is cancelled, and so do the others.

`dispatched` means that a worker may hold the run; `running` that it said so: by 202, by a heartbeat or by progress
that names the attempt. The two differ only in what is known, so a result is welcome in both (it may overtake the 202).

Cancelling is one step from every unfinished state, taken in the store before the worker hears of it. Afterwards the
worker's attempt is stale: it is asked to stop at once, and again in the answer to each heartbeat that still names it.

Trying again
============
Who is to blame decides (`Blame`). A run that failed by itself (a damaged clip, settings the codec refuses, a deadline)
fails at once: the second try would fail too. A worker that died, lost its lease, or ran out of memory or disk costs
the run one of its `MAX_TRIES` tries, on another worker if there is one, after a back-off with full jitter. A worker
that never began (full, draining, cannot be reached) or hands the run back costs no try, for the run did nothing wrong;
the worker is left alone for a while instead. Such returns are counted too (`MAX_RETURNS`), so that no history grows
without end. What is spent ends in `failed`, with the history of all attempts.

`python -m service.jobs.states` prints the picture of the table that docs/states.md holds.
"""

import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from service.jobs.fields import (
    ADDRESS,
    AIMS,
    CLIP_PATTERN,
    FIELDS,
    GRID,
    LIBRARY_NAME,
    MAX_RUNS,
    MAX_TAGS,
    Field,
    FieldError,
    JobError,
    UnknownField,
    changed,
    count_runs,
    is_grid,
    read_request,
    request_schema,
    runs_of,
)

__all__ = [
    "ADDRESS", "AIMS", "BACKOFF_BASE_S", "BACKOFF_CAP_S", "CAUSES", "CLIP_PATTERN", "FIELDS", "GRID",
    "LIBRARY_NAME", "MAX_RETURNS", "MAX_RUNS", "MAX_TAGS", "MAX_TRIES", "TABLE", "TERMINAL", "UNFINISHED", "Blame",
    "Event", "Field", "FieldError", "JobError", "NoSuchMove", "State", "UnknownField", "backoff_s",
    "blame_for_error", "changed", "count_runs", "experiment_state", "is_grid", "new_experiment_id", "next_state",
    "picture", "read_request", "request_schema", "run_id", "runs_of", "segment_id", "timestamp", "verdict",
]


class NoSuchMove(JobError):
    """The table has no row for this state and event."""


# --- states --------------------------------------------------------------------------------------------------------


class State(StrEnum):
    QUEUED = "queued"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Event(StrEnum):
    PLACE = "place"
    START = "start"
    REQUEUE = "requeue"
    COMPLETE = "complete"
    FAIL = "fail"
    CANCEL = "cancel"


TERMINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})
UNFINISHED = tuple(state for state in State if state not in TERMINAL)

# The one table of a run's life: (state, event) to the next state. What is not here does not happen.
TABLE: Mapping[tuple[State, Event], State] = {
    (State.QUEUED, Event.PLACE): State.DISPATCHED,
    (State.QUEUED, Event.FAIL): State.FAILED,
    (State.QUEUED, Event.CANCEL): State.CANCELLED,
    (State.DISPATCHED, Event.START): State.RUNNING,
    (State.DISPATCHED, Event.REQUEUE): State.QUEUED,
    (State.DISPATCHED, Event.COMPLETE): State.COMPLETED,
    (State.DISPATCHED, Event.FAIL): State.FAILED,
    (State.DISPATCHED, Event.CANCEL): State.CANCELLED,
    (State.RUNNING, Event.REQUEUE): State.QUEUED,
    (State.RUNNING, Event.COMPLETE): State.COMPLETED,
    (State.RUNNING, Event.FAIL): State.FAILED,
    (State.RUNNING, Event.CANCEL): State.CANCELLED,
}

# What brings each event about, for the picture.
CAUSES: Mapping[Event, str] = {
    Event.PLACE: "a worker with a free slot was chosen; attempt n + 1 and its lease are granted",
    Event.START: "the worker holds the run: 202, or a heartbeat or progress that names the attempt",
    Event.REQUEUE: "the attempt ended by no fault of the run, and it may try again",
    Event.COMPLETE: "the worker's result, its artifacts being stored",
    Event.FAIL: "the run's own error, its deadline, or its last try spent; while queued: that of one of its segments",
    Event.CANCEL: "asked by the client or at the worker",
}


def next_state(state: State, event: Event) -> State:
    """Where `event` leads from `state`. Raises NoSuchMove."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise NoSuchMove(f"a run that is {state} cannot {event}") from None


def experiment_state(runs: Sequence[State]) -> State:
    """An experiment's state from those of its runs (at least one). Unfinished while any run is; then completed if
    any run did, for one failed run does not sink the others."""
    for state in (State.RUNNING, State.DISPATCHED, State.QUEUED):
        if state in runs:
            return state if all(run not in TERMINAL for run in runs) else State.RUNNING
    for state in (State.COMPLETED, State.FAILED):
        if state in runs:
            return state
    return State.CANCELLED


def picture() -> str:
    """The table as docs/states.md shows it: a diagram (Mermaid) and its rows."""
    lines = ["# The life of a run", "",
             "Printed from the table in `service/jobs/states.py` by `python -m service.jobs.states > docs/states.md`.",
             "", "```mermaid", "stateDiagram-v2", f"    [*] --> {State.QUEUED}: accepted"]
    lines += [f"    {source} --> {target}: {event}" for (source, event), target in TABLE.items()]
    lines += [f"    {state} --> [*]" for state in State if state in TERMINAL]
    lines += ["```", "", "| event | from | to | caused by |", "|---|---|---|---|"]
    for event in Event:
        sources = [source for source, candidate in TABLE if candidate is event]
        lines.append(f"| {event} | {', '.join(sources)} | {TABLE[sources[0], event]} | {CAUSES[event]} |")
    terminal = ", ".join(state for state in State if state in TERMINAL)
    return "\n".join([*lines, "", f"Terminal states absorb: {terminal}.", ""])


# --- trying again --------------------------------------------------------------------------------------------------

MAX_TRIES = 3       # three workers' deaths in a row are no accident: the run kills them
MAX_RETURNS = 50    # with the longest back-off of a worker about half an hour of being turned away
BACKOFF_BASE_S = 1.0
BACKOFF_CAP_S = 30.0


class Blame(StrEnum):
    """Whose fault the end of an attempt is."""

    RUN = "run"         # would fail again anywhere
    WORKER = "worker"   # began, or may have begun, and did not get through
    NOBODY = "nobody"   # never began, or was handed back whole


NEVER_BEGAN = ("handed-back", "codec-not-ready")      # errors of runs that no codec has seen, or that came back whole


def blame_for_error(error: Mapping[str, Any]) -> Blame:
    """Whose fault an error is that a worker reports: {"type", "detail", "retry"}."""
    if not error.get("retry"):
        return Blame.RUN
    return Blame.NOBODY if error.get("type") in NEVER_BEGAN else Blame.WORKER


def verdict(blame: Blame, tries: int, returns: int) -> Event:
    """REQUEUE or FAIL after an attempt ended; `tries` and `returns` count this attempt too."""
    if blame is Blame.RUN or tries >= MAX_TRIES or returns >= MAX_RETURNS:
        return Event.FAIL
    return Event.REQUEUE


def backoff_s(tries: int, retry_after_s: float = 0.0, uniform: Callable[[float, float], float] = random.uniform
              ) -> float:
    """Seconds to wait before try number `tries` + 1: full jitter (uniform from zero to a doubling, capped bound), so
    that runs which failed together do not return together; never less than the other side asked for."""
    bound = min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** min(max(tries - 1, 0), 30))
    return max(retry_after_s, uniform(0.0, bound))


# --- names and times -----------------------------------------------------------------------------------------------


def new_experiment_id(now_s: float) -> str:
    """"exp_<Unix seconds>_<6 hexadecimal digits>". Not unique by itself: the store draws again on a clash."""
    return f"exp_{int(now_s)}_{secrets.token_hex(3)}"


def run_id(experiment_id: str, index: int, total: int) -> str:
    """The only run of an experiment bears its name; the runs of a grid are numbered."""
    return experiment_id if total == 1 else f"{experiment_id}.{index}"


def segment_id(run: str, index: int) -> str:
    """The name of a run's segment."""
    return f"{run}.s{index}"


def timestamp(at_s: float | None) -> str | None:
    """Unix seconds as RFC 3339 in UTC with milliseconds; null stays null."""
    if at_s is None:
        return None
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


if __name__ == "__main__":
    print(picture(), end="")
