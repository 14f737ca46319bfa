"""Everything that the clients of a trial saw, in order. It is written while things break and judged afterwards.

An entry is what one client saw at one moment; nothing in it comes from within the services. `about` by `what`:

    submitted      key                        a submission is about to be sent for the first time under this key
    acknowledged   key, id                    it was answered with 2xx
    refused        key, status                it was answered with 4xx, for good
    cancelled      id, status                 what a cancellation was answered with
    status         id, document               a status document
    ends           id, count                  how many ends its event stream tells of
    conservation   document                   what /conservation said
    listed         ids                        all pages of /experiments together
    artifact       id, name, wanted, found    the SHA-256 that the document gives, and that of the bytes
    started        run, attempt               a codec process was given this attempt (where a trial can see that)
    orphans        pids                       processes of the trial that outlived what started them

`began_s` and `ended_s` are on one monotonic clock, around the call: what was acknowledged before another call began
must be in what that call sees; of calls that overlap nothing follows.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """What was seen, between `began_s` and `ended_s`."""

    began_s: float
    ended_s: float
    what: str
    about: dict[str, Any]


class History:
    """A list that any thread may append to; with `path`, also a file of JSON lines, for people."""

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._path = path

    def note(self, what: str, began_s: float | None = None, **about: Any) -> None:
        """What was seen just now by a call that began at `began_s` (None: now)."""
        now = time.monotonic()
        entry = Entry(now if began_s is None else began_s, now, what, about)
        with self._lock:
            self._entries.append(entry)
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"began_s": entry.began_s, "ended_s": now, "what": what, **about}) + "\n")

    def __iter__(self) -> Iterator[Entry]:
        with self._lock:
            return iter(list(self._entries))

    def of(self, *kinds: str) -> list[Entry]:
        """The entries of some kinds, in order."""
        return [entry for entry in self if entry.what in kinds]
