"""Everything that is read from the truth on disk. Each method sees one moment, whatever is written meanwhile."""

import json
from collections.abc import Callable
from typing import Any

from service.jobs import states
from service.jobs.fields import is_grid
from service.jobs.states import State, timestamp
from service.storage.database import Database
from service.storage.records import Conservation, Experiment, GridRun, Run, StoredEvent, UnknownExperiment
from service.storage.rows import (
    EXPERIMENT,
    PLACED,
    RUN,
    UNFINISHED,
    attempts_of,
    counts_of,
    experiment_of,
    find_earlier,
    find_experiment,
    find_run,
    grid_of,
    record_of,
    run_of,
)


class Lookup(Database):
    """See above. `clock` gives Unix seconds."""

    clock: Callable[[], float]

    def experiment(self, experiment_id: str) -> Experiment:
        """The experiment and its runs; of a run of a grid, its experiment with that run alone.
        Raises UnknownExperiment."""
        with self.reading() as db:
            row = db.execute(EXPERIMENT + "WHERE id = ?", (experiment_id,)).fetchone()
            if row is None:
                try:
                    run = find_run(db, experiment_id)
                except UnknownExperiment:
                    raise UnknownExperiment(f"no experiment {experiment_id}") from None
                row = db.execute(EXPERIMENT + "WHERE number = ?", (run.experiment,)).fetchone()
                return experiment_of(db, row, runs=[record_of(db, run, results=True)])
            if is_grid(json.loads(row[4])):
                return experiment_of(db, row, grid=grid_of(db, row[0]))
            runs = db.execute(RUN + "WHERE runs.experiment = ? AND whole IS NULL", (row[0],)).fetchall()
            return experiment_of(db, row, runs=[record_of(db, run_of(run), results=True) for run in runs])

    def grid(self, experiment_id: str) -> list[GridRun]:
        """The runs of an experiment in order, or the one run of this id; none where nothing has it."""
        with self.reading() as db:
            row = db.execute("SELECT number FROM experiments WHERE id = ?", (experiment_id,)).fetchone()
            return grid_of(db, row[0]) if row else grid_of(db, experiment_id)

    def runs(self, experiment_id: str) -> list[Run]:
        """The same, as placing needs them."""
        with self.reading() as db:
            row = db.execute("SELECT number FROM experiments WHERE id = ?", (experiment_id,)).fetchone()
            found = db.execute(RUN + ("WHERE runs.experiment = ? AND whole IS NULL ORDER BY runs.number" if row else
                                       "WHERE runs.id = ?"), (row[0] if row else experiment_id,)).fetchall()
        return [run_of(each) for each in found]

    def run(self, run_id: str) -> Run:
        """One run. Raises UnknownExperiment."""
        with self.reading() as db:
            return find_run(db, run_id)

    def whole_of(self, segment: Run) -> Run:
        """The run that it is a segment of."""
        with self.reading() as db:
            return run_of(db.execute(RUN + "WHERE runs.number = ?", (segment.whole,)).fetchone())

    def segment_files(self, run: Run) -> list[tuple[str, dict[str, dict[str, Any]]]]:
        """Id of each segment of a run, in order, with its artifacts: name to {"sha256", "bytes"}."""
        with self.reading() as db:
            rows = db.execute("SELECT id, name, sha256, bytes FROM runs JOIN artifacts ON artifacts.run = runs.number "
                              "WHERE whole = ? ORDER BY runs.number, name", (run.number,)).fetchall()
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for segment, name, sha256, size in rows:
            found.setdefault(segment, {})[name] = {"sha256": sha256, "bytes": size}
        return list(found.items())

    def state(self, experiment_id: str) -> State:
        """The experiment's state. Raises UnknownExperiment."""
        with self.reading() as db:
            return find_experiment(db, experiment_id)[1]

    def at_workers(self) -> list[Run]:
        """Runs that a worker has been given."""
        with self.reading() as db:
            return [run_of(row) for row in db.execute(f"{RUN} WHERE runs.state IN (?, ?) ORDER BY runs.number",
                                                      (State.DISPATCHED, State.RUNNING))]

    def queued(self, after: int, limit: int) -> list[Run]:
        """Queued runs with numbers above `after`, oldest first; also those that wait for their segments. Their settings
        are as far as placing needs them (rows.PLACED)."""
        with self.reading() as db:
            return [run_of(row, PLACED) for row in db.execute(
                f"{RUN} WHERE runs.state = ? AND runs.number > ? ORDER BY runs.number LIMIT ?",
                (State.QUEUED, after, limit))]

    def unfinished_attempts(self) -> dict[str, tuple[State, int]]:
        """State and last attempt of every unfinished run that waits for no segment: what memory is compared with from
        time to time."""
        with self.reading() as db:
            rows = db.execute("SELECT id, state, attempt FROM runs WHERE state IN (?, ?, ?) AND waits = 0",
                              states.UNFINISHED)
            return {run_id: (State(state), attempt) for run_id, state, attempt in rows}

    def artifact(self, run_id: str, name: str) -> dict[str, Any] | None:
        """{"sha256", "bytes"} of one artifact; None if the run has none of this name. Raises UnknownExperiment."""
        with self.reading() as db:
            run = find_run(db, run_id)
            row = db.execute("SELECT sha256, bytes FROM artifacts WHERE run = ? AND name = ?",
                             (run.number, name)).fetchone()
        return None if row is None else {"sha256": row[0], "bytes": row[1]}

    def avoided(self, run_id: str) -> set[str]:
        """Workers on which an attempt of the run went wrong."""
        with self.reading() as db:
            rows = db.execute("SELECT DISTINCT attempts.worker FROM attempts JOIN runs ON runs.number = run "
                              "WHERE runs.id = ? AND outcome NOT IN ('busy', 'handed-back')", (run_id,))
            return {row[0] for row in rows}

    def page(self, *, state: State | None = None, tag: str | None = None, search: str | None = None, limit: int = 50,
             before: int | None = None) -> tuple[list[Experiment], int | None]:
        """Experiments newest first, each with its first run and without results, and where the next page begins
        (None: nowhere). `tag` is a name or "name:value"; `search` is words that all stand in an experiment's id, label
        or settings, in either case of letters; `before` is what the previous page returned."""
        where: list[tuple[str, list[Any]]] = [("1", [])]
        if state is not None:
            where.append(("state = ?", [state]))
        if tag is not None:
            name, colon, value = tag.partition(":")
            where.append((f"number IN (SELECT experiment FROM tags WHERE name = ?{' AND value = ?' if colon else ''})",
                          [name, value] if colon else [name]))
        for word in (search or "").split():
            where.append(("(instr(lower(id), ?) OR instr(lower(document), ?))", [word.lower()] * 2))
        if before is not None:
            where.append(("number < ?", [before]))
        conditions = " AND ".join(condition for condition, _ in where)
        values = [value for _, values in where for value in values]
        with self.reading() as db:
            rows = db.execute(f"{EXPERIMENT} WHERE {conditions} ORDER BY number DESC LIMIT ?",
                              (*values, limit + 1)).fetchall()
            found = []
            for row in rows[:limit]:
                first = run_of(db.execute(RUN + "WHERE runs.experiment = ? ORDER BY runs.number LIMIT 1",
                                        (row[0],)).fetchone())
                found.append(experiment_of(db, row, runs=[record_of(db, first, results=False)]))
        return found, found[-1].number if len(rows) > limit else None

    def events(self, experiment_id: str, after: int = 0, limit: int = 500) -> tuple[list[StoredEvent], State]:
        """Events of an experiment, or of one run of a grid, with seq above `after`, oldest first, and its state at that
        moment. Raises UnknownExperiment."""
        with self.reading() as db:
            only: tuple[int, ...] = ()
            try:
                number, state = find_experiment(db, experiment_id)
            except UnknownExperiment:
                run = find_run(db, experiment_id)
                number, state, only = run.experiment, run.state, (run.number,)
            rows = db.execute("SELECT seq, kind, at_s, data FROM events WHERE experiment = ? AND seq > ? "
                              f"{'AND run = ? ' if only else ''}ORDER BY seq LIMIT ?",
                              (number, after, *only, limit)).fetchall()
        return [StoredEvent(row[0], row[1], row[2], json.loads(row[3])) for row in rows], state

    def counts(self) -> dict[State, int]:
        """How many runs are in each state."""
        with self.reading() as db:
            return counts_of(db)

    def waiting(self) -> tuple[int, int]:
        """How many runs are queued, and how many are at workers; quick however many have ended."""
        with self.reading() as db:
            found = dict(db.execute("SELECT state, COUNT(*) FROM runs WHERE state IN (?, ?, ?) GROUP BY state",
                                    states.UNFINISHED).fetchall())
        return found.get(State.QUEUED, 0), found.get(State.DISPATCHED, 0) + found.get(State.RUNNING, 0)

    def conservation(self, limit: int = 1000) -> Conservation:
        """What was accepted and where it is now, all of one moment; at most `limit` unfinished runs."""
        with self.reading() as db:
            counters = dict(db.execute("SELECT name, value FROM counters").fetchall())
            refused = db.execute("SELECT at_s, run, attempt, what, reason FROM refused ORDER BY number DESC LIMIT 100")
            return Conservation(
                counters["accepted"], counters["segments"], counters["deleted"], counts_of(db),
                [(run, next(reversed(attempts_of(db, run.number)), None) if run.attempt else None) for run in
                 [run_of(row) for row in db.execute(UNFINISHED, (*states.UNFINISHED, limit)).fetchall()]],
                [{"at": timestamp(at_s), "run": run, "attempt": attempt, "what": what, "reason": reason}
                 for at_s, run, attempt, what, reason in refused])

    def named_bytes(self) -> set[str]:
        """The SHA-256 of everything that a clip or an artifact names."""
        with self.reading() as db:
            return {row[0] for row in db.execute("SELECT sha256 FROM artifacts UNION SELECT sha256 FROM clips")}

    def submitted_by(self, experiment_id: str) -> str:
        """The id of the key that an experiment, or the experiment of a run, was submitted with; "" without one.
        Raises UnknownExperiment."""
        with self.reading() as db:
            row = db.execute("SELECT principal FROM experiments WHERE id = ?", (experiment_id,)).fetchone()
            if row is None:
                run = find_run(db, experiment_id)
                row = db.execute("SELECT principal FROM experiments WHERE number = ?", (run.experiment,)).fetchone()
            return str(row[0])

    def ended_before(self, moment_s: float, limit: int) -> list[str]:
        """Experiments that ended before `moment_s` and have no tag `keep`, oldest first."""
        with self.reading() as db:
            rows = db.execute("SELECT id FROM experiments WHERE finished_s < ? AND number NOT IN "
                              "(SELECT experiment FROM tags WHERE name = 'keep') ORDER BY number LIMIT ?",
                              (moment_s, limit)).fetchall()
        return [row[0] for row in rows]

    def earlier(self, principal: str, key: str, body_sha256: str) -> str | None:
        """The experiment that the same key and body were answered with before. Raises KeyReused."""
        with self.reading() as db:
            return find_earlier(db, principal, key, body_sha256, self.clock())
