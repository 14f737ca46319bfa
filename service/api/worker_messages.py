"""What workers send to the orchestrator, read strictly: a message that is not understood is not acted upon.

    POST /workers              Heartbeat   {"name", "url", "slots", "running": […], "device", "threads", "codecs",
                                            "segmented", "models", "version", "draining", "boot_id", "dispatch_key",
                                            "attempt_secrets"}
    POST /experiment_progress  Progress    {"run", "attempt", "secret", "phase", "fraction", "frame", "frames", "fps"}
    POST /experiment_result    End         {"run", "attempt", "secret", "state", "result", "error", "artifacts"}

`dispatch_key` is what the worker wants to be shown by whoever calls it: made by itself at its start, of no use anywhere
else.  `secret` is the attempt's own (service/scheduling/attempt_secrets.py); a worker that knows of secrets says
`attempt_secrets`, and one of an earlier version does not.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.jobs.fields import JobError
from service.jobs.states import State
from service.storage.blobs import SHA256

WORKER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
ARTIFACT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MAX_SLOTS = 1024
MAX_RUNNING = 4096
MAX_ARTIFACTS = 100
PROGRESS_FIELDS = ("phase", "fraction", "frame", "frames", "fps")
# Bounds of figures by how their names begin; others lie from 0 to 1e15.
FIGURES = (("psnr", (-100.0, 100.0)), ("ssim", (-1.0, 1.0)), ("ms_ssim", (-1.0, 1.0)), ("mse", (0.0, 1e10)),
           ("vmaf", (0.0, 100.0)), ("xpsnr", (0.0, 100.0)))
FRAME_FIGURES = {"bytes", "psnr_db", "psnr_y", "ssim", "ms_ssim", "vmaf", "vmaf_neg", "xpsnr"}
ABOUT_FIELDS = ("device", "threads", "codecs", "segmented", "models", "version")


class MessageError(JobError):
    """A worker's message has a wrong field; `field` names it."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}")
        self.field = field


@dataclass(frozen=True)
class Heartbeat:
    """A worker lives. `running` maps (run, attempt) to progress; `about` is shown to people as it came; `dispatch_key`
    is "" and `attempt_secrets` false of a worker of an earlier version."""

    name: str
    url: str
    slots: int
    running: dict[tuple[str, int], dict[str, Any]]
    about: dict[str, Any]
    draining: bool
    boot_id: str
    dispatch_key: str = ""
    attempt_secrets: bool = False


@dataclass(frozen=True)
class Progress:
    """How far an attempt is: `data` holds PROGRESS_FIELDS, null where not known."""

    run: str
    attempt: int
    secret: str | None
    data: dict[str, Any]


@dataclass(frozen=True)
class End:
    """How an attempt ended. `error` is {"type", "detail", "retry"}; `artifacts` maps names to {"sha256", "bytes"}."""

    run: str
    attempt: int
    secret: str | None
    state: State
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    artifacts: dict[str, dict[str, Any]]


def read_heartbeat(document: Mapping[str, Any]) -> Heartbeat:
    """Raises MessageError."""
    name, url = _text(document, "name"), _text(document, "url")
    if not WORKER_NAME.fullmatch(name):
        raise MessageError("name", "at most 100 letters, digits, dots, colons, hyphens and underscores")
    if not re.fullmatch(r"https?://[^\s/?#@]+/?", url):
        raise MessageError("url", "http:// or https:// with a host and a port, and no path")
    slots = _integer(document, "slots", 0, MAX_SLOTS)
    running: dict[tuple[str, int], dict[str, Any]] = {}
    entries = document.get("running", [])
    if not isinstance(entries, list) or len(entries) > MAX_RUNNING:
        raise MessageError("running", f"a list of at most {MAX_RUNNING} attempts")
    for entry in entries:
        if not isinstance(entry, dict):
            raise MessageError("running", 'a list of {"run", "attempt", …}')
        running[_run(entry), _integer(entry, "attempt", 1)] = _progress(entry)
    for field in ("codecs", "segmented"):
        codecs = document.get(field, [])
        if not isinstance(codecs, list) or not all(isinstance(codec, str) for codec in codecs):
            raise MessageError(field, "a list of names")
    for field, kind, words in (("device", str, "a name"), ("version", str, "a name"), ("boot_id", str, "a name"),
                               ("dispatch_key", str, "a key"), ("attempt_secrets", bool, "true or false"),
                               ("models", dict, "an object"), ("draining", bool, "true or false")):
        if field in document and not isinstance(document[field], kind):
            raise MessageError(field, words)
    if "threads" in document:
        _integer(document, "threads", 0)
    return Heartbeat(name, url.rstrip("/"), slots, running,
                     {field: document[field] for field in ABOUT_FIELDS if field in document},
                     document.get("draining") is True, document.get("boot_id", ""),
                     document.get("dispatch_key", ""), document.get("attempt_secrets") is True)


def read_progress(document: Mapping[str, Any]) -> Progress:
    """Raises MessageError."""
    return Progress(_run(document), _integer(document, "attempt", 1), _secret(document), _progress(document))


def read_end(document: Mapping[str, Any]) -> End:
    """Raises MessageError."""
    run, attempt = _run(document), _integer(document, "attempt", 1)
    state = document.get("state")
    if state not in (State.COMPLETED, State.FAILED, State.CANCELLED):
        raise MessageError("state", "completed, failed or cancelled")
    result, error = document.get("result"), document.get("error")
    if not (result is None or isinstance(result, dict)) or (state == State.COMPLETED and result is None):
        raise MessageError("result", "an object, where the state is completed, else an object or null")
    if result is not None:
        _check_figures(result)
    if not (error is None or isinstance(error, dict)):
        raise MessageError("error", 'an object {"type", "detail", "retry"} or null')
    return End(run, attempt, _secret(document), State(state), result, error,
               _artifacts(document.get("artifacts") or {}))


def _secret(document: Mapping[str, Any]) -> str | None:
    return None if document.get("secret") is None else _text(document, "secret")


def _check_figures(result: Mapping[str, Any]) -> None:
    """Raises MessageError for figures that no measurement gives: what is no number, not finite, or out of its range."""
    for path in (("metrics",), ("decoding_result", "quality_metrics")):
        found: Any = result
        for name in path:
            found = found.get(name, {}) if isinstance(found, dict) else None
        where = ".".join(("result", *path))
        if not isinstance(found, dict):
            raise MessageError(where, "an object")
        for name, value in found.items():
            if not name.endswith("_reason"):
                _check_figure(f"{where}.{name}", name, value)
    rows = result.get("frames", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise MessageError("result.frames", "a list of objects")
    for index, row in enumerate(rows):
        for name in FRAME_FIGURES & row.keys():
            _check_figure(f"result.frames.{index}.{name}", name, row[name])


def _check_figure(where: str, name: str, value: Any) -> None:
    low, high = next((bounds for ending, bounds in FIGURES if name.startswith(ending)), (0.0, 1e15))
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise MessageError(where, f"a number from {low:g} to {high:g}, or null")


def _artifacts(found: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(found, dict) or len(found) > MAX_ARTIFACTS:
        raise MessageError("artifacts", f"an object of at most {MAX_ARTIFACTS} names")
    for name, about in found.items():
        if not ARTIFACT_NAME.fullmatch(name):
            raise MessageError("artifacts", "names of at most 100 letters, digits, dots, hyphens and underscores")
        if not isinstance(about, dict) or not SHA256.fullmatch(str(about.get("sha256"))):
            raise MessageError(f"artifacts.{name}.sha256", "64 hexadecimal digits")
        _integer(about, "bytes", 0, 1 << 50)
    return {name: {"sha256": about["sha256"], "bytes": int(about["bytes"])} for name, about in found.items()}


def _progress(document: Mapping[str, Any]) -> dict[str, Any]:
    found = {field: document.get(field) for field in PROGRESS_FIELDS}
    if not (found["phase"] is None or isinstance(found["phase"], str)):
        raise MessageError("phase", "a string or null")
    for field in PROGRESS_FIELDS[1:]:
        if isinstance(found[field], bool) or not (found[field] is None or isinstance(found[field], int | float)):
            raise MessageError(field, "a number or null")
    return found


def _run(document: Mapping[str, Any]) -> str:
    run = _text(document, "run")
    if not RUN_NAME.fullmatch(run):
        raise MessageError("run", "the id of a run")
    return run


def _text(document: Mapping[str, Any], field: str) -> str:
    value = document.get(field)
    if not isinstance(value, str) or not value or len(value) > 2000:
        raise MessageError(field, "a string of 1 to 2000 characters")
    return value


def _integer(document: Mapping[str, Any], field: str, low: int, high: int = 2**53 - 1) -> int:
    value = document.get(field)
    if isinstance(value, float) and value.is_integer():
        value = int(value)      # JSON has one kind of number
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise MessageError(field, f"an integer from {low} to {high}")
    return value
