"""What a worker is asked to do: a dispatch from an orchestrator, or an experiment from whoever uses a worker alone.

    {"run": "exp_…", "attempt": 1, "experiment": {every field}, "clip": {"name", "sha256", "url"} or null,
     "callback": "http://orchestrator:8081", "lease_s": 10, "timeout_s": 600, "secret": "…"}

`secret` is the attempt's own: it is shown with everything that is reported on it. Of a clip that is cut, "segment"
({"index", "of"}) is to code that part of it, and "segments" to join those whose files are listed.

Without "experiment" the document is itself the experiment, with as few fields as one likes; it then gets a run id here
and its result is kept here.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any

from service.http.parsing import Problem
from service.jobs.fields import FETCHED, GRID, MAX_SEGMENTS, FieldError, is_grid, read_request
from service.jobs.states import new_experiment_id

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
SHA256 = re.compile(r"[0-9a-f]{64}")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")
FIELDS = ("run", "attempt", "experiment", "clip", "callback", "lease_s", "timeout_s", "secret", "segment", "segments")
MAX_TIMEOUT_S = 86_400.0  # as for timeout_s of an experiment


@dataclass(frozen=True)
class Dispatch:
    """One attempt as asked for. ``callback`` is "" for a run whose result is kept here.

    ``clip``: {"name", "sha256", "url"}, each a string or None; without a url it is a clip of the library or one that
    is here already.
    """

    run: str
    attempt: int
    experiment: dict[str, Any]
    clip: dict[str, Any]
    callback: str = ""
    timeout_s: float = 600.0
    traceparent: str = ""
    secret: str = field(default="", repr=False)
    segment: dict[str, int] | None = None       # {"index", "of"}
    segments: tuple[dict[str, dict[str, Any]], ...] = ()    # of each: file name to {"sha256", "bytes", "url"}

    @property
    def key(self) -> tuple[str, int]:
        return self.run, self.attempt

    @property
    def trace_id(self) -> str:
        """What log lines of all services on this run's way have in common (W3C Trace Context)."""
        return self.traceparent[3:35]

    @property
    def folder_name(self) -> str:
        return f"{self.run}.{self.attempt}"


def wrong(field: str, expected: str) -> Problem:
    return Problem(422, "invalid-field", f"{field}: expected {expected}", field=field)


def read_dispatch(document: dict[str, Any], traceparent: str, device: str) -> Dispatch:
    """The dispatch, checked; ``device`` takes the place of "auto". Raises Problem 422 naming the field."""
    if "experiment" not in document:
        document = {"experiment": document}
    for name in document:
        if name not in FIELDS:
            detail = f"{name}: no such field of a dispatch; known are {', '.join(FIELDS)}"
            raise Problem(422, "unknown-field", detail, field=name)
    try:
        experiment = read_request(document["experiment"])
    except FieldError as error:
        raise Problem(422, "invalid-field", str(error), field=error.field) from error
    if is_grid(experiment):
        name = next(name for name in GRID if isinstance(experiment[name], list))
        raise wrong(name, "one value; lists are for the orchestrator, which makes runs of them")
    if experiment["device"] == "auto":
        experiment["device"] = device
    callback = _given(document, "callback", str, "")
    if callback and not callback.startswith(("http://", "https://")):
        raise wrong("callback", "an http:// or https:// address")
    run = _given(document, "run", str, "") or new_experiment_id(time.time())
    if not RUN_NAME.fullmatch(run):
        raise wrong("run", "at most 121 letters, digits, dots, hyphens and underscores")
    attempt = _given(document, "attempt", int, 1)
    if attempt < 1 or (attempt > 1 and not callback):
        raise wrong("attempt", "1, or more for a run of an orchestrator")
    timeout_s = _given(document, "timeout_s", (int, float), experiment["timeout_s"])
    if not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise wrong("timeout_s", f"seconds up to {MAX_TIMEOUT_S:g}")
    return Dispatch(run, attempt, experiment, _clip(document, experiment), callback, timeout_s, traceparent,
                    _given(document, "secret", str, ""), _segment(document), _segments(document))


def _segment(document: dict[str, Any]) -> dict[str, int] | None:
    said = _given(document, "segment", dict, None)
    if said is None:
        return None
    index, of = (_given(said, name, int, -1) for name in ("index", "of"))
    if not (0 <= index < of <= MAX_SEGMENTS and len(said) == 2):
        raise wrong("segment", f"index and of, the first below the second, and that at most {MAX_SEGMENTS}")
    return {"index": index, "of": of}


def _segments(document: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], ...]:
    said = _given(document, "segments", list, [])
    right = len(said) <= MAX_SEGMENTS and all(isinstance(files, dict) and all(
        FILE_NAME.fullmatch(name) and isinstance(about, dict) and isinstance(about.get("url"), str)
        and SHA256.fullmatch(str(about.get("sha256"))) for name, about in files.items()) for files in said)
    if not right:
        raise wrong("segments", f"at most {MAX_SEGMENTS} objects, of file names to sha256 and url")
    return tuple(said)


def _clip(document: dict[str, Any], experiment: dict[str, Any]) -> dict[str, Any]:
    said = _given(document, "clip", dict, None)
    if said is None:
        wanted: str = experiment["clip"]
        if wanted.startswith(FETCHED):
            raise wrong("clip", "a library name; a worker fetches no addresses by itself")
        digest = wanted.removeprefix("sha256:") if wanted.startswith("sha256:") else None
        return {"name": None if digest else wanted, "sha256": digest, "url": None}
    clip = {name: _given(said, name, str, None) for name in ("name", "sha256", "url")}
    if clip["sha256"] is not None and not SHA256.fullmatch(clip["sha256"]):
        raise wrong("clip", "sha256 of 64 hexadecimal digits")
    if (clip["url"] and not clip["sha256"]) or not (clip["name"] or clip["sha256"]):
        raise wrong("clip", "a name, and a sha256 where there is a url")
    return clip


def _given(document: dict[str, Any], name: str, kinds: type | tuple[type, ...], default: Any) -> Any:
    """A field of one of the kinds, or the default where it is missing or null. Raises Problem naming it."""
    value = document.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, kinds):
        words = {str: "a string", int: "an integer", dict: "an object", list: "a list"}
        raise wrong(name, "a number" if isinstance(kinds, tuple) else words[kinds])
    return value
