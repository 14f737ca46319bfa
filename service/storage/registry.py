"""What the orchestrator remembers besides experiments: clips by name, how workers are reached, keys by their hash."""

import json
from collections.abc import Mapping
from typing import Any

from service.jobs.states import timestamp
from service.storage.database import Connection
from service.storage.records import ClipInUse, StoreError
from service.storage.store import Store, dump


class Registry:
    """The small tables of a store. Every write is on disk when the method returns."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # --- clips

    def put_clip(self, name: str, sha256: str, size: int, info: Mapping[str, Any], principal: str = "") -> None:
        """Give `size` bytes that are stored already a name; a later clip of the same name takes its place, but the
        earlier one stays known by its hash."""
        self._do("INSERT INTO clips (name, sha256, bytes, info, at_s, principal) VALUES (?, ?, ?, ?, ?, ?)",
                 name, sha256, size, dump(info), self._store.clock(), principal)

    def clips(self) -> list[dict[str, Any]]:
        """What each uploaded clip's name means now, by name: {"name", "sha256", "bytes", "uploaded", …info}."""
        return self._clips("number IN (SELECT MAX(number) FROM clips GROUP BY name) ORDER BY name")

    def clip(self, *, name: str = "", sha256: str = "") -> dict[str, Any] | None:
        """One uploaded clip, by name or by hash; None if there is none."""
        found = self._clips("name = ? ORDER BY number DESC LIMIT 1", name) if name else \
            self._clips("sha256 = ? ORDER BY number DESC LIMIT 1", sha256)
        return found[0] if found else None

    def delete_clip(self, name: str) -> int:
        """Forget all clips that were uploaded under this name; how many. Raises ClipInUse while an experiment is of one
        of them, for its sources are shown and its runs repeated."""

        def operation(db: Connection) -> int:
            users = [row[0] for row in db.execute(
                "SELECT DISTINCT experiments.id FROM runs JOIN experiments ON experiments.number = runs.experiment "
                "WHERE json_extract(runs.clip, '$.sha256') IN (SELECT sha256 FROM clips WHERE name = ?1 AND "
                "sha256 NOT IN (SELECT sha256 FROM clips WHERE name <> ?1)) LIMIT 4", (name,))]
            if users:
                raise ClipInUse(f"{name} is the clip of {', '.join(users[:3])}{', …' * (len(users) > 3)}; delete what "
                                "is of it first")
            return db.execute("DELETE FROM clips WHERE name = ?", (name,)).rowcount

        return self._store.write(operation)

    def forget_old_clips(self, before_s: float) -> int:
        """Forget what names meant before they were given to other clips, where that was before `before_s` and no run is
        of it; how many."""

        def operation(db: Connection) -> int:
            return db.execute(
                "DELETE FROM clips WHERE at_s < ? AND number NOT IN (SELECT MAX(number) FROM clips GROUP BY name) "
                "AND sha256 NOT IN (SELECT json_extract(clip, '$.sha256') FROM runs "
                "WHERE json_extract(clip, '$.sha256') IS NOT NULL)", (before_s,)).rowcount

        return self._store.write(operation)

    def _clips(self, condition: str, *values: str) -> list[dict[str, Any]]:
        with self._store.reading() as db:
            rows = db.execute(f"SELECT name, sha256, bytes, info, at_s FROM clips WHERE {condition}", values)
            return [{"name": name, "sha256": sha256, "bytes": size, "uploaded": timestamp(at_s),
                     **json.loads(info)} for name, sha256, size, info, at_s in rows]

    def referenced(self, sha256: str) -> bool:
        """Whether a clip or an artifact has these bytes."""
        with self._store.reading() as db:
            return db.execute("SELECT EXISTS (SELECT 1 FROM artifacts WHERE sha256 = ?1) OR "
                              "EXISTS (SELECT 1 FROM clips WHERE sha256 = ?1)", (sha256,)).fetchone()[0] == 1

    # --- workers

    def put_worker(self, name: str, document: Mapping[str, Any]) -> None:
        """Remember how a worker is reached, for the first seconds after a restart."""
        self._do("INSERT OR REPLACE INTO workers VALUES (?, ?)", name, dump(document))

    def forget_worker(self, name: str) -> None:
        self._do("DELETE FROM workers WHERE name = ?", name)

    def workers(self) -> dict[str, dict[str, Any]]:
        with self._store.reading() as db:
            return {name: json.loads(document) for name, document in
                    db.execute("SELECT name, document FROM workers ORDER BY name")}

    # --- keys

    def add_key(self, key_id: str, sha256: str, role: str, label: str, expires_s: float | None = None,
                quota: Mapping[str, float] | None = None) -> None:
        """Store a key by the hash of its token. Raises StoreError if the id is taken."""
        self._do("INSERT INTO keys (id, sha256, role, label, created_s, expires_s, revoked_s, quota) "
                 "VALUES (?, ?, ?, ?, ?, ?, NULL, ?)",
                 key_id, sha256, role, label, self._store.clock(), expires_s, dump(quota or {}))

    def quota(self, key_id: str) -> dict[str, Any]:
        """The bounds of its own that a key has; {} for the usual ones, and for what is no key of the store."""
        with self._store.reading() as db:
            row = db.execute("SELECT quota FROM keys WHERE id = ?", (key_id,)).fetchone()
            return {} if row is None else json.loads(row[0])

    def revoke_key(self, key_id: str) -> None:
        """Raises StoreError if no key of this id is in force."""
        if self._do("UPDATE keys SET revoked_s = ? WHERE id = ? AND revoked_s IS NULL",
                    self._store.clock(), key_id) == 0:
            raise StoreError(f"no key {key_id} is in force")

    def list_keys(self) -> list[dict[str, Any]]:
        """Every key: {"id", "sha256", "role", "label", "created_s", "expires_s", "revoked_s"}, oldest first."""
        names = ("id", "sha256", "role", "label", "created_s", "expires_s", "revoked_s")
        with self._store.reading() as db:
            return [dict(zip(names, row, strict=True)) for row in
                    db.execute(f"SELECT {', '.join(names)} FROM keys ORDER BY created_s, id")]

    def _do(self, statement: str, *values: Any) -> int:
        """Rows changed."""
        return self._store.write(lambda db: db.execute(statement, values).rowcount)
