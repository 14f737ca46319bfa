"""The outbox: what a worker has finished and its orchestrator has not yet acknowledged. Nothing in it is ever lost.

One folder for each attempt, `outbox/<run>.<attempt>/`, holds `message.json` and the artifacts that it names.  It comes
into being by one rename, after everything in it has been synced: so a folder in the outbox is whole, whenever the
power went.  It goes when the orchestrator has answered 2xx (it has the result) or 409 (it will never want it).  Until
then delivery is tried again, however long it takes, over restarts of either side.

One thread delivers, oldest first.  When the orchestrator cannot be reached everything waits, with pauses that double
up to `PAUSE_CAP_S`, each drawn at random from its upper half, so that workers which lost the same orchestrator do not
all return in one instant; `retry_now` ends the pause when there is reason to think that it is back.  When it refuses
one entry, only that one waits.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MESSAGE = "message.json"
DISPATCH = "dispatch.json"      # of which attempt, and whose
DONE = ".done"  # ends the name of a folder that has been delivered and is being removed
PAUSE_BASE_S = 0.25
PAUSE_CAP_S = 30.0


class Unreachable(Exception):
    """Raised by a deliverer when there is nobody to deliver to, now."""


class Refused(Exception):
    """Raised by a deliverer when this entry, now, was not taken."""


@dataclass
class Entry:
    """One attempt's end. ``folder`` is None when the disk would not take it: then it lives in memory only."""

    message: dict[str, Any]
    folder: Path | None
    tries: int = 0
    due: float = 0.0  # time.monotonic()
    trouble: str = ""  # why the last try failed

    @property
    def key(self) -> tuple[str, int]:
        return self.message["run"], self.message["attempt"]


Deliver = Callable[[Entry], None]


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def seal(folder: Path, message: dict[str, Any], target: Path) -> None:
    """Write the message into the folder, whose other files have been synced, and move it to ``target``, durably."""
    part = folder / (MESSAGE + ".part")
    with open(part, "w", encoding="utf-8") as file:
        json.dump(message, file, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    part.rename(folder / MESSAGE)
    sync_folder(folder)
    folder.rename(target)
    sync_folder(target.parent)


def could_not_store(message: dict[str, Any], error: OSError) -> dict[str, Any]:
    """An attempt's end that the disk would not take: a result becomes a failure, anything else stays as it is."""
    if message["state"] != "completed":
        return message
    lost = {"type": "disk-full", "detail": f"the worker could not store the result: {error}", "retry": True}
    return {**message, "state": "failed", "result": None, "artifacts": {}, "error": lost}


def damaged(folder: Path) -> dict[str, Any] | None:
    """The end of an attempt whose message cannot be read: it failed here, and may be tried again. None where the folder
    does not even say which attempt that was."""
    said = read_json(folder / DISPATCH)
    if said is None or not {"run", "attempt", "callback"} <= said.keys():
        return None
    return as_damaged({"traceparent": "", "secret": "", **said})


def as_damaged(message: dict[str, Any]) -> dict[str, Any]:
    """The end of the same attempt, where its result, or an artifact, is not what it was."""
    error = {"type": "result-damaged", "detail": "the result was damaged on the worker's disk", "retry": True}
    return {**message, "state": "failed", "result": None, "artifacts": {}, "error": error}


def read_sealed(folder: Path) -> dict[str, Any] | None:
    """The message of a sealed folder; None when it is none."""
    message = read_json(folder / MESSAGE)
    return message if message is not None and {"run", "attempt", "state", "artifacts"} <= message.keys() else None


def read_json(path: Path) -> dict[str, Any] | None:
    """An object in a file; None when there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


class Outbox:
    """See above. Safe from any thread."""

    def __init__(self, folder: Path, deliver: Deliver, log: Callable[..., None]) -> None:
        """Reads what an earlier life left. Raises OSError when the folder cannot be used."""
        self._folder = folder
        self._deliver = deliver
        self._log = log
        self._changed = threading.Condition()
        self._entries: list[Entry] = []
        self._pause_until = 0.0
        self._silent_tries = 0  # tries in a row that reached nobody
        self._closing = False
        folder.mkdir(parents=True, exist_ok=True)
        for found in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime):
            if found.name.endswith(DONE):
                shutil.rmtree(found, ignore_errors=True)
                continue
            message = read_sealed(found)
            if message is None:
                log("outbox-entry-unreadable", folder=str(found))
                message = damaged(found)
            if message is not None:     # else it is left where it is, for a person
                self._entries.append(Entry(message, found))
        self._thread = threading.Thread(target=self._live, name="outbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, message: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Take over a finished attempt: ``folder`` holds its artifacts and moves into the outbox.

        Returns the message that will be delivered.  A disk that will not take even the message loses the artifacts,
        not the fact: the message is then a failure for want of disk, to be tried elsewhere, and is kept in memory.
        """
        target = self._folder / f"{message['run']}.{message['attempt']}"
        try:
            seal(folder, message, target)
            entry = Entry(message, target)
        except OSError as error:
            self._log("outbox-disk-trouble", run=message["run"], attempt=message["attempt"], error=str(error))
            shutil.rmtree(folder, ignore_errors=True)
            entry = Entry(could_not_store(message, error), None)
        with self._changed:
            self._entries.append(entry)
            self._changed.notify_all()
        return entry.message

    def retry_now(self) -> None:
        """The other side has been heard of: try again now."""
        with self._changed:
            if self._silent_tries:
                self._silent_tries, self._pause_until = 0, 0.0
                self._changed.notify_all()

    def waiting(self) -> list[Entry]:
        """What has not been acknowledged, oldest first."""
        with self._changed:
            return list(self._entries)

    def __len__(self) -> int:
        with self._changed:
            return len(self._entries)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything has been delivered; False when the time was over first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._entries, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Stop delivering. What is left is found again at the next start."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _live(self) -> None:
        while (entry := self._next()) is not None:
            try:
                self._deliver(entry)
            except Unreachable as error:
                entry.trouble = str(error)
                with self._changed:
                    self._silent_tries += 1
                    self._pause_until = time.monotonic() + pause_s(self._silent_tries)
                    if self._silent_tries == 1:
                        self._log("outbox-unreachable", waiting=len(self._entries), reason=entry.trouble)
            except Refused as error:
                entry.trouble = str(error)
                entry.tries += 1
                entry.due = time.monotonic() + pause_s(entry.tries)
                self._log("outbox-refused", run=entry.key[0], attempt=entry.key[1], tries=entry.tries,
                          reason=entry.trouble)
            except Exception as error:  # a bug here must not end all deliveries
                entry.trouble = f"{type(error).__name__}: {error}"
                entry.tries += 1
                entry.due = time.monotonic() + pause_s(entry.tries)
                self._log("outbox-trouble", run=entry.key[0], attempt=entry.key[1], reason=entry.trouble)
            else:
                self._forget(entry)

    def _next(self) -> Entry | None:
        """The next entry that is due; waits for it. None when closing."""
        with self._changed:
            while not self._closing:
                now = time.monotonic()
                first = min(self._entries, key=lambda entry: entry.due, default=None)
                due = None if first is None else max(first.due, self._pause_until)
                if first is not None and due is not None and due <= now:
                    return first
                self._changed.wait(None if due is None else due - now)
            return None

    def _forget(self, entry: Entry) -> None:
        if entry.folder:
            done = entry.folder.with_name(entry.folder.name + DONE)
            try:
                entry.folder.rename(done)  # at once, or a power cut might leave a message without its artifacts
                shutil.rmtree(done)
            except OSError as error:  # it is delivered again at the next start, which changes nothing
                self._log("outbox-entry-stays", folder=str(entry.folder), error=str(error))
        with self._changed:
            self._silent_tries, self._pause_until = 0, 0.0
            self._entries.remove(entry)
            self._changed.notify_all()


def pause_s(tries: int, uniform: Callable[[float, float], float] = random.uniform) -> float:
    """Seconds to wait after this many failures in a row."""
    bound = min(PAUSE_CAP_S, PAUSE_BASE_S * 2.0 ** min(tries, 20))
    return uniform(bound / 2, bound)
