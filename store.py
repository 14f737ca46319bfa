"""The truth on disk: experiments, runs, attempts, events. The only file that imports sqlite3.

Its tables are in control/schema.py, what it gives back in control/records.py.

How it writes
=============
One thread writes. Callers hand it a function and wait; it takes all functions that are waiting, runs each inside a
savepoint of one transaction, commits once, and only then answers them all. So an answer means "on disk"
(`synchronous=FULL`: the write-ahead log is flushed before COMMIT returns), a hundred concurrent submits cost one flush,
and a function that raises undoes its own work only. Since functions run one after the other, each reads, decides and
writes without another in between; the compare-and-set on (run, attempt, state) stays nevertheless, for it is what makes
a second writer harmless.

Reads use connections of their own from a small pool; under WAL they see the last commit and never wait for the writer.

How a run moves
===============
`_move` is the only place that changes a run's state. It asks `jobs.next_state`, applies the answer by compare-and-set,
closes or opens the attempt's row, appends the events that clients replay, and brings the experiment's own state up to
date. A terminal move writes one row of `results` (primary key: the run), so a second one cannot exist.

The number of accepted runs is counted apart, at submission; that the states add up to it is therefore a check and no
tautology (`conservation`).
"""

import errno
import fcntl
import json
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import jobs
from control.records import (
    Attempt,
    Conservation,
    Experiment,
    Finished,
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
)
from control.schema import MIGRATIONS
from jobs import Blame, Event, State

T = TypeVar("T")
Connection = sqlite3.Connection

IDEMPOTENCY_S = 24 * 3600.0
MAX_GROUP = 512             # functions in one commit; beyond it the first ones would wait too long for their answer
MAX_REFUSED = 1000          # stale messages remembered
MAX_READERS = 32            # idle read connections kept


class Store:
    """The database in `folder`. `exclusive` takes the folder's lock (a second taker raises StateInUse) and brings the
    schema up to date; without it (a command beside a running service) the schema must be up to date, or the lock be
    free. `clock` gives Unix seconds."""

    def __init__(self, folder: Path, *, exclusive: bool = True, clock: Callable[[], float] = time.time,
                 migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
        self.clock = clock
        self.folder = folder
        self._path = folder / "orchestrator.sqlite3"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _take_lock(folder / "lock", must=exclusive)
        except OSError as error:
            raise StoreError(f"cannot use the state directory {folder}: {error}") from error
        try:
            self._writer = self._connect()
            _migrate(self._writer, migrations, allowed=self._lock is not None)
        except (sqlite3.Error, StoreError) as error:
            self._release_lock()
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"cannot open {self._path}: {error}") from error
        if not exclusive:
            self._release_lock()
        self._readers: queue.LifoQueue[Connection] = queue.LifoQueue(MAX_READERS)
        self._inbox: queue.SimpleQueue[tuple[Callable[[Connection], Any], Future] | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._write_groups, name="store-writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what waits to be written, then let go of the files."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._inbox.put(None)
        self._thread.join()
        self._writer.close()
        with suppress(queue.Empty):
            while True:
                self._readers.get_nowait().close()
        self._release_lock()

    # --- submitting ------------------------------------------------------------------------------------------------

    def submit(self, document: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], *,
               clips: Sequence[Mapping[str, Any]] = (), principal: str = "", key: str | None = None,
               body_sha256: str = "", trace: str = "") -> tuple[str, list[Run]]:
        """Accept an experiment: its id and its runs; or the earlier id and no runs, where the same `principal` sent
        the same `key` and body in the last 24 hours. `clips` holds each run's clip (see Run), as far as it is not
        simply a name. Raises KeyReused for the same key with another body."""

        def operation(db: Connection) -> tuple[str, list[Run]]:
            now = self.clock()
            if key is not None:
                db.execute("DELETE FROM idempotency WHERE at_s < ?", (now - IDEMPOTENCY_S,))
                earlier = _earlier(db, principal, key, body_sha256, now)
                if earlier is not None:
                    return earlier, []
            number, experiment_id = _insert_experiment(db, document, now, principal, trace)
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
            # Progress is of no use once it is over, and would grow the history without end.
            db.execute("DELETE FROM events WHERE run = ? AND kind = 'progress'", (run.number,))
            _append_event(db, run, "result", now, {"run": run.id, "status": target, "attempt": run.attempt,
                                                   "metrics": metrics, "error": error})
        _refresh_experiment(db, run.experiment, now)
        return moved

    # --- reading ---------------------------------------------------------------------------------------------------

    def experiment(self, experiment_id: str) -> Experiment:
        """The experiment and its runs. Raises UnknownExperiment."""
        with self.reading() as db:
            row = db.execute(_EXPERIMENT + "WHERE id = ?", (experiment_id,)).fetchone()
            if row is None:
                raise UnknownExperiment(f"no experiment {experiment_id}")
            runs = db.execute(_RUN + "WHERE runs.experiment = ? ORDER BY runs.number", (row[0],)).fetchall()
            return _experiment(row, [_record(db, _run(run), results=True) for run in runs])

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
                found.append(_experiment(row, [_record(db, first, results=False)]))
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

    # --- the engine ------------------------------------------------------------------------------------------------

    def pulse(self) -> None:
        """Commit something, to show that committing works. Raises StoreError, StoreFull."""
        self.write(lambda db: db.execute("INSERT OR REPLACE INTO pulse VALUES (1, ?)", (self.clock(),)).rowcount)

    def write(self, operation: Callable[[Connection], T]) -> T:
        """Run `operation` in the writer's thread; its value, once it is on disk. Raises what it raises, StoreError,
        StoreFull."""
        return self._enqueue(operation).result()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection inside a read transaction: every statement in it sees the same commit. Raises StoreError."""
        if self._closed:
            raise StoreError("the store is closed")
        try:
            db = self._readers.get_nowait()
        except queue.Empty:
            db = self._connect()
        try:
            db.execute("BEGIN")
            yield db
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self._path}: {error}") from error
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
            try:
                self._readers.put_nowait(db)
            except queue.Full:
                db.close()

    def _connect(self) -> Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, cached_statements=256,
                             timeout=5.0)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            db.execute(f"PRAGMA {pragma}")
        return db

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _enqueue(self, operation: Callable[[Connection], T]) -> "Future[T]":
        answer: Future[T] = Future()
        with self._gate:
            if self._closed:
                raise StoreError("the store is closed")
            self._inbox.put((operation, answer))
        return answer

    def _write_groups(self) -> None:
        """The writer thread: one commit for all that waits."""
        closing = False
        while not closing:
            group = [self._inbox.get()]
            with suppress(queue.Empty):
                while len(group) < MAX_GROUP:
                    group.append(self._inbox.get_nowait())
            closing = None in group
            self._write_group([item for item in group if item is not None])

    def _write_group(self, group: Sequence[tuple[Callable[[Connection], Any], Future]]) -> None:
        """Each operation in a savepoint of its own, then one commit, then the answers."""
        outcomes: list[tuple[Future, Any, Exception | None]] = []
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            for operation, answer in group:
                self._writer.execute("SAVEPOINT one")
                try:
                    outcomes.append((answer, operation(self._writer), None))
                except sqlite3.IntegrityError as error:
                    self._writer.execute("ROLLBACK TO one")
                    outcomes.append((answer, None, StoreError(f"refused by the schema: {error}")))
                except sqlite3.Error:
                    raise   # the disk or the database: it concerns the whole group
                except Exception as error:
                    self._writer.execute("ROLLBACK TO one")
                    outcomes.append((answer, None, error))
                self._writer.execute("RELEASE one")
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
            full = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
            outcomes = [(answer, None, (StoreFull if full else StoreError)(f"cannot write {self._path}: {error}"))
                        for _, answer in group]
        for answer, value, failure in outcomes:
            if failure is None:
                answer.set_result(value)
            else:
                answer.set_exception(failure)


# --- rows ------------------------------------------------------------------------------------------------------------

_EXPERIMENT = "SELECT number, id, state, label, document, accepted_s, finished_s FROM experiments "
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


def _insert_experiment(db: Connection, document: Mapping[str, Any], now: float, principal: str, trace: str
                       ) -> tuple[int, str]:
    """Number and id; the id is drawn again while another experiment has it."""
    while True:
        experiment_id = jobs.new_experiment_id(now)
        added = db.execute(
            "INSERT OR IGNORE INTO experiments (id, state, label, document, accepted_s, principal, trace) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (experiment_id, State.QUEUED, document["label"], dump(document), now, principal, trace))
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


def _experiment(row: tuple, runs: list[RunRecord]) -> Experiment:
    return Experiment(row[0], row[1], State(row[2]), row[3], json.loads(row[4]), row[5], row[6], runs)


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


# --- the folder ------------------------------------------------------------------------------------------------------


def _take_lock(path: Path, *, must: bool) -> int | None:
    """The lock's descriptor, or None if another process holds it and it need not be had. The kernel lets go of it
    when the process ends, however it ends. Raises StateInUse, OSError."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(handle, 20).decode("ascii", "replace").strip() or "unknown"
        os.close(handle)
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        if not must:
            return None
        raise StateInUse(f"the state directory {path.parent} is in use by process {holder}") from None
    if must:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle


def _migrate(db: Connection, migrations: Sequence[Sequence[str]], *, allowed: bool) -> None:
    """Bring the schema up to date, one transaction for each version. Raises TooNew, StateInUse."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise TooNew(f"the database has schema version {version}; this program knows up to {len(migrations)}")
    if version < len(migrations) and not allowed:
        raise StateInUse(f"the database has schema version {version} and is in use by an older program")
    for target, statements in enumerate(migrations[version:], start=version + 1):
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {target}")
            db.execute("COMMIT")
        except sqlite3.Error:
            db.execute("ROLLBACK")
            raise
