"""Backup, restore and inspection of a state folder: the database, the bytes it names, and what stands beside them.

A backup is taken while the orchestrator runs.  The database is copied first, by SQLite's online backup, and then the
bytes: bytes that a copied row names were stored before the row was, and are removed only long after nothing names them.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from service.s3 import Bucket
from service.storage.accepted_marker import AcceptedMarker
from service.storage.blobs import BLOBS, blob_path
from service.storage.database import DATABASE, copy_database, integrity_of
from service.storage.records import StoreError
from service.storage.store import Store

BESIDE = ("attempt-secrets.key",)   # small files that a state needs


def backup(state: Path, target: Path, bucket: Bucket | None = None) -> dict[str, int]:
    """Copy a state to a new folder; {"files", "bytes"} of what was named; nothing of what is kept in a `bucket`.
    Raises StoreError, OSError."""
    if target.exists() and any(target.iterdir()):
        raise StoreError(f"{target}: is not empty; a backup goes to a new folder")
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    copy_database(state / DATABASE, target / DATABASE)
    store = Store(target, exclusive=True)     # counts what was accepted, into a marker of the copy's own
    try:
        named = store.named_bytes() if bucket is None else set()
    finally:
        store.close()
    for name in BESIDE:
        if (state / name).exists():
            shutil.copy2(state / name, target / name)
    total = 0
    for sha256 in sorted(named):
        source, copy = (blob_path(folder, sha256) for folder in (state, target))
        copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            os.link(source, copy)       # never written to again, so a second name is a copy
        except FileNotFoundError:
            raise StoreError(f"blobs: {sha256} is named by the database and not there; see doctor") from None
        except OSError:                 # another file system
            shutil.copy2(source, copy)
        total += copy.stat().st_size
    return {"files": len(named), "bytes": total}


def restore(source: Path, state: Path) -> None:
    """Make a backup the state, where there is none. Raises StoreError, OSError."""
    if not (source / DATABASE).is_file():
        raise StoreError(f"{source}: is no backup; it has no {DATABASE}")
    if state.exists() and any(path.name != "lock" for path in state.iterdir()):
        raise StoreError(f"state: {state} is not empty; move it away first")
    shutil.copytree(source, state, dirs_exist_ok=True, ignore=shutil.ignore_patterns("lock"))


def doctor(state: Path, bucket: Bucket | None = None) -> Iterator[str]:
    """What is wrong with a state, a sentence each with what to do. Raises StoreError where it cannot be opened, S3Error
    where the `bucket` that it is kept in cannot be asked."""
    for complaint in integrity_of(state / DATABASE):
        yield f"{DATABASE}: {complaint}: restore the last backup"
    store = Store(state, exclusive=False)
    try:
        named = store.named_bytes()
        accepted = store.count_accepted()
    finally:
        store.close()
    noted = AcceptedMarker(state).read()
    if noted > accepted:
        yield f"accepted: {noted} runs were accepted, and the database has {accepted}: restore the last backup"
    kept = {path.name: path for path in (state / BLOBS).glob("*/*")}
    for sha256 in sorted(named - kept.keys()):
        if bucket is not None and bucket.size(sha256) is not None:
            continue
        yield f"blobs: {sha256} is named by a clip or result and not there: upload the clip again, or rerun"
    for sha256 in sorted(named & kept.keys()):
        with open(kept[sha256], "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            yield (f"blobs: {sha256} is damaged (its bytes are {found}): upload the clip again, or rerun; what arrives "
                   "replaces it")
