"""The truth on disk: experiments, runs, attempts, events.

Its tables are in service/storage/schema.py, what it gives back in service/storage/records.py, made by
service/storage/rows.py; what only reads is in service/storage/lookup.py, and how operations become durable in
service/storage/database.py.

How a run moves
===============
`_move` is the only place that changes a run's state. It asks `jobs.next_state`, applies the answer by compare-and-set,
closes or opens the attempt's row, appends the events that clients replay, and brings the experiment's own state up to
date. A terminal move writes one row of `results` (primary key: the run), so a second one cannot exist. Operations run
one after the other anyway; the compare-and-set on (run, attempt, state) is what makes a second writer harmless.

The number of accepted runs is counted separately, at submission; that the states add up to it is therefore a check and
no tautology (`conservation`).
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from service.jobs import states
from service.jobs.states import (
    TERMINAL,
    UNFINISHED,
    Blame,
    Event,
    State,
    next_state,
    verdict,
)
from service.storage.accepted_marker import AcceptedMarker
from service.storage.database import Connection
from service.storage.lookup import Lookup
from service.storage.operations import append_event, current, insert_experiment, insert_run, refresh_experiment
from service.storage.records import (
    ClipGone,
    ClipInUse,
    Finished,
    KeyReused,
    Run,
    Stale,
    StateInUse,
    StoreError,
    StoreFull,
    TooNew,
    Unfinished,
    UnknownExperiment,
    figures_of,
)
from service.storage.rows import IDEMPOTENCY_S, RUN, dump, find_earlier, find_experiment, run_of
from service.storage.schema import MIGRATIONS

__all__ = ["IDEMPOTENCY_S", "MAX_REFUSED", "ClipGone", "ClipInUse", "Finished", "KeyReused", "Stale", "StateInUse",
           "Store", "StoreError", "StoreFull", "TooNew", "Unfinished", "UnknownExperiment", "dump"]

OUT_OF_MEMORY = "out-of-memory"     # an outcome that a third worker would not change
MAX_REFUSED = 1000          # stale messages remembered


class Ended(NamedTuple):
    """How an attempt ended: its run; whether it ended now, or was reported again; and what ended with it, as it was
    before: where the run is a segment that did not complete, its whole and the other segments."""

    run: Run
    now: bool = True
    others: Sequence[Run] = ()


class Store(Lookup):
    """The database of experiments in `folder`; see Database for `exclusive`. `clock` gives Unix seconds."""

    def __init__(self, folder: Path, *, exclusive: bool = True, clock: Callable[[], float] = time.time,
                 migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
        self.clock = clock
        super().__init__(folder, migrations, exclusive=exclusive)
        self._accepted = AcceptedMarker(folder)
        if exclusive:
            try:
                self._accepted.check(self.count_accepted())
            except StoreError:
                self.close()
                raise

    # --- submitting ------------------------------------------------------------------------------------------------

    def submit(self, document: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], *,
               clips: Sequence[Mapping[str, Any]] = (), principal: str = "", key: str | None = None,
               body_sha256: str = "", trace: str = "", origin: Mapping[str, str] | None = None
               ) -> tuple[str, list[Run]]:
        """Accept an experiment: its id and its runs, those that are cut followed by their segments; or the earlier id
        and no runs, where the same `principal` sent the same `key` and body in the last 24 hours. `clips` holds each
        run's clip (see Run), as far as it is not simply a name; `origin` says which experiment it was made from.
        Raises KeyReused for the same key with another body."""

        def operation(db: Connection) -> tuple[str, list[Run]]:
            now = self.clock()
            if key is not None:
                db.execute("DELETE FROM idempotency WHERE at_s < ?", (now - IDEMPOTENCY_S,))
                earlier = find_earlier(db, principal, key, body_sha256, now)
                if earlier is not None:
                    return earlier, []
            for sha256, name in {clip["sha256"]: clip["name"] for clip in clips if clip["sha256"]}.items():
                if not db.execute("SELECT EXISTS (SELECT 1 FROM clips WHERE sha256 = ?)", (sha256,)).fetchone()[0]:
                    raise ClipGone(f"clip: {name} was deleted meanwhile")
            number, experiment_id = insert_experiment(db, document, now, principal, trace, origin)
            named = clips or [{"name": settings["clip"], "sha256": None, "url": None} for settings in runs]
            made: list[Run] = []
            for index, (settings, clip) in enumerate(zip(runs, named, strict=True)):
                name = states.run_id(experiment_id, index, len(runs))
                made += insert_run(db, number, experiment_id, name, settings, document, clip, now, trace)
            for name, count in (("accepted", len(made)), ("segments", len(made) - len(runs))):
                db.execute("UPDATE counters SET value = value + ? WHERE name = ?", (count, name))
            if key is not None:
                db.execute("INSERT INTO idempotency VALUES (?, ?, ?, ?, ?)",
                           (principal, key, body_sha256, experiment_id, now))
            return experiment_id, made

        accepted = self.write(operation)
        if accepted[1]:
            self._accepted.raise_to(self.count_accepted())
        return accepted

    def count_accepted(self) -> int:
        """How many runs were ever accepted, as the database has it."""
        with self.reading() as db:
            return int(db.execute("SELECT value FROM counters WHERE name = 'accepted'").fetchone()[0])

    # --- the moves of a run ----------------------------------------------------------------------------------------

    def place(self, run_id: str, after_attempt: int, worker: str) -> Run:
        """Grant attempt `after_attempt` + 1 to `worker`. Raises Stale if the run is not queued after that attempt."""

        def operation(db: Connection) -> Run:
            run = current(db, run_id, after_attempt, (State.QUEUED,))
            return self._move(db, run, Event.PLACE, worker=worker)

        return self.write(operation)

    def start(self, run_id: str, attempt: int) -> "Future[Run]":
        """The worker holds the attempt; the future resolves when that is on disk. Starting what runs already changes
        nothing. The future raises Stale."""

        def operation(db: Connection) -> Run:
            run = current(db, run_id, attempt)
            return run if run.state is State.RUNNING else self._move(db, run, Event.START)

        return self._enqueue(operation)

    def progress(self, run_id: str, attempt: int, data: Mapping[str, Any]) -> "Future[None]":
        """Append a progress event; the future resolves when it is on disk, or raises Stale."""

        def operation(db: Connection) -> None:
            run = current(db, run_id, attempt)
            append_event(db, run, "progress", self.clock(), data)

        return self._enqueue(operation)

    def complete(self, run_id: str, attempt: int, result: Mapping[str, Any],
                 artifacts: Mapping[str, Mapping[str, Any]]) -> Run:
        """Record the result. `artifacts`: name to {"sha256", "bytes"}. The same attempt completing again (its worker
        did not see the answer) changes nothing. Raises Stale."""

        def operation(db: Connection) -> Run:
            run = current(db, run_id, attempt, repeat_of=State.COMPLETED)
            if run.state is State.COMPLETED:
                return run
            db.executemany("INSERT INTO artifacts VALUES (?, ?, ?, ?)",
                           [(run.number, name, item["sha256"], item["bytes"]) for name, item in artifacts.items()])
            if run.whole is not None:
                db.execute("UPDATE runs SET waits = waits - 1 WHERE number = ?", (run.whole,))
            return self._move(db, run, Event.COMPLETE, outcome="completed", result=result)

        return self.write(operation)

    def end_attempt(self, run_id: str, attempt: int, outcome: str, error: Mapping[str, Any],
                    blame: Blame) -> Ended:
        """The attempt ended without a result; `jobs.verdict` decides whether the run is queued again or failed with
        `error` ({"type", "detail"}). Reporting again what already made the run fail changes nothing. Raises Stale."""

        def operation(db: Connection) -> Ended:
            run = current(db, run_id, attempt, repeat_of=State.FAILED)
            if run.state is State.FAILED:
                return Ended(run, now=False)
            tries = run.tries + (blame is not Blame.NOBODY)
            returns = run.returns + (blame is Blame.NOBODY)
            event = verdict(blame, tries, returns)
            final = dict(error)
            if outcome == OUT_OF_MEMORY and event is not Event.FAIL and db.execute(
                    "SELECT EXISTS (SELECT 1 FROM attempts WHERE run = ? AND attempt < ? AND outcome = ?)",
                    (run.number, attempt, outcome)).fetchone()[0]:
                event = Event.FAIL
                final["detail"] = f"{error['detail']}; it ran out of memory twice"
            elif event is Event.FAIL and blame is not Blame.RUN:
                final["detail"] = f"{error['detail']}; given up after {tries + returns} attempts"
            moved = self._move(db, replace(run, tries=tries, returns=returns), event, outcome=outcome, error=final)
            return Ended(moved, others=self._end_whole(db, moved, final) if event is Event.FAIL else ())

        return self.write(operation)

    def cancel(self, experiment_id: str, reason: str) -> list[Run]:
        """Cancel every unfinished run of an experiment; the runs as they were before. Empty if it was cancelled
        already. Raises UnknownExperiment, or Finished if it completed or failed."""

        def operation(db: Connection) -> list[Run]:
            number, state = find_experiment(db, experiment_id)
            if state in TERMINAL:
                if state is State.CANCELLED:
                    return []
                raise Finished(state)
            runs = [run_of(row) for row in db.execute(RUN + "WHERE runs.experiment = ? AND runs.state IN (?, ?, ?)",
                                                    (number, *UNFINISHED)).fetchall()]
            for run in runs:
                self._move(db, run, Event.CANCEL, outcome="cancelled", error={"type": "cancelled", "detail": reason})
            return runs

        return self.write(operation)

    def cancel_run(self, run_id: str, attempt: int, reason: str) -> Ended:
        """The worker that holds the attempt stopped it on someone's order. Raises Stale."""

        def operation(db: Connection) -> Ended:
            run = current(db, run_id, attempt, repeat_of=State.CANCELLED)
            if run.state is State.CANCELLED:
                return Ended(run, now=False)
            error = {"type": "cancelled", "detail": reason}
            moved = self._move(db, run, Event.CANCEL, outcome="cancelled", error=error)
            return Ended(moved, others=self._end_whole(db, moved, error))

        return self.write(operation)

    def _end_whole(self, db: Connection, segment: Run, error: Mapping[str, Any]) -> Sequence[Run]:
        """Where a segment has failed or was cancelled, end its whole in the same way and cancel the other segments;
        these runs as they were."""
        if segment.whole is None:
            return ()
        of_whole = RUN + "WHERE (runs.number = ?1 OR whole = ?1) AND runs.state IN (?2, ?3, ?4) ORDER BY runs.number"
        ended = [run_of(row) for row in db.execute(of_whole, (segment.whole, *UNFINISHED))]
        for run in ended:
            if run.number == segment.whole:
                event = Event.FAIL if segment.state is State.FAILED else Event.CANCEL
                said = {**error, "detail": f"segment {segment.settings['segment']['index']}: {error['detail']}"}
                self._move(db, run, event, error=said)
            else:
                self._move(db, run, Event.CANCEL, outcome="cancelled",
                           error={"type": "cancelled", "detail": f"{segment.id} did not complete"})
        return ended

    def delete(self, experiment_id: str) -> int:
        """Delete an experiment that has ended and all that is stored of it; how many runs it had. The bytes of its
        artifacts go with the next sweep, and an Idempotency-Key of its submission is free again.
        Raises UnknownExperiment (also for a run of a grid), or Unfinished."""

        def operation(db: Connection) -> int:
            number, state = find_experiment(db, experiment_id)
            if state not in TERMINAL:
                raise Unfinished(state)
            db.execute("INSERT INTO deleted SELECT id FROM runs WHERE experiment = ?", (number,))
            db.execute("DELETE FROM events WHERE experiment = ?", (number,))
            for table in ("artifacts", "removed", "figures", "results", "attempts"):
                db.execute(f"DELETE FROM {table} WHERE run IN (SELECT number FROM runs WHERE experiment = ?)",
                           (number,))
            runs = db.execute("DELETE FROM runs WHERE experiment = ?", (number,)).rowcount
            db.execute("DELETE FROM tags WHERE experiment = ?", (number,))
            db.execute("DELETE FROM idempotency WHERE experiment = ?", (experiment_id,))
            db.execute("DELETE FROM experiments WHERE number = ?", (number,))
            db.execute("UPDATE counters SET value = value + ? WHERE name = 'deleted'", (runs,))
            return runs

        return self.write(operation)

    def change_tags(self, experiment_id: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]
                    ) -> Mapping[str, str]:
        """The experiment's tags after `change`, which is given those before and may raise. Raises UnknownExperiment."""

        def operation(db: Connection) -> Mapping[str, str]:
            number, _ = find_experiment(db, experiment_id)
            row = db.execute("SELECT document FROM experiments WHERE number = ?", (number,)).fetchone()
            document = json.loads(row[0])
            tags = change(document["tags"])
            db.execute("UPDATE experiments SET document = ? WHERE number = ?",
                       (dump(document | {"tags": tags}), number))
            db.execute("DELETE FROM tags WHERE experiment = ?", (number,))
            db.executemany("INSERT INTO tags VALUES (?, ?, ?)", [(name, value, number) for name, value in tags.items()])
            return tags

        return self.write(operation)

    def refuse(self, run_id: str, attempt: int, what: str, reason: str) -> None:
        """Remember a stale message that was turned away (the last `MAX_REFUSED` of them)."""

        def operation(db: Connection) -> None:
            added = db.execute("INSERT INTO refused (at_s, run, attempt, what, reason) VALUES (?, ?, ?, ?, ?)",
                               (self.clock(), run_id, attempt, what, reason))
            db.execute("DELETE FROM refused WHERE number <= ?", (int(added.lastrowid or 0) - MAX_REFUSED,))

        self.write(operation)

    def _move(self, db: Connection, run: Run, event: Event, *, worker: str | None = None, outcome: str | None = None,
              error: Mapping[str, Any] | None = None, result: Mapping[str, Any] | None = None) -> Run:
        """Move the run along one row of the table. `worker` takes the next attempt, `outcome` closes the last."""
        now = self.clock()
        target = next_state(run.state, event)
        moved = replace(run, state=target, attempt=run.attempt + (event is Event.PLACE),
                        worker=worker if event is Event.PLACE else run.worker if event is Event.START else None,
                        finished_s=now if target in TERMINAL else None)
        changed = db.execute(
            "UPDATE runs SET state = ?, attempt = ?, tries = ?, returns = ?, worker = ?, finished_s = ? "
            "WHERE id = ? AND attempt = ? AND state = ?",
            (target, moved.attempt, moved.tries, moved.returns, moved.worker, moved.finished_s,
             run.id, run.attempt, run.state)).rowcount
        if changed != 1:
            raise Stale(f"{run.id} moved on while it was to {event}")
        if event is Event.PLACE:
            db.execute("INSERT INTO attempts (run, attempt, worker, dispatched_s) VALUES (?, ?, ?, ?)",
                       (run.number, moved.attempt, worker, now))
        elif event is Event.START:
            db.execute("UPDATE attempts SET started_s = ? WHERE run = ? AND attempt = ?",
                       (now, run.number, run.attempt))
        elif run.state is not State.QUEUED:
            db.execute("UPDATE attempts SET ended_s = ?, outcome = ?, detail = ? WHERE run = ? AND attempt = ?",
                       (now, outcome, None if error is None else error.get("detail"), run.number, run.attempt))
        append_event(db, run, "state", now, {"run": run.id, "status": target, "attempt": moved.attempt,
                                              "worker": moved.worker or run.worker, "reason": error})
        if target in TERMINAL:
            metrics = None if result is None else result.get("metrics")
            db.execute("INSERT INTO results VALUES (?, ?, ?, ?)",
                       (run.number, dump(metrics), dump(error), dump(result)))
            if result is not None and run.whole is None:
                db.execute("INSERT INTO figures VALUES (?, ?)", (run.number, dump(figures_of(result))))
            # Progress is of no use once it is over, and would grow the history without end.
            db.execute("DELETE FROM events WHERE run = ? AND kind = 'progress'", (run.number,))
            if run.whole is None:
                append_event(db, run, "result", now, {"run": run.id, "status": target, "attempt": run.attempt,
                                                       "metrics": metrics, "error": error})
                if run.in_segments:     # their files were for the join
                    db.execute("DELETE FROM artifacts WHERE run IN (SELECT number FROM runs WHERE whole = ?)",
                               (run.number,))
        refresh_experiment(db, run.experiment, now)
        return moved

    # --- health ----------------------------------------------------------------------------------------------------

    def pulse(self) -> None:
        """Commit something, to show that committing works. Raises StoreError, StoreFull."""
        self.write(lambda db: db.execute("INSERT OR REPLACE INTO pulse VALUES (1, ?)", (self.clock(),)).rowcount)
