"""SQLite in a folder of its own, one process each. The only file that imports sqlite3.

One thread writes. Callers hand it a function and wait; it takes all functions that are waiting, runs each inside a
savepoint of one transaction, commits once, and only then answers them all. So an answer means "on disk"
(`synchronous=FULL`: the write-ahead log is flushed before COMMIT returns), a hundred concurrent submits cost one flush,
and a function that raises undoes its own work only. Since functions run one after the other, each reads, decides and
writes without another in between.

Reads use connections of their own from a small pool; under WAL they see the last commit and never wait for the writer.
"""

import errno
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from service.storage.records import StateInUse, StoreError, StoreFull, TooNew

T = TypeVar("T")
Connection = sqlite3.Connection

DATABASE = "orchestrator.sqlite3"
MAX_GROUP = 512             # functions in one commit; beyond it the first ones would wait too long for their answer
MAX_READERS = 32            # idle read connections kept


class Database:
    """The database in `folder`. `exclusive` takes the folder's lock (a second taker raises StateInUse) and brings the
    schema up to date by `migrations`, a list of statements for each version; without it (a command beside a running
    service) the schema must be up to date, or the lock be free."""

    def __init__(self, folder: Path, migrations: Sequence[Sequence[str]], *, exclusive: bool = True) -> None:
        """Raises StoreError, StateInUse, TooNew."""
        self.folder = folder
        self._path = folder / DATABASE
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _take_lock(folder / "lock", must=exclusive)
        except OSError as error:
            raise StoreError(f"cannot use the state directory {folder}: {error}") from error
        try:
            self._writer = self._connect()
            _migrate(self._writer, self._path, migrations, allowed=self._lock is not None)
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
        # Before the first table is made; without effect on a database that has some.
        for pragma in ("auto_vacuum = INCREMENTAL", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            db.execute(f"PRAGMA {pragma}")
        return db

    def shrink(self, pages: int) -> int:
        """Give at most so many pages that hold nothing back to the disk; how many are left. Quick: others wait for this
        as for any write. (A database from before schema 5 keeps them, to be used again, until it is restored from a
        backup.) Raises StoreError."""

        def operation(db: Connection) -> int:
            db.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
            return int(db.execute("PRAGMA freelist_count").fetchone()[0])

        return self.write(operation)

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


def _migrate(db: Connection, path: Path, migrations: Sequence[Sequence[str]], *, allowed: bool) -> None:
    """Bring the schema up to date, one transaction for each version. Raises TooNew, StateInUse."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise TooNew(f"the database has schema version {version}; this program knows up to {len(migrations)}: {path} "
                     "was written by a later version, which is needed to open it")
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


def copy_database(source: Path, target: Path) -> None:
    """A copy of one moment, also of a database that is being written to (SQLite's online backup). Raises StoreError."""
    if not source.is_file():
        raise StoreError(f"{source}: there is no database")
    try:
        with closing(sqlite3.connect(source, timeout=5.0)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new, pages=256, sleep=0.005)     # in steps: submissions are committed in between
    except sqlite3.Error as error:
        raise StoreError(f"cannot copy {source}: {error}") from error


def integrity_of(path: Path) -> list[str]:
    """What SQLite finds wrong with a database; [] where it is sound. Raises StoreError where there is none."""
    if not path.is_file():
        raise StoreError(f"{path}: there is no database")
    try:
        with closing(sqlite3.connect(path, timeout=5.0)) as db:
            return [row[0] for row in db.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
    except sqlite3.Error as error:
        return [str(error)]
