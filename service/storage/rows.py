"""Rows of the database as the records that the store hands out."""

import functools
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from service.jobs.states import State, timestamp
from service.storage.database import Connection
from service.storage.records import Attempt, Experiment, GridRun, KeyReused, Run, RunRecord, UnknownExperiment

IDEMPOTENCY_S = 24 * 3600.0     # that a key is honoured
PLACED = ("codec", "device", "timeout_s", "segments")      # settings that placing a run needs

EXPERIMENT = "SELECT number, id, state, label, document, accepted_s, finished_s, origin FROM experiments "
RUN = ("SELECT runs.number, runs.id, experiments.number, experiments.id, runs.state, attempt, tries, returns, worker, "
       "runs.finished_s, document, settings, clip, trace, whole, waits "
       "FROM runs JOIN experiments ON experiments.number = runs.experiment ")
# Three states and a limit. Each state by its index, so that what is beyond the limit is not read.
UNFINISHED = RUN + f"""WHERE runs.number IN ({" UNION ALL ".join(
    f"SELECT number FROM (SELECT number FROM runs WHERE state = ?{n} ORDER BY number LIMIT ?4)" for n in (1, 2, 3))})
    ORDER BY runs.number LIMIT ?4"""


def dump(value: Any) -> str | None:
    """JSON as it is stored; None stays NULL."""
    return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


@functools.lru_cache(maxsize=64)
def _parsed(document: str) -> dict[str, Any]:
    """An object that many rows have; not to be changed."""
    found: dict[str, Any] = json.loads(document)
    return found


def own_settings(settings: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's settings say that its experiment's document does not: all that is stored of them."""
    return {name: value for name, value in settings.items() if name not in document or document[name] != value}


def settings_of(document: str, own: str, fields: Collection[str] | None = None) -> dict[str, Any]:
    """A run's settings, of the two as they are stored; of them those of `fields`, where that is given."""
    common, given = _parsed(document), json.loads(own)
    if fields is None:
        return {**common, **given}
    return {field: given[field] if field in given else common[field] for field in fields
            if field in given or field in common}


def find_earlier(db: Connection, principal: str, key: str, body_sha256: str, now: float) -> str | None:
    """The experiment that `key` and body were answered with in the last `IDEMPOTENCY_S`. Raises KeyReused."""
    row = db.execute("SELECT body_sha256, experiment FROM idempotency WHERE principal = ? AND key = ? AND at_s >= ?",
                     (principal, key, now - IDEMPOTENCY_S)).fetchone()
    if row is None:
        return None
    if row[0] != body_sha256:
        raise KeyReused(f"this key was used for {row[1]} with another body")
    return row[1]


def find_run(db: Connection, run_id: str) -> Run:
    """Raises UnknownExperiment."""
    row = db.execute(RUN + "WHERE runs.id = ?", (run_id,)).fetchone()
    if row is None:
        raise UnknownExperiment(f"no run {run_id}")
    return run_of(row)


def find_experiment(db: Connection, experiment_id: str) -> tuple[int, State]:
    """Number and state. Raises UnknownExperiment."""
    row = db.execute("SELECT number, state FROM experiments WHERE id = ?", (experiment_id,)).fetchone()
    if row is None:
        raise UnknownExperiment(f"no experiment {experiment_id}")
    return row[0], State(row[1])


def run_of(row: tuple, fields: Collection[str] | None = None) -> Run:
    """Of a row of `RUN`. fields: the only settings that it is to have, where there may be very many runs."""
    (number, name, experiment, experiment_id, state, attempt, tries, returns, worker, finished_s, document, own, clip,
     trace, whole, waits) = row
    return Run(number, name, experiment, _one(experiment_id), State(state), attempt, tries, returns, worker, finished_s,
               settings_of(document, own, fields), _parsed(clip), _one(trace), whole, waits)


@functools.lru_cache(maxsize=64)
def _one(text: str) -> str:
    """The same text as one object, where many rows have it."""
    return text


def experiment_of(db: Connection, row: tuple, *, runs: Sequence[RunRecord] = (), grid: Sequence[GridRun] = ()
                  ) -> Experiment:
    """Of a row of `EXPERIMENT`, with what is given of its runs."""
    counts = dict(db.execute("SELECT state, COUNT(*) FROM runs WHERE experiment = ? AND whole IS NULL GROUP BY state",
                             (row[0],)))
    return Experiment(row[0], row[1], State(row[2]), row[3], json.loads(row[4]), row[5], row[6],
                      None if row[7] is None else json.loads(row[7]), {state: counts.get(state, 0) for state in State},
                      [*runs], [*grid])


def grid_of(db: Connection, which: int | str) -> list[GridRun]:
    """The runs of an experiment by its number, or one run by its id."""
    return _grid_runs(db, "experiment = ? AND whole IS NULL" if isinstance(which, int) else "id = ?", which)


def segments_of(db: Connection, run: Run) -> list[GridRun]:
    """The segments of a run, in order."""
    return _grid_runs(db, "whole = ?", run.number) if run.in_segments and run.whole is None else []


def _grid_runs(db: Connection, where: str, which: int | str) -> list[GridRun]:
    """A run whose segments are at work is shown as running."""
    rows = db.execute(
        "SELECT id, CASE WHEN waits > 0 AND state = 'queued' AND EXISTS (SELECT 1 FROM runs AS part WHERE part.whole = "
        "runs.number AND part.state IN ('dispatched', 'running')) THEN 'running' ELSE state END, "
        "attempt, (SELECT worker FROM attempts WHERE attempts.run = runs.number "
        "ORDER BY attempt DESC LIMIT 1), (SELECT document FROM experiments WHERE number = runs.experiment), settings, "
        "figures.document, results.error FROM runs "
        "LEFT JOIN figures ON figures.run = runs.number LEFT JOIN results ON results.run = runs.number "
        f"WHERE {where} ORDER BY runs.number", (which,))
    return [GridRun(name, State(state), attempt, worker, settings_of(document, own),
                    None if figures is None else json.loads(figures), None if error is None else json.loads(error))
            for name, state, attempt, worker, document, own, figures, error in rows]


def attempts_of(db: Connection, run: int) -> list[Attempt]:
    """Of a run, by its number, in order."""
    return [Attempt(*row) for row in db.execute(
        "SELECT attempt, worker, dispatched_s, started_s, ended_s, outcome, detail FROM attempts WHERE run = ? "
        "ORDER BY attempt", (run,))]


def record_of(db: Connection, run: Run, *, results: bool) -> RunRecord:
    """Everything known of a run; `results`: also the large result document."""
    found = db.execute(f"SELECT metrics, error, {'result' if results else 'NULL'} FROM results WHERE run = ?",
                       (run.number,)).fetchone() or (None, None, None)
    metrics, error, result = (None if text is None else json.loads(text) for text in found)
    artifacts = {name: {"sha256": sha256, "bytes": size} for name, sha256, size in db.execute(
        "SELECT name, sha256, bytes FROM artifacts WHERE run = ? ORDER BY name", (run.number,))}
    removed = {name: {"sha256": sha256, "bytes": size, "removed": timestamp(at_s)} for name, sha256, size, at_s in
               db.execute("SELECT name, sha256, bytes, at_s FROM removed WHERE run = ? ORDER BY name", (run.number,))}
    return RunRecord(run, attempts_of(db, run.number), metrics, error, result, artifacts, removed, segments_of(db, run))


def counts_of(db: Connection) -> dict[State, int]:
    """How many runs are in each state."""
    found = dict(db.execute("SELECT state, COUNT(*) FROM runs GROUP BY state").fetchall())
    return {state: found.get(state, 0) for state in State}
