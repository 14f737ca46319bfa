"""Seeing a running service: JSON log lines, Prometheus metrics, and what systemd is told.

    log = Log()                                    # JSON lines on standard error
    log.info("run-placed", run=run_id, worker=name, trace_id=trace.trace_id)
    metrics = Metrics()
    accepted = metrics.counter("nvc_experiments_accepted_total", "Experiments accepted.", ("codec",))
    accepted.inc(codec="nvc")
    metrics.gauge("nvc_queued", "Runs queued.").track(store.count_queued)     # called at each scrape
    metrics.render()                               # text format 0.0.4
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TextIO

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Log:
    """One JSON object a line: time (UTC, RFC 3339), level, event, then the fields given.  Safe from any thread."""

    def __init__(self, stream: TextIO | None = None, *, level: str = "info", emf: str | None = None,
                 **always: Any) -> None:
        """level: debug, info, warning, error.  emf: a CloudWatch namespace; then log.emf() lines are written too.
        always: fields on every line, as service="orchestrator"."""
        self.stream = stream or sys.stderr

    def debug(self, event: str, **fields: Any) -> None: ...
    def info(self, event: str, **fields: Any) -> None: ...
    def warning(self, event: str, **fields: Any) -> None: ...
    def error(self, event: str, *, error: BaseException | None = None, **fields: Any) -> None:
        """With `error`, its type, text and traceback are added."""

    def emf(self, values: Mapping[str, tuple[float, str]], **dimensions: str) -> None:
        """A CloudWatch Embedded Metric Format line: {"SubmitLatency": (12.5, "Milliseconds")}; nothing when off."""


class Counter:
    """Only goes up.  `inc(2, codec="nvc")`."""

    def inc(self, amount: float = 1.0, **labels: str) -> None: ...


class Gauge:
    """A value now.  `set(3, worker="w1")`, or `track(function)` to ask at each scrape."""

    def set(self, value: float, **labels: str) -> None: ...
    def inc(self, amount: float = 1.0, **labels: str) -> None: ...
    def remove(self, **labels: str) -> None: ...

    def track(self, function: Callable[[], float | Iterable[tuple[Mapping[str, str], float]]]) -> None:
        """`function` returns the value, or (labels, value) pairs."""


class Histogram:
    """Counts in cumulative buckets with sum and count.  `observe(0.012, route="/health")`; seconds."""

    def observe(self, value: float, **labels: str) -> None: ...


class Metrics:
    """A registry; asking again for a name of the same kind gives the same object, else ValueError."""

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Counter:
        raise NotImplementedError

    def gauge(self, name: str, help: str, labels: Sequence[str] = ()) -> Gauge:
        raise NotImplementedError

    def histogram(self, name: str, help: str, labels: Sequence[str] = (),
                  buckets: Sequence[float] = BUCKETS_S) -> Histogram:
        raise NotImplementedError

    def render(self) -> str:
        """Prometheus text exposition format 0.0.4."""
        raise NotImplementedError


class Notifier:
    """Messages to systemd (sd_notify(3)); every method does nothing when NOTIFY_SOCKET is not set."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None: ...

    @property
    def watchdog_s(self) -> float | None:
        """Seconds between pings that systemd expects (half of WATCHDOG_USEC), None when off."""
        return None

    def ready(self, status: str = "") -> None: ...
    def status(self, text: str) -> None: ...
    def watchdog(self) -> None: ...
    def extend(self, seconds: float) -> None: ...
    def stopping(self, status: str = "") -> None: ...
    def reloading(self) -> None: ...


class Watchdog:
    """A thread that runs `checks` every notifier.watchdog_s and pings systemd only when all of them returned."""

    def __init__(self, notifier: Notifier, checks: Mapping[str, Callable[[], object]], log: Log) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


def listen_sockets(environ: Mapping[str, str] = os.environ, pid: int | None = None) -> list[socket.socket]:
    """Sockets passed by systemd (sd_listen_fds(3)): LISTEN_PID, LISTEN_FDS; [] when not socket-activated."""
    return []


_lock = threading.Lock()
