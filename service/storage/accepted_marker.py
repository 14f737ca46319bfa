"""How many runs were ever accepted, beside the database: a database that has lost some of them is found at the start.

SQLite forgets the end of its write-ahead log where a byte of it is damaged, and an empty or older database opens as
well as any other; neither says a word.  So each submission, once it is committed, is counted in a small file as well.
The file may lag behind (it is not flushed to the disk), never run ahead: whatever it counts was on the disk before.
"""

import os
import threading
from pathlib import Path

from service.storage.records import StoreError

DIGITS = 20


class AcceptedMarker:
    """The file `accepted` of a state folder. Safe from any thread."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "accepted"
        self._lock = threading.Lock()
        self._value = -1

    def check(self, in_database: int) -> None:
        """Raises StoreError where the database has fewer runs than were accepted."""
        noted = self.read()
        if noted > in_database:
            raise StoreError(
                f"state: {noted} runs were accepted, and the database has {in_database} of them: it is damaged, or an "
                "older copy, or lacks its write-ahead log (-wal). Put back the whole state folder from a backup; to "
                f"go on without these runs, remove {self._path}")
        self.raise_to(in_database)

    def read(self) -> int:
        """How many runs the file counts; 0 without one. Raises StoreError."""
        try:
            return int(self._path.read_text() or 0)
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            raise StoreError(f"{self._path}: cannot be read: {error}") from error

    def raise_to(self, value: int) -> None:
        """So many are on the disk now. A file that cannot be written is tried again by the next submission."""
        with self._lock:
            if value <= self._value:
                return
            try:
                number = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
                try:
                    os.pwrite(number, f"{value:0{DIGITS}d}".encode(), 0)
                finally:
                    os.close(number)
                self._value = value
            except OSError:
                return
