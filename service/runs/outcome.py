"""How a run ended at a worker, as the orchestrator and people read it."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """How a task ended. ``state``: completed, failed or cancelled; ``error``: {"type", "detail", "retry"}."""

    state: str
    result: dict[str, Any] | None = None
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: dict[str, Any] | None = None


def failed(slug: str, detail: str, *, retry: bool) -> Outcome:
    return Outcome("failed", error={"type": slug, "detail": detail, "retry": retry})


def handed_back(why: str = "the worker is stopping") -> Outcome:
    """The worker gives the run back: it costs the run no try."""
    return failed("handed-back", f"{why}; the run is handed back", retry=True)


def last_words(tail: str) -> str:
    """The line of a codec process's output that says most about its end."""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    fatal = next((index for index, line in enumerate(lines) if line.startswith("Fatal Python error")), None)
    if fatal is None:
        return lines[-1][:300] if lines else ""
    frame = next((line for line in lines[fatal:] if line.startswith("File ")), "")  # the innermost, see faulthandler
    return f"{lines[fatal]} {frame}".strip()[:300]


def how_it_died(status: int, tail: str) -> Outcome:
    """What a codec process's end by itself means for its run."""
    words = last_words(tail)
    said = f"; its last words: {words}" if words else ""
    if status == -signal.SIGKILL:
        return failed("out-of-memory", "the codec process was killed from outside (SIGKILL), most likely by the kernel "
                                       f"for want of memory{said}", retry=True)
    how = f"died of {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
    return failed("codec-crashed", f"the codec process {how}{said}", retry=True)
