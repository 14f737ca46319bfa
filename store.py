"""The truth on disk: experiments, runs, attempts, events.

Its tables are in control/schema.py, what it gives back in control/records.py, and how operations on it become durable
in control/database.py.

How a run moves
===============
`_move` is the only place that changes a run's state. It asks `jobs.next_state`, applies the answer by compare-and-set,
closes or opens the attempt's row, appends the events that clients replay, and brings the experiment's own state up to
date. A terminal move writes one row of `results` (primary key: the run), so a second one cannot exist. Operations run
one after the other anyway; the compare-and-set on (run, attempt, state) is what makes a second writer harmless.

The number of accepted runs is counted apart, at submission; that the states add up to it is therefore a check and no
tautology (`conservation`).
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import jobs
from control.database import Connection, Database
from control.records import (
    Attempt,
    Conservation,
    Experiment,
    Finished,
    GridRun,
    KeyReused,
    Run,
    RunRecord,
    Stale,
    StateInUse,
    StoredEvent,
    StoreError,
    StoreFull,
    TooNew,
    UnknownExperiment,
    figures_of,
)
from control.schema import MIGRATIONS
from jobs import Blame, Event, State

__all__ = ["IDEMPOTENCY_S", "MAX_REFUSED", "Finished", "KeyReused", "Stale", "StateInUse", "Store", "StoreError",
           "StoreFull", "TooNew", "UnknownExperiment", "dump"]

IDEMPOTENCY_S = 24 * 3600.0
MAX_REFUSED = 1000          # stale messages remembered


class Store(Database):
    """The database of experiments in `folder`; see Database for `exclusive`. `clock` gives Unix seconds."""

    def __init__(self, folder: Path, *, exclusive: bool = True, clock: Callable[[], float] = time.time,
                 migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
        self.clock = clock
        super().__init__(folder, migrations, exclusive=exclusive)

    # --- submitting ------------------------------------------------------------------------------------------------

    def submit(self, document: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], *,
               clips: Sequence[Mapping[str, Any]] = (), principal: str = "", key: str | None = None,
               body_sha256: str = "", trace: str = "", origin: Mapping[str, str] | None = None
               ) -> tuple[str, list[Run]]:
        """Accept an experiment: its id and its runs; or the earlier id and no runs, where the same `principal` sent
        the same `key` and body in the last 24 hours. `clips` holds each run's clip (see Run), as far as it is not
        simply a name; `origin` says which experiment it was made from. Raises KeyReused for the same key with another
        body."""

        def operation(db: Connection) -> tuple[str, list[Run]]:
            now = self.clock()
            if key is not None:
                db.execute("DELETE FROM idempotency WHERE at_s < ?", (now - IDEMPOTENCY_S,))
                earlier = _earlier(db, principal, key, body_sha256, now)
                if earlier is not None:
                    return earlier, []
            number, experiment_id = _insert_experiment(db, document, now, principal, trace, origin)
            named = clips or [{"name": settings["clip"], "sha256": None, "url": None} for settings in runs]
            made = [_insert_run(db, number, experiment_id, jobs.run_id(experiment_id, index, len(runs)), settings,
                                clip, now, trace)
                    for index, (settings, clip) in enumerate(zip(runs, named, strict=True))]
            db.execute("UPDATE counters SET value = value + ? WHERE name = 'accepted'", (len(made),))
            if key is not None:
                db.execute("INSERT INTO idempotency VALUES (?, ?, ?, ?, ?)",
                           (principal, key, body_sha256, experiment_id, now))
            return experiment_id, made

        return self.write(operation)

    def earlier(self, principal: str, key: str, body_sha256: str) -> str | None:
        """The experiment that the same key and body were answered with before. Raises KeyReused."""
        with self.reading() as db:
            return _earlier(db, principal, key, body_sha256, self.clock())

    # --- the moves of a run ----------------------------------------------------------------------------------------

    def place(self, run_id: str, after_attempt: int, worker: str) -> Run:
        """Grant attempt `after_attempt` + 1 to `worker`. Raises Stale if the run is not queued after that attempt."""

        def operation(db: Connection) -> Run:
            run = _current(db, run_id, after_attempt, (State.QUEUED,))
            return self._move(db, run, Event.PLACE, worker=worker)

        return self.write(operation)

    def start(self, run_id: str, attempt: int) -> "Future[Run]":
        """The worker holds the attempt; the future resolves when that is on disk. Starting what runs already changes
        nothing. The future raises Stale."""

        def operation(db: Connection) -> Run:
            run = _current(db, run_id, attempt)
            return run if run.state is State.RUNNING else self._move(db, run, Event.START)

        return self._enqueue(operation)

    def progress(self, run_id: str, attempt: int, data: Mapping[str, Any]) -> "Future[None]":
        """Append a progress event; the future resolves when it is on disk, or raises Stale."""

        def operation(db: Connection) -> None:
            run = _current(db, run_id, attempt)
            _append_event(db, run, "progress", self.clock(), data)

        return self._enqueue(operation)

    def complete(self, run_id: str, attempt: int, result: Mapping[str, Any],
                 artifacts: Mapping[str, Mapping[str, Any]]) -> Run:
        """Record the result. `artifacts`: name to {"sha256", "bytes"}. The same attempt completing again (its worker
        did not see the answer) changes nothing. Raises Stale."""

        def operation(db: Connection) -> Run:
            run = _current(db, run_id, attempt, repeat_of=State.COMPLETED)
            if run.state is State.COMPLETED:
                return run
            db.executemany("INSERT INTO artifacts VALUES (?, ?, ?, ?)",
                           [(run.number, name, item["sha256"], item["bytes"]) for name, item in artifacts.items()])
            return self._move(db, run, Event.COMPLETE, outcome="completed", result=result)

        return self.write(operation)

    def end_attempt(self, run_id: str, attempt: int, outcome: str, error: Mapping[str, Any], blame: Blame) -> Run:
        """The attempt ended without a result; `jobs.verdict` decides whether the run is queued again or failed with
        `error` ({"type", "detail"}). Reporting again what already made the run fail changes nothing. Raises Stale."""

        def operation(db: Connection) -> Run:
            run = _current(db, run_id, attempt, repeat_of=State.FAILED)
            if run.state is State.FAILED:
                return run
            tries = run.tries + (blame is not Blame.NOBODY)
            returns = run.returns + (blame is Blame.NOBODY)
            event = jobs.verdict(blame, tries, returns)
            final = dict(error)
            if event is Event.FAIL and blame is not Blame.RUN:
                final["detail"] = f"{error['detail']}; given up after {tries + returns} attempts"
            return self._move(db, replace(run, tries=tries, returns=returns), event, outcome=outcome, error=final)

        return self.write(operation)

    def cancel(self, experiment_id: str, reason: str) -> list[Run]:
        """Cancel every unfinished run of an experiment; the runs as they were before. Empty if it was cancelled
        already. Raises UnknownExperiment, or Finished if it completed or failed."""

        def operation(db: Connection) -> list[Run]:
            number, state = _find_experiment(db, experiment_id)
            if state in jobs.TERMINAL:
                if state is State.CANCELLED:
                    return []
                raise Finished(state)
            runs = [_run(row) for row in db.execute(_RUN + "WHERE runs.experiment = ? AND runs.state IN (?, ?, ?)",
                                                    (number, *jobs.UNFINISHED)).fetchall()]
            for run in runs:
                self._move(db, run, Event.CANCEL, outcome="cancelled", error={"type": "cancelled", "detail": reason})
            return runs

        return self.write(operation)

    def cancel_run(self, run_id: str, attempt: int, reason: str) -> Run:
        """The worker that holds the attempt stopped it on someone's order. Raises Stale."""

        def operation(db: Connection) -> Run:
            run = _current(db, run_id, attempt, repeat_of=State.CANCELLED)
            if run.state is State.CANCELLED:
                return run
            return self._move(db, run, Event.CANCEL, outcome="cancelled",
                              error={"type": "cancelled", "detail": reason})

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
        target = jobs.next_state(run.state, event)
        moved = replace(run, state=target, attempt=run.attempt + (event is Event.PLACE),
                        worker=worker if event is Event.PLACE else run.worker if event is Event.START else None,
                        finished_s=now if target in jobs.TERMINAL else None)
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
        _append_event(db, run, "state", now, {"run": run.id, "status": target, "attempt": moved.attempt,
                                              "worker": moved.worker or run.worker, "reason": error})
        if target in jobs.TERMINAL:
            metrics = None if result is None else result.get("metrics")
            db.execute("INSERT INTO results VALUES (?, ?, ?, ?)",
                       (run.number, dump(metrics), dump(error), dump(result)))
            if result is not None:
                db.execute("INSERT INTO figures VALUES (?, ?)", (run.number, dump(figures_of(result))))
            # Progress is of no use once it is over, and would grow the history without end.
            db.execute("DELETE FROM events WHERE run = ? AND kind = 'progress'", (run.number,))
            _append_event(db, run, "result", now, {"run": run.id, "status": target, "attempt": run.attempt,
                                                   "metrics": metrics, "error": error})
        _refresh_experiment(db, run.experiment, now)
        return moved

    # --- reading ---------------------------------------------------------------------------------------------------

    def experiment(self, experiment_id: str) -> Experiment:
        """The experiment and its runs; of a run of a grid, its experiment with that run alone.
        Raises UnknownExperiment."""
        with self.reading() as db:
            row = db.execute(_EXPERIMENT + "WHERE id = ?", (experiment_id,)).fetchone()
            if row is None:
                try:
                    run = _find_run(db, experiment_id)
                except UnknownExperiment:
                    raise UnknownExperiment(f"no experiment {experiment_id}") from None
                row = db.execute(_EXPERIMENT + "WHERE number = ?", (run.experiment,)).fetchone()
                return _experiment(db, row, runs=[_record(db, run, results=True)])
            if jobs.is_grid(json.loads(row[4])):
                return _experiment(db, row, grid=_grid(db, row[0]))
            runs = db.execute(_RUN + "WHERE runs.experiment = ?", (row[0],)).fetchall()
            return _experiment(db, row, runs=[_record(db, _run(run), results=True) for run in runs])

    def grid(self, experiment_id: str) -> list[GridRun]:
        """The runs of an experiment in order, or the one run of this id; none where nothing has it."""
        with self.reading() as db:
            row = db.execute("SELECT number FROM experiments WHERE id = ?", (experiment_id,)).fetchone()
            return _grid(db, row[0]) if row else _grid(db, experiment_id)

    def runs(self, experiment_id: str) -> list[Run]:
        """The same, as placing needs them."""
        with self.reading() as db:
            row = db.execute("SELECT number FROM experiments WHERE id = ?", (experiment_id,)).fetchone()
            found = db.execute(_RUN + ("WHERE runs.experiment = ? ORDER BY runs.number" if row else
                                       "WHERE runs.id = ?"), (row[0] if row else experiment_id,)).fetchall()
        return [_run(each) for each in found]

    def run(self, run_id: str) -> Run:
        """One run. Raises UnknownExperiment."""
        with self.reading() as db:
            return _find_run(db, run_id)

    def state(self, experiment_id: str) -> State:
        """The experiment's state. Raises UnknownExperiment."""
        with self.reading() as db:
            return _find_experiment(db, experiment_id)[1]

    def unfinished(self) -> list[Run]:
        """Every unfinished run, oldest first."""
        with self.reading() as db:
            return [_run(row) for row in db.execute(_UNFINISHED, (*jobs.UNFINISHED, -1)).fetchall()]

    def unfinished_attempts(self) -> dict[str, tuple[State, int]]:
        """State and last attempt of every unfinished run: what memory is compared with from time to time."""
        with self.reading() as db:
            rows = db.execute("SELECT id, state, attempt FROM runs WHERE state IN (?, ?, ?)", jobs.UNFINISHED)
            return {run_id: (State(state), attempt) for run_id, state, attempt in rows}

    def artifact(self, run_id: str, name: str) -> dict[str, Any] | None:
        """{"sha256", "bytes"} of one artifact; None if the run has none of this name. Raises UnknownExperiment."""
        with self.reading() as db:
            run = _find_run(db, run_id)
            row = db.execute("SELECT sha256, bytes FROM artifacts WHERE run = ? AND name = ?",
                             (run.number, name)).fetchone()
        return None if row is None else {"sha256": row[0], "bytes": row[1]}

    def avoided(self, run_id: str) -> set[str]:
        """Workers on which an attempt of the run went wrong."""
        with self.reading() as db:
            rows = db.execute("SELECT DISTINCT attempts.worker FROM attempts JOIN runs ON runs.number = run "
                              "WHERE runs.id = ? AND outcome NOT IN ('busy', 'handed-back')", (run_id,))
            return {row[0] for row in rows}

    def page(self, *, state: State | None = None, tag: str | None = None, limit: int = 50, before: int | None = None
             ) -> tuple[list[Experiment], int | None]:
        """Experiments newest first, each with its first run and without results, and where the next page begins
        (None: nowhere). `tag` is a name or "name:value"; `before` is what the previous page returned."""
        where: list[tuple[str, list[Any]]] = [("1", [])]
        if state is not None:
            where.append(("state = ?", [state]))
        if tag is not None:
            name, colon, value = tag.partition(":")
            where.append((f"number IN (SELECT experiment FROM tags WHERE name = ?{' AND value = ?' if colon else ''})",
                          [name, value] if colon else [name]))
        if before is not None:
            where.append(("number < ?", [before]))
        conditions = " AND ".join(condition for condition, _ in where)
        values = [value for _, values in where for value in values]
        with self.reading() as db:
            rows = db.execute(f"{_EXPERIMENT} WHERE {conditions} ORDER BY number DESC LIMIT ?",
                              (*values, limit + 1)).fetchall()
            found = []
            for row in rows[:limit]:
                first = _run(db.execute(_RUN + "WHERE runs.experiment = ? ORDER BY runs.number LIMIT 1",
                                        (row[0],)).fetchone())
                found.append(_experiment(db, row, runs=[_record(db, first, results=False)]))
        return found, found[-1].number if len(rows) > limit else None

    def events(self, experiment_id: str, after: int = 0, limit: int = 500) -> tuple[list[StoredEvent], State]:
        """Events with seq above `after`, oldest first, and the experiment's state at that moment.
        Raises UnknownExperiment."""
        with self.reading() as db:
            number, state = _find_experiment(db, experiment_id)
            rows = db.execute("SELECT seq, kind, at_s, data FROM events WHERE experiment = ? AND seq > ? "
                              "ORDER BY seq LIMIT ?", (number, after, limit)).fetchall()
        return [StoredEvent(row[0], row[1], row[2], json.loads(row[3])) for row in rows], state

    def counts(self) -> dict[State, int]:
        """How many runs are in each state."""
        with self.reading() as db:
            return _counts(db)

    def waiting(self) -> tuple[int, int]:
        """How many runs are queued, and how many are at workers; quick however many have ended."""
        with self.reading() as db:
            found = dict(db.execute("SELECT state, COUNT(*) FROM runs WHERE state IN (?, ?, ?) GROUP BY state",
                                    jobs.UNFINISHED).fetchall())
        return found.get(State.QUEUED, 0), found.get(State.DISPATCHED, 0) + found.get(State.RUNNING, 0)

    def conservation(self, limit: int = 1000) -> Conservation:
        """What was accepted and where it is now, all of one moment; at most `limit` unfinished runs."""
        with self.reading() as db:
            accepted = db.execute("SELECT value FROM counters WHERE name = 'accepted'").fetchone()[0]
            refused = db.execute("SELECT at_s, run, attempt, what, reason FROM refused ORDER BY number DESC LIMIT 100")
            return Conservation(
                accepted, _counts(db),
                [(run, next(reversed(_attempts(db, run.number)), None)) for run in
                 [_run(row) for row in db.execute(_UNFINISHED, (*jobs.UNFINISHED, limit)).fetchall()]],
                [{"at": jobs.timestamp(at_s), "run": run, "attempt": attempt, "what": what, "reason": reason}
                 for at_s, run, attempt, what, reason in refused])

    # --- health ----------------------------------------------------------------------------------------------------

    def pulse(self) -> None:
        """Commit something, to show that committing works. Raises StoreError, StoreFull."""
        self.write(lambda db: db.execute("INSERT OR REPLACE INTO pulse VALUES (1, ?)", (self.clock(),)).rowcount)


# --- rows ------------------------------------------------------------------------------------------------------------

_EXPERIMENT = "SELECT number, id, state, label, document, accepted_s, finished_s, origin FROM experiments "
_RUN = ("SELECT runs.number, runs.id, experiments.number, experiments.id, runs.state, attempt, tries, returns, worker, "
        "runs.finished_s, settings, clip, trace FROM runs JOIN experiments ON experiments.number = runs.experiment ")
_UNFINISHED = _RUN + "WHERE runs.state IN (?, ?, ?) ORDER BY runs.number LIMIT ?"


def dump(value: Any) -> str | None:
    """JSON as it is stored; None stays NULL."""
    return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _earlier(db: Connection, principal: str, key: str, body_sha256: str, now: float) -> str | None:
    row = db.execute("SELECT body_sha256, experiment FROM idempotency WHERE principal = ? AND key = ? AND at_s >= ?",
                     (principal, key, now - IDEMPOTENCY_S)).fetchone()
    if row is None:
        return None
    if row[0] != body_sha256:
        raise KeyReused(f"this key was used for {row[1]} with another body")
    return row[1]


def _insert_experiment(db: Connection, document: Mapping[str, Any], now: float, principal: str, trace: str,
                       origin: Mapping[str, str] | None) -> tuple[int, str]:
    """Number and id; the id is drawn again while another experiment has it."""
    while True:
        experiment_id = jobs.new_experiment_id(now)
        added = db.execute(
            "INSERT OR IGNORE INTO experiments (id, state, label, document, accepted_s, principal, trace, origin) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (experiment_id, State.QUEUED, document["label"], dump(document), now, principal, trace, dump(origin)))
        if added.rowcount == 1:
            number = int(added.lastrowid or 0)
            db.executemany("INSERT INTO tags VALUES (?, ?, ?)",
                           [(name, value, number) for name, value in document["tags"].items()])
            return number, experiment_id


def _insert_run(db: Connection, experiment: int, experiment_id: str, run_id: str, settings: Mapping[str, Any],
                clip: Mapping[str, Any], now: float, trace: str) -> Run:
    added = db.execute("INSERT INTO runs (id, experiment, state, attempt, tries, returns, settings, clip) "
                       "VALUES (?, ?, ?, 0, 0, 0, ?, ?)",
                       (run_id, experiment, State.QUEUED, dump(settings), dump(clip)))
    run = Run(int(added.lastrowid or 0), run_id, experiment, experiment_id, State.QUEUED, 0, 0, 0, None, None,
              dict(settings), dict(clip), trace)
    _append_event(db, run, "state", now, {"run": run_id, "status": State.QUEUED, "attempt": 0, "worker": None,
                                          "reason": None})
    return run


def _append_event(db: Connection, run: Run, kind: str, at_s: float, data: Mapping[str, Any]) -> None:
    db.execute("INSERT INTO events (experiment, run, kind, at_s, data) VALUES (?, ?, ?, ?, ?)",
               (run.experiment, run.number, kind, at_s, dump(data)))


def _refresh_experiment(db: Connection, experiment: int, now: float) -> None:
    rows = db.execute("SELECT DISTINCT state FROM runs WHERE experiment = ?", (experiment,))
    state = jobs.experiment_state([State(row[0]) for row in rows])
    db.execute("UPDATE experiments SET state = ?, finished_s = ? WHERE number = ?",
               (state, now if state in jobs.TERMINAL else None, experiment))


def _current(db: Connection, run_id: str, attempt: int,
             states: tuple[State, ...] = (State.DISPATCHED, State.RUNNING), repeat_of: State | None = None) -> Run:
    """The run, if `attempt` is its last one and it is in one of `states` (or in `repeat_of`, when the message says
    again what is recorded). This is the fence. Raises UnknownExperiment, Stale."""
    run = _find_run(db, run_id)
    if run.attempt != attempt:
        raise Stale(f"attempt {attempt} of {run_id} is over; the last one granted is {run.attempt}")
    if run.state not in states and run.state is not repeat_of:
        raise Stale(f"attempt {attempt} of {run_id} is over; the run is {run.state}")
    return run


def _find_run(db: Connection, run_id: str) -> Run:
    row = db.execute(_RUN + "WHERE runs.id = ?", (run_id,)).fetchone()
    if row is None:
        raise UnknownExperiment(f"no run {run_id}")
    return _run(row)


def _find_experiment(db: Connection, experiment_id: str) -> tuple[int, State]:
    row = db.execute("SELECT number, state FROM experiments WHERE id = ?", (experiment_id,)).fetchone()
    if row is None:
        raise UnknownExperiment(f"no experiment {experiment_id}")
    return row[0], State(row[1])


def _run(row: tuple) -> Run:
    (number, name, experiment, experiment_id, state, attempt, tries, returns, worker, finished_s, settings, clip,
     trace) = row
    return Run(number, name, experiment, experiment_id, State(state), attempt, tries, returns, worker, finished_s,
               json.loads(settings), json.loads(clip), trace)


def _experiment(db: Connection, row: tuple, *, runs: Sequence[RunRecord] = (), grid: Sequence[GridRun] = ()
                ) -> Experiment:
    counts = dict(db.execute("SELECT state, COUNT(*) FROM runs WHERE experiment = ? GROUP BY state", (row[0],)))
    return Experiment(row[0], row[1], State(row[2]), row[3], json.loads(row[4]), row[5], row[6],
                      None if row[7] is None else json.loads(row[7]), {state: counts.get(state, 0) for state in State},
                      [*runs], [*grid])


def _grid(db: Connection, which: int | str) -> list[GridRun]:
    """The runs of an experiment by its number, or one run by its id."""
    rows = db.execute(
        "SELECT id, state, attempt, (SELECT worker FROM attempts WHERE attempts.run = runs.number "
        "ORDER BY attempt DESC LIMIT 1), settings, figures.document, results.error FROM runs "
        "LEFT JOIN figures ON figures.run = runs.number LEFT JOIN results ON results.run = runs.number "
        f"WHERE {'experiment' if isinstance(which, int) else 'id'} = ? ORDER BY runs.number", (which,))
    return [GridRun(name, State(state), attempt, worker, json.loads(settings),
                    None if figures is None else json.loads(figures), None if error is None else json.loads(error))
            for name, state, attempt, worker, settings, figures, error in rows]


def _attempts(db: Connection, run: int) -> list[Attempt]:
    return [Attempt(*row) for row in db.execute(
        "SELECT attempt, worker, dispatched_s, started_s, ended_s, outcome, detail FROM attempts WHERE run = ? "
        "ORDER BY attempt", (run,))]


def _record(db: Connection, run: Run, *, results: bool) -> RunRecord:
    found = db.execute(f"SELECT metrics, error, {'result' if results else 'NULL'} FROM results WHERE run = ?",
                       (run.number,)).fetchone() or (None, None, None)
    metrics, error, result = (None if text is None else json.loads(text) for text in found)
    artifacts = {name: {"sha256": sha256, "bytes": size} for name, sha256, size in db.execute(
        "SELECT name, sha256, bytes FROM artifacts WHERE run = ? ORDER BY name", (run.number,))}
    return RunRecord(run, _attempts(db, run.number), metrics, error, result, artifacts)


def _counts(db: Connection) -> dict[State, int]:
    found = dict(db.execute("SELECT state, COUNT(*) FROM runs GROUP BY state").fetchall())
    return {state: found.get(state, 0) for state in State}
