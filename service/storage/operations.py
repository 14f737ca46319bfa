"""Parts of the store's operations: rows inserted and brought up to date, in a transaction that the store has begun."""

from collections.abc import Mapping
from typing import Any

from service.jobs import states
from service.jobs.states import TERMINAL, State, experiment_state, new_experiment_id
from service.storage.database import Connection
from service.storage.records import Run, Stale, UnknownExperiment
from service.storage.rows import dump, find_run, own_settings


def insert_experiment(db: Connection, document: Mapping[str, Any], now: float, principal: str, trace: str,
                       origin: Mapping[str, str] | None) -> tuple[int, str]:
    """Number and id; the id is drawn again while another experiment has it."""
    while True:
        experiment_id = new_experiment_id(now)
        added = db.execute(
            "INSERT OR IGNORE INTO experiments (id, state, label, document, accepted_s, principal, trace, origin) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (experiment_id, State.QUEUED, document["label"], dump(document), now, principal, trace, dump(origin)))
        if added.rowcount == 1:
            number = int(added.lastrowid or 0)
            db.executemany("INSERT INTO tags VALUES (?, ?, ?)",
                           [(name, value, number) for name, value in document["tags"].items()])
            return number, experiment_id


def insert_run(db: Connection, experiment: int, experiment_id: str, run_id: str, settings: Mapping[str, Any],
                document: Mapping[str, Any], clip: Mapping[str, Any], now: float, trace: str,
                whole: int | None = None) -> list[Run]:
    """The run, and its segments if it is cut."""
    of = 0 if whole is not None else settings.get("segments") or 0
    own = own_settings(settings, document)
    added = db.execute("INSERT INTO runs (id, experiment, state, attempt, tries, returns, settings, clip, whole, "
                       "waits) VALUES (?, ?, ?, 0, 0, 0, ?, ?, ?, ?)",
                       (run_id, experiment, State.QUEUED, dump(own), dump(clip), whole, of))
    run = Run(int(added.lastrowid or 0), run_id, experiment, experiment_id, State.QUEUED, 0, 0, 0, None, None,
              dict(settings), dict(clip), trace, whole, of)
    append_event(db, run, "state", now, {"run": run_id, "status": State.QUEUED, "attempt": 0, "worker": None,
                                          "reason": None})
    made = [run]
    for index in range(of):
        made += insert_run(db, experiment, experiment_id, states.segment_id(run_id, index),
                            {**settings, "segment": {"index": index, "of": of}}, document, clip, now, trace,
                            run.number)
    return made


def append_event(db: Connection, run: Run, kind: str, at_s: float, data: Mapping[str, Any]) -> None:
    db.execute("INSERT INTO events (experiment, run, kind, at_s, data) VALUES (?, ?, ?, ?, ?)",
               (run.experiment, run.number, kind, at_s, dump(data)))


def refresh_experiment(db: Connection, experiment: int, now: float) -> None:
    """Its state follows from those of its runs; segments count while they are at workers."""
    rows = db.execute("SELECT DISTINCT state FROM runs WHERE experiment = ?1 AND whole IS NULL UNION SELECT 'running' "
                      "WHERE EXISTS (SELECT 1 FROM runs WHERE experiment = ?1 AND whole > 0 "
                      "AND state IN ('dispatched', 'running'))", (experiment,))
    state = experiment_state([State(row[0]) for row in rows])
    db.execute("UPDATE experiments SET state = ?, finished_s = ? WHERE number = ?",
               (state, now if state in TERMINAL else None, experiment))


def current(db: Connection, run_id: str, attempt: int,
             states: tuple[State, ...] = (State.DISPATCHED, State.RUNNING), repeat_of: State | None = None) -> Run:
    """The run, if `attempt` is its last one and it is in one of `states` (or in `repeat_of`, when the message says
    again what is recorded). This is the fence. Raises UnknownExperiment, Stale."""
    try:
        run = find_run(db, run_id)
    except UnknownExperiment:
        if db.execute("SELECT EXISTS (SELECT 1 FROM deleted WHERE run = ?)", (run_id,)).fetchone()[0]:
            raise Stale(f"attempt {attempt} of {run_id} is over; the run was deleted") from None
        raise
    if run.attempt != attempt:
        raise Stale(f"attempt {attempt} of {run_id} is over; the last one granted is {run.attempt}")
    if run.state not in states and run.state is not repeat_of:
        raise Stale(f"attempt {attempt} of {run_id} is over; the run is {run.state}")
    return run
