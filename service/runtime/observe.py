"""Observing a running service: JSON log lines, Prometheus metrics, messages to systemd.

    log = Log(service="orchestrator")              # JSON lines on standard error
    log.info("run-placed", run=run_id, worker=name, trace_id=trace.trace_id)
    metrics = Metrics()
    accepted = metrics.counter("nvc_experiments_accepted_total", "Experiments accepted.", ("codec",))
    accepted.inc(codec="nvc")
    metrics.gauge("nvc_queued", "Runs queued.").track(store.count_queued)     # called at each scrape
    metrics.render()                               # text format 0.0.4
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO, TypeVar

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LEVELS = ("debug", "info", "warning", "error")


class Log:
    """One JSON object a line: time (UTC, RFC 3339), level, event, then the fields given.  Safe from any thread."""

    def __init__(self, stream: TextIO | None = None, *, level: str = "info", emf: str | None = None,
                 **always: Any) -> None:
        """level: debug, info, warning, error.  emf: a CloudWatch namespace; then log.emf() lines are written too.
        always: fields on every line, as service="orchestrator"."""
        self._stream = stream
        self._least = _LEVELS.index(level)
        self._namespace = emf
        self._always = always
        self._lock = threading.Lock()

    @property
    def reports(self) -> bool:
        """Whether emf() writes anything."""
        return self._namespace is not None

    def debug(self, event: str, **fields: Any) -> None:
        """What only someone looking for a fault reads."""
        self._write("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """A request, a change of state."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Something is off and was dealt with."""
        self._write("warning", event, fields)

    def error(self, event: str, *, error: BaseException | None = None, **fields: Any) -> None:
        """With `error`, its type, text and traceback are added."""
        if error is not None:
            fields |= {"error": f"{type(error).__name__}: {error}",
                       "traceback": "".join(traceback.format_exception(error))}
        self._write("error", event, fields)

    def emf(self, values: Mapping[str, tuple[float, str]], **dimensions: str) -> None:
        """A CloudWatch Embedded Metric Format line: {"SubmitLatency": (12.5, "Milliseconds")}; nothing when off."""
        if self._namespace is None:
            return
        described = [{"Name": name, "Unit": unit} for name, (_, unit) in values.items()]
        block = {"Namespace": self._namespace, "Dimensions": [list(dimensions)], "Metrics": described}
        self._emit({"_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [block]}, **dimensions,
                    **{name: value for name, (value, _) in values.items()}})

    def _write(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        if _LEVELS.index(level) >= self._least:
            moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            self._emit({"time": moment, "level": level, "event": event, **self._always, **fields})

    def _emit(self, document: Mapping[str, Any]) -> None:
        line = json.dumps(document, default=str) + "\n"  # ASCII only: no terminal or log reader is surprised
        stream = self._stream or sys.stderr
        try:
            with self._lock:
                stream.write(line)
                stream.flush()
        except (OSError, ValueError):  # the reader of the log is gone or the disk is full: the service goes on
            return


class _Metric:
    """Values by label values, and how they are written."""

    kind = "untyped"
    rises = True  # what counts is by how much, since the last look

    def __init__(self, name: str, help: str, labels: Sequence[str]) -> None:
        self.name, self.help, self.labels = name, help, tuple(labels)
        self._lock = threading.Lock()
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def _key(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        if len(labels) != len(self.labels):
            raise ValueError(f"metric {self.name}: labels {sorted(labels)} given, {list(self.labels)} expected")
        try:
            return tuple(str(labels[name]) for name in self.labels)
        except KeyError as missing:
            raise ValueError(f"metric {self.name}: label {missing} is missing") from None

    def _add(self, amount: float, labels: Mapping[str, str]) -> None:
        key = self._key(labels)
        with self._lock:
            self._values[key] = self._values.get(key, 0.0) + amount

    def readings(self) -> list[tuple[str, tuple[str, ...], float]]:
        """(name, label values, value) now; of a histogram its _count and _sum."""
        with self._lock:
            return [(self.name, key, value) for key, value in self._values.items()]

    def samples(self) -> list[str]:
        """The lines of this metric, without HELP and TYPE."""
        return [_sample(name, self.labels, key, value) for name, key, value in self.readings()]


class Counter(_Metric):
    """Only goes up.  `inc(2, codec="nvc")`."""

    kind = "counter"

    def inc(self, amount: float = 1.0, **labels: str) -> None:
        """Add; ValueError for a negative amount or wrong labels."""
        if amount < 0:
            raise ValueError(f"counter {self.name}: {amount} would lower it")
        self._add(amount, labels)


class Gauge(_Metric):
    """A value now.  `set(3, worker="w1")`, or `track(function)` to ask at each scrape."""

    kind = "gauge"
    rises = False
    _function: Callable[[], float | Iterable[tuple[Mapping[str, str], float]]] | None = None

    def set(self, value: float, **labels: str) -> None:
        """Replace the value."""
        key = self._key(labels)
        with self._lock:
            self._values[key] = float(value)

    def inc(self, amount: float = 1.0, **labels: str) -> None:
        """Add; `amount` may be negative."""
        self._add(amount, labels)

    def remove(self, **labels: str) -> None:
        """Forget a label set, as of a worker that is gone."""
        with self._lock:
            self._values.pop(self._key(labels), None)

    def track(self, function: Callable[[], float | Iterable[tuple[Mapping[str, str], float]]]) -> None:
        """`function` returns the value, or (labels, value) pairs."""
        self._function = function

    def readings(self) -> list[tuple[str, tuple[str, ...], float]]:
        """As of any metric; a tracked one is asked now."""
        if self._function is None:
            return super().readings()
        found = self._function()
        pairs = [({}, found)] if isinstance(found, int | float) else list(found)
        return [(self.name, self._key(labels), value) for labels, value in pairs]


class Histogram(_Metric):
    """Counts in cumulative buckets with sum and count.  `observe(0.012, route="/health")`; seconds."""

    kind = "histogram"

    def __init__(self, name: str, help: str, labels: Sequence[str], buckets: Sequence[float]) -> None:
        super().__init__(name, help, labels)
        self.buckets = tuple(sorted(float(b) for b in buckets))
        empty = [0] * (len(self.buckets) + 1)
        self._counts: dict[tuple[str, ...], list[int]] = {} if labels else {(): empty}

    def observe(self, value: float, **labels: str) -> None:
        """Count one value."""
        key = self._key(labels)
        place = next((i for i, bound in enumerate(self.buckets) if value <= bound), len(self.buckets))
        with self._lock:
            counts = self._counts.setdefault(key, [0] * (len(self.buckets) + 1))
            counts[place] += 1
            self._values[key] = self._values.get(key, 0.0) + value

    def readings(self) -> list[tuple[str, tuple[str, ...], float]]:
        """How many values, and their sum."""
        with self._lock:
            counts = [(f"{self.name}_count", key, float(sum(counts))) for key, counts in self._counts.items()]
            return counts + [(f"{self.name}_sum", key, self._values.get(key, 0.0)) for key in self._counts]

    def samples(self) -> list[str]:
        """Buckets (each counting all below it), sum and count."""
        with self._lock:
            state = [(key, list(counts), self._values[key]) for key, counts in self._counts.items()]
        lines = []
        for key, counts, total in state:
            running = 0
            for bound, count in zip((*self.buckets, math.inf), counts, strict=True):
                running += count
                lines.append(_sample(f"{self.name}_bucket", (*self.labels, "le"), (*key, _number(bound)), running))
            lines.append(_sample(f"{self.name}_sum", self.labels, key, total))
            lines.append(_sample(f"{self.name}_count", self.labels, key, running))
        return lines


_M = TypeVar("_M", bound=_Metric)


class Metrics:
    """A registry; asking again for a name of the same kind gives the same object, else ValueError."""

    def __init__(self) -> None:
        self._metrics: dict[str, _Metric] = {}
        self._lock = threading.Lock()

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Counter:
        """A counter; its name ends in _total by convention."""
        return self._register(Counter(name, help, labels))

    def gauge(self, name: str, help: str, labels: Sequence[str] = ()) -> Gauge:
        """A gauge."""
        return self._register(Gauge(name, help, labels))

    def histogram(self, name: str, help: str, labels: Sequence[str] = (),
                  buckets: Sequence[float] = BUCKETS_S) -> Histogram:
        """A histogram; `buckets` are upper bounds, +Inf is added."""
        return self._register(Histogram(name, help, labels, buckets))

    def _register(self, metric: _M) -> _M:
        if not re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", metric.name):
            raise ValueError(f"metric name {metric.name!r} is not letters, digits, _ and :")
        for label in metric.labels:
            if not re.fullmatch(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*", label) or label == "le":
                raise ValueError(f"metric {metric.name}: {label!r} cannot be a label name")
        with self._lock:
            known = self._metrics.setdefault(metric.name, metric)
        if not isinstance(known, type(metric)) or known.labels != metric.labels:
            raise ValueError(f"metric {metric.name} exists as a {known.kind} with labels {list(known.labels)}")
        return known

    def all(self) -> list[_Metric]:
        """Every metric, in the order in which they were made."""
        with self._lock:
            return list(self._metrics.values())

    def render(self) -> str:
        """Prometheus text exposition format 0.0.4."""
        lines = []
        for metric in self.all():
            help_text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
            lines += [f"# HELP {metric.name} {help_text}", f"# TYPE {metric.name} {metric.kind}", *metric.samples()]
        return "\n".join(lines) + "\n"


def _sample(name: str, labels: Sequence[str], values: Sequence[str], number: float) -> str:
    if not labels:
        return f"{name} {_number(number)}"
    pairs = ",".join(f'{label}="{_escape(value)}"' for label, value in zip(labels, values, strict=True))
    return f"{name}{{{pairs}}} {_number(number)}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


class Signals:
    """SIGTERM and SIGINT set `stop` (the second one `at_once`), SIGHUP asks for a reload. Handlers only set flags: what
    they ask for is done by `wait`, in the main thread. To be made in the main thread."""

    def __init__(self) -> None:
        self.stop, self.at_once = threading.Event(), threading.Event()
        self._reload = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: (self.at_once if self.stop.is_set() else self.stop).set())
        signal.signal(signal.SIGHUP, lambda *_: self._reload.set())

    def wait(self, reload: Callable[[], None]) -> None:
        """Until `stop` is set; calls `reload` after each SIGHUP. The main thread must wake now and then: a signal that
        comes just after SIGCONT, as systemd sends them, is taken by another thread, and handled when the main one
        runs."""
        while not self.stop.wait(1.0):
            if self._reload.is_set():
                self._reload.clear()
                reload()


class Notifier:
    """Messages to systemd (sd_notify(3)); every method does nothing when NOTIFY_SOCKET is not set."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path  # @: a name without a file
        microseconds = environ.get("WATCHDOG_USEC", "")
        mine = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog_s = int(microseconds) / 2e6 if mine and microseconds.isdigit() and int(microseconds) else None

    @property
    def watchdog_s(self) -> float | None:
        """Seconds between pings (half of what systemd allows, as sd_watchdog_enabled(3) advises), None when off."""
        return self._watchdog_s if self._address else None

    def ready(self, status: str = "") -> None:
        """Start-up, or a reload, is over."""
        self._send("READY=1", status)

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send("", text)

    def watchdog(self) -> None:
        """Still well."""
        self._send("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Ask for this much more time to start or stop, counted from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def stopping(self, status: str = "") -> None:
        """Shutting down from here on."""
        self._send("STOPPING=1", status)

    def reloading(self) -> None:
        """A reload begins; ends with ready()."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def _send(self, message: str, status: str = "") -> None:
        if not self._address:
            return
        if status:
            message += f"\nSTATUS={' '.join(status.split())}"
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(1.0)
                sock.sendto(message.strip("\n").encode(), self._address)
        except OSError:  # systemd is restarting itself; the next message will tell it
            return


class Watchdog:
    """A thread that runs `checks` every notifier.watchdog_s and pings systemd only when all of them returned.

    A check that hangs withholds the ping as well as one that raises: systemd then restarts the service.
    """

    def __init__(self, notifier: Notifier, checks: Mapping[str, Callable[[], object]], log: Log) -> None:
        self._notifier, self._checks, self._log = notifier, dict(checks), log
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; does nothing where systemd does not watch."""
        if self._notifier.watchdog_s is not None:
            self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread; a check in progress is waited for briefly."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)

    def check(self) -> bool:
        """Run the checks once; ping when all passed."""
        for name, check in self._checks.items():
            try:
                check()
            except Exception as error:  # whatever it is, it must not end the watching
                self._log.error("watchdog-check-failed", error=error, check=name)
                return False
        self._notifier.watchdog()
        return True

    def _run(self) -> None:
        while not self._stop.is_set():
            self.check()
            self._stop.wait(self._notifier.watchdog_s)


def listen_sockets(environ: Mapping[str, str] = os.environ, pid: int | None = None) -> list[socket.socket]:
    """Sockets passed by systemd (sd_listen_fds(3)): LISTEN_PID, LISTEN_FDS; [] when not socket-activated."""
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(os.getpid() if pid is None else pid) or not count.isdigit():
        return []
    sockets = [socket.socket(fileno=3 + i) for i in range(int(count))]  # 3: SD_LISTEN_FDS_START
    for sock in sockets:
        sock.set_inheritable(False)  # the codec processes must not hold the port
    return sockets
