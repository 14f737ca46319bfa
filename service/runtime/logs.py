"""JSON log lines, by the standard library's logging: one object a line with time (UTC, RFC 3339), level, event, fields.

    log = Log(service="orchestrator")              # on standard error
    log.info("run-placed", run=run_id, worker=name, trace_id=trace.trace_id)

`adopt_libraries` gives lines of libraries the same form.  Standard error is written by a thread of its own: a reader
that has stopped reading must not stop the service.  What it does not take is dropped after `QUEUED` lines, and counted.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import queue
import threading
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

QUEUED = 10_000  # lines that wait for the reader of standard error; a busy service writes some hundred a second
FLUSH_S = 1.0  # for the last lines at the end of the process
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class JsonFormatter(logging.Formatter):
    """A record as one JSON object; ASCII only, so that no terminal or log reader is surprised."""

    def __init__(self, always: Mapping[str, Any]) -> None:
        super().__init__()
        self._always = dict(always)

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        given: dict[str, Any] | None = getattr(record, "document", None)
        if given is None:
            moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
            given = {"time": moment.replace("+00:00", "Z"), "level": record.levelname.lower(),
                     "event": record.getMessage(), **self._always, **getattr(record, "fields", {})}
            error = record.exc_info[1] if record.exc_info else None
            if error is not None:
                given |= {"error": f"{type(error).__name__}: {error}",
                          "traceback": "".join(traceback.format_exception(error))}
        return json.dumps(given, default=str)


class _Writer(logging.StreamHandler[TextIO]):
    """Writes and flushes each line; a reader that is gone or a full disk leaves the service going."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Nothing: there is nowhere to say it."""


class _Unblocked(logging.Handler):
    """Standard error, written by a thread that is started with the first line; nobody waits for it.

    The thread writes to the descriptor itself: files and handlers have locks, which Python takes at its end to flush
    them, and so it would wait for a reader that does not come.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.Queue[bytes] = queue.Queue(QUEUED)
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line, or drop it."""
        if self._thread is None:  # emit() is called under the handler's lock
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()
            atexit.register(self._flush_at_exit)
        try:
            self._lines.put_nowait(self.format(record).encode() + b"\n")
        except queue.Full:
            self.dropped += 1

    def _run(self) -> None:
        while True:
            line = self._lines.get()
            if self.dropped and self._lines.empty():
                dropped, self.dropped = self.dropped, 0
                line += self.format(logging.makeLogRecord({
                    "msg": "log-lines-dropped", "levelname": "WARNING", "fields": {"lines": dropped}})).encode() + b"\n"
            with contextlib.suppress(OSError):  # the reader is gone, or the disk is full: the service goes on
                while line:
                    line = line[os.write(2, line):]
            self._lines.task_done()

    def _flush_at_exit(self) -> None:
        until = time.monotonic() + FLUSH_S
        while self._lines.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.005)


class Log:
    """Structured lines: an event and its fields.  Safe from any thread."""

    def __init__(self, stream: TextIO | None = None, *, level: str = "info", emf: str | None = None,
                 **always: Any) -> None:
        """level: debug, info, warning, error.  emf: a CloudWatch namespace; then log.emf() lines are written too.
        always: fields on every line, as service="orchestrator".  Without a stream the lines go to standard error."""
        self._logger = logging.Logger("nvc", _LEVELS[level])
        self._namespace = emf
        self._handler: logging.Handler = _Unblocked() if stream is None else _Writer(stream)
        self._handler.setFormatter(JsonFormatter(always))
        self._logger.addHandler(self._handler)

    def adopt_libraries(self) -> None:
        """From here on, warnings and errors of libraries are lines of this log as well."""
        logging.basicConfig(handlers=[self._handler], level=logging.WARNING, force=True)

    @property
    def reports(self) -> bool:
        """Whether emf() writes anything."""
        return self._namespace is not None

    def debug(self, event: str, **fields: Any) -> None:
        """What only someone looking for a fault reads."""
        self._logger.debug(event, extra={"fields": fields})

    def info(self, event: str, **fields: Any) -> None:
        """A request, a change of state."""
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: Any) -> None:
        """Something is off and was dealt with."""
        self._logger.warning(event, extra={"fields": fields})

    def error(self, event: str, *, error: BaseException | None = None, **fields: Any) -> None:
        """With `error`, its type, text and traceback are added."""
        self._logger.error(event, exc_info=error, extra={"fields": fields})

    def emf(self, values: Mapping[str, tuple[float, str]], **dimensions: str) -> None:
        """A CloudWatch Embedded Metric Format line: {"SubmitLatency": (12.5, "Milliseconds")}; nothing when off."""
        if self._namespace is None:
            return
        described = [{"Name": name, "Unit": unit} for name, (_, unit) in values.items()]
        block = {"Namespace": self._namespace, "Dimensions": [list(dimensions)], "Metrics": described}
        document = {"_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [block]}, **dimensions,
                    **{name: value for name, (value, _) in values.items()}}
        self._logger.critical("emf", extra={"document": document})  # whatever the level
