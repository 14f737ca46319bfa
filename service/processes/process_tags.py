"""Finding and ending every process that a codec process has started, whatever group or session it went to.

All of them inherit a tag in their environment. Standard library only: the guard of a codec process uses it too.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable
from pathlib import Path

PROCESS_TAG = "NVC_CODEC_PROCESS"  # in the environment of a codec process, and so of all that it starts


def tagged(tag: bytes, candidates: Iterable[int] | None = None) -> list[int]:
    """The living processes that inherited the tag (a zombie has no environment any more)."""
    if candidates is None:
        candidates = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    found = []
    for pid in candidates:
        with contextlib.suppress(OSError):  # another user's, or gone
            if tag in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
    return found


def end_tagged(tag: bytes, seconds: float, besides: int = 0) -> None:
    """Send SIGKILL to every process with the tag but one, until none is left or the time is over."""
    until = time.monotonic() + seconds
    while (left := [pid for pid in tagged(tag) if pid != besides]) and time.monotonic() < until:
        for pid in left:
            with contextlib.suppress(OSError):  # ended by itself
                watch = os.pidfd_open(pid)
                try:
                    if tagged(tag, [pid]):  # still the one that was found: its number is pinned now
                        signal.pidfd_send_signal(watch, signal.SIGKILL)
                        select.select([watch], [], [], max(0.0, until - time.monotonic()))
                finally:
                    os.close(watch)
