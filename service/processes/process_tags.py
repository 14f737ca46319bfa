"""Finding and ending every process that a codec process has started, whatever group or session it went to.

All of them inherit a mark in their environment. Standard library only: the guard of a codec process uses it too.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable
from pathlib import Path

MARK = "NVC_CODEC_PROCESS"  # in the environment of a codec process, and so of all that it starts


def marked(mark: bytes, candidates: Iterable[int] | None = None) -> list[int]:
    """The living processes that inherited the mark (a zombie has no environment any more)."""
    if candidates is None:
        candidates = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    found = []
    for pid in candidates:
        with contextlib.suppress(OSError):  # another user's, or gone
            if mark in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
    return found


def end_marked(mark: bytes, seconds: float, besides: int = 0) -> None:
    """Send SIGKILL to whoever bears the mark, but for one process, until none is left or the time is over."""
    until = time.monotonic() + seconds
    while (left := [pid for pid in marked(mark) if pid != besides]) and time.monotonic() < until:
        for pid in left:
            with contextlib.suppress(OSError):  # ended by itself
                watch = os.pidfd_open(pid)
                try:
                    if marked(mark, [pid]):  # still the one that was found: its number is pinned now
                        signal.pidfd_send_signal(watch, signal.SIGKILL)
                        select.select([watch], [], [], max(0.0, until - time.monotonic()))
                finally:
                    os.close(watch)
