"""What the state holds in bytes, what of it may go, and what each key has used of the service in a day."""

from dataclasses import dataclass

from service.storage.database import Connection
from service.storage.store import Store

DAY_S = 86_400.0
# Of experiments that have ended and have no tag `keep`, oldest first.
MAY_GO = ("experiments.finished_s IS NOT NULL AND experiments.number NOT IN "
          "(SELECT experiment FROM tags WHERE name = 'keep')")


@dataclass(frozen=True)
class Usage:
    """Of one key in the last 24 hours."""

    experiments: int
    runs: int
    bytes: int


class Retention:
    """Questions about a store's size, and removals that make it smaller."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def named_bytes(self) -> int:
        """Of all that clips and artifacts name, each file counted once."""
        with self._store.reading() as db:
            return int(db.execute(
                "SELECT COALESCE(SUM(bytes), 0) FROM (SELECT sha256, MAX(bytes) AS bytes FROM (SELECT sha256, bytes "
                "FROM artifacts UNION ALL SELECT sha256, bytes FROM clips) GROUP BY sha256)").fetchone()[0])

    def remove_reconstructions(self, need: int, at_most: int) -> tuple[int, int]:
        """Remove reconstructions, which the streams give again, until `need` bytes are named less, or `at_most` are
        removed; what they were stays known. How many, and their bytes."""

        def operation(db: Connection) -> tuple[int, int]:
            rows = db.execute(
                "SELECT artifacts.run, artifacts.name, artifacts.sha256, artifacts.bytes FROM artifacts "
                "JOIN runs ON runs.number = artifacts.run JOIN experiments ON experiments.number = runs.experiment "
                f"WHERE artifacts.name LIKE 'reconstruction.%' AND {MAY_GO} ORDER BY experiments.number LIMIT ?",
                (at_most,)).fetchall()
            chosen, size = [], 0
            for row in rows:
                if size >= need:
                    break
                chosen.append(row)
                size += row[3]
            now = self._store.clock()
            db.executemany("INSERT OR REPLACE INTO removed VALUES (?, ?, ?, ?, ?)", [(*row, now) for row in chosen])
            db.executemany("DELETE FROM artifacts WHERE run = ? AND name = ?", [row[:2] for row in chosen])
            return len(chosen), size

        return self._store.write(operation)

    def oldest(self, at_most: int) -> list[str]:
        """Experiments that may go, oldest first."""
        with self._store.reading() as db:
            return [row[0] for row in db.execute(
                f"SELECT id FROM experiments WHERE {MAY_GO} ORDER BY number LIMIT ?", (at_most,))]

    def used(self, principal: str) -> Usage:
        """By the key of this id. What has been deleted since does not count."""
        since = self._store.clock() - DAY_S
        with self._store.reading() as db:
            experiments, runs = db.execute(
                "SELECT COUNT(DISTINCT experiments.number), COUNT(runs.number) FROM experiments LEFT JOIN runs "
                "ON runs.experiment = experiments.number WHERE principal = ? AND accepted_s > ?",
                (principal, since)).fetchone()
            size = db.execute("SELECT COALESCE(SUM(bytes), 0) FROM clips WHERE principal = ? AND at_s > ?",
                              (principal, since)).fetchone()[0]
        return Usage(experiments, runs, size)
