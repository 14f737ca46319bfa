"""One attempt at this worker: accepted, carried out in a slot, ended, and its end stored until somebody has it.

Each attempt has a folder of its own from before the 202 that accepts it until its result is acknowledged:

    runs/<run>.<attempt>/          accepted: dispatch.json; then clip, stream.nvc, reconstruction.mkv
    outbox/<run>.<attempt>/        ended: message.json and the artifacts, for the orchestrator (outbox.py)
    kept/<run>.<attempt>/          the same for runs without an orchestrator, until room is needed

A folder still under ``runs/`` when a worker starts is an attempt that the worker's end cut short; it is reported as
such at once, which spares the orchestrator the wait for its lease to run out.  That the folder is there before the
answer is also why an attempt is not started twice by a worker that died between starting it and saying so.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from service.http.client import ClientError
from service.runs.assignment import Dispatch
from service.runs.clip_cache import ClipCache
from service.runs.outbox import DISPATCH, could_not_store, read_sealed, seal
from service.runs.outcome import Outcome, failed

ARTIFACT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")


class ResultStore(Protocol):
    """Takes over an ended attempt's folder: the outbox, or `LocalResults`."""

    def put(self, message: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Returns the message as it is kept: a failure in place of a result that the disk would not take."""


@dataclass
class AttemptContext:
    """What attempts use of the worker that they run in."""

    runs: Path
    clips: ClipCache
    threads: int
    download: Callable[[Dispatch, str, str, Any], tuple[int, str]]  # (dispatch, url, SHA-256, out)
    result_store: Callable[[Dispatch], ResultStore]
    progress_changed: Callable[[Attempt], None]  # progress has changed
    attempt_ended: Callable[[Attempt], None]


@dataclass
class Attempt:
    """A slot's task (slots.Task)."""

    dispatch: Dispatch
    context: AttemptContext
    state: str = "dispatched"  # then running, then completed, failed or cancelled
    progress: dict[str, Any] = field(default_factory=lambda: {"phase": "waiting", "fraction": 0.0, "frame": 0,
                                                              "frames": None, "fps": None})
    error: dict[str, Any] | None = None
    accepted: float = field(default_factory=time.time)
    ended_at: float | None = None
    _stop: Outcome | None = None
    _wake: threading.Event = field(default_factory=threading.Event)

    @property
    def timeout_s(self) -> float:
        return self.dispatch.timeout_s

    @property
    def folder(self) -> Path:
        return self.context.runs / self.dispatch.folder_name

    def record(self) -> None:
        """Put the attempt on disk. Raises OSError.

        Not synced: it must outlive this process, and does; a power cut takes the attempt with it in any case.
        """
        part = self.folder.with_name(self.folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        said = {"run": self.dispatch.run, "attempt": self.dispatch.attempt, "callback": self.dispatch.callback,
                "traceparent": self.dispatch.traceparent, "secret": self.dispatch.secret}
        (part / DISPATCH).write_text(json.dumps(said), encoding="utf-8")
        part.rename(self.folder)

    def unrecord(self) -> None:
        """Forget an attempt that no slot would take."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self, outcome: Outcome) -> None:
        """End whatever `prepare` is waiting for; called before the slot is."""
        self._stop = outcome
        self._wake.set()

    # --- in the slot's thread ---

    def prepare(self) -> tuple[dict[str, Any], Path] | Outcome:
        dispatch, clip = self.dispatch, self.dispatch.clip
        path = None
        segments = []
        try:
            if clip.get("url") or (clip.get("sha256") and not clip.get("name")):
                path = self.folder / clip_file_name(clip)
                if problem := self._get(clip["sha256"], clip.get("url"), path, f"clip {clip.get('name')}"):
                    return problem
            for index, files in enumerate(dispatch.segments):
                segments.append({name: str((self.folder / f"segment-{index}-{name}").resolve()) for name in files})
                for name, about in files.items():
                    if problem := self._get(about["sha256"], about["url"], Path(segments[-1][name]),
                                            f"{name} of segment {index}"):
                        return problem
        except OSError as error:
            return failed("disk-full", f"the worker cannot store what the run needs: {error}", retry=True)
        return {
            **({"segment": dispatch.segment} if dispatch.segment else {}),
            **({"segments": segments} if segments else {}),
            "run": dispatch.run,
            "experiment": dispatch.experiment,
            "clip": {"name": clip.get("name") or f"sha256:{clip['sha256']}", "sha256": clip.get("sha256"),
                     "path": None if path is None else str(path.resolve())},
            "threads": self.context.threads,
        }, self.folder.resolve()

    def _get(self, sha256: str, url: str | None, path: Path, what: str) -> Outcome | None:
        """Link a file to ``path``, fetching it if it is not here. What went wrong, or None."""
        if self.context.clips.link(sha256, path):
            return None
        if not url:
            return failed("unknown-clip", f"clip: sha256:{sha256} is not at this worker", retry=False)
        self._wake.clear()
        if self._stop:
            return self._stop
        self.progressed({**self.progress, "phase": "fetch"})
        trouble: list[Exception] = []

        def fetch() -> None:
            try:
                self.context.clips.fetch(sha256, lambda out: self.context.download(self.dispatch, url, sha256, out))
            except (ClientError, OSError) as error:
                trouble.append(error)
            finally:
                self._wake.set()

        # In a thread of its own: a network that has gone silent must not hold up a cancel.
        threading.Thread(target=fetch, name=f"fetch-{self.dispatch.run}", daemon=True).start()
        self._wake.wait()
        if self._stop:
            return self._stop
        if trouble:
            return failed("clip-unavailable", f"{what}: {trouble[0]}", retry=True)
        if not self.context.clips.link(sha256, path):
            return failed("clip-unavailable", f"{what}: it has left the cache already, which is too small", retry=True)
        return None

    def started(self) -> None:
        self.state = "running"
        self.progressed({**self.progress, "phase": "start"})

    def progressed(self, progress: dict[str, Any]) -> None:
        self.progress = progress
        self.context.progress_changed(self)

    def ended(self, outcome: Outcome) -> None:
        """Store the end, then report that the attempt is over."""
        if outcome.state == "completed" and (wrong := self._wrong_artifacts(outcome)):
            outcome = failed("codec-error", wrong, retry=False)
        for path in [*self.folder.glob("clip-*"), *self.folder.glob("segment-*")]:
            path.unlink(missing_ok=True)    # DISPATCH stays: it says whose end it was, should the message be damaged
        message = end_message(self.dispatch.run, self.dispatch.attempt, self.dispatch.callback,
                              self.dispatch.traceparent, self.dispatch.secret, outcome)
        local_results = self.context.result_store(self.dispatch).put(message, self.folder)
        self.error, self.ended_at = local_results["error"], time.time()
        self.state = local_results["state"]  # after it is stored: who reads "completed" finds the result
        self.context.attempt_ended(self)

    def _wrong_artifacts(self, outcome: Outcome) -> str:
        """What a codec process says of its files is foreign: names must be names, and the files must be there."""
        for name, about in outcome.artifacts.items():
            if not ARTIFACT_NAME.fullmatch(name) or not isinstance(about, dict):
                return f"artifact {name[:100]!r} is no file name"
            path = self.folder / name
            if path.is_symlink() or not path.is_file() or path.stat().st_size != about.get("bytes"):
                return f"artifact {name} is not there as reported"
        return ""


def end_message(run: str, attempt: int, callback: str, traceparent: str, secret: str,
                outcome: Outcome) -> dict[str, Any]:
    """An attempt's end as it is stored and delivered (callback and traceparent are for the delivery alone)."""
    return {"run": run, "attempt": attempt, "state": outcome.state, "result": outcome.result, "error": outcome.error,
            "artifacts": outcome.artifacts if outcome.state == "completed" else {},
            "callback": callback, "traceparent": traceparent, "secret": secret}


def cut_short(runs: Path) -> list[tuple[dict[str, Any], Path]]:
    """The (message, folder) of each attempt that an earlier life of this worker began and did not end."""
    outcome = failed("worker-restarted", "the worker that ran it was killed and started again", retry=True)
    found = []
    for folder in sorted(runs.iterdir()) if runs.is_dir() else ():
        try:
            said = json.loads((folder / DISPATCH).read_text(encoding="utf-8"))
            run, attempt, callback, traceparent = (said[name] for name in ("run", "attempt", "callback", "traceparent"))
            secret = said.get("secret", "")     # none where an earlier version began it
        except (OSError, ValueError, KeyError, TypeError):
            shutil.rmtree(folder, ignore_errors=True)  # not recorded whole, so never accepted
            continue
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        found.append((end_message(run, attempt, callback, traceparent, secret, outcome), folder))
    return found


def lock_state(state: Path) -> int:
    """Hold the state folder for this process; raises OSError when another worker holds it."""
    state.mkdir(parents=True, exist_ok=True)
    for name in ("runs", "outbox", "kept", "clips"):
        (state / name).mkdir(exist_ok=True)
    number = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(number)
        raise OSError(f"state: {state} is held by another worker") from error
    return number


def clip_file_name(clip: dict[str, Any]) -> str:
    """A name for the clip's file that keeps the ending (a headerless .yuv says its format by its name)."""
    return "clip-" + re.sub(r"[^A-Za-z0-9._-]", "_", str(clip.get("name") or "clip"))[-100:]


class LocalResults:
    """Results of runs that nobody else keeps: the newest ``limit`` of them. Safe from any thread."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, message: dict[str, Any], folder: Path) -> dict[str, Any]:
        """See ResultStore.put. A failure for want of disk is itself not stored."""
        try:
            with self._lock:
                found = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)
                for path in found[: max(0, len(found) - self._limit + 1)]:
                    shutil.rmtree(path, ignore_errors=True)
                seal(folder, message, self._folder / f"{message['run']}.{message['attempt']}")
            return message
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            return could_not_store(message, error)

    def message(self, run: str) -> dict[str, Any] | None:
        """How the run ended, if it is kept here."""
        folder = self.folder(run)
        return read_sealed(folder) if folder else None

    def folder(self, run: str) -> Path | None:
        folder = self._folder / f"{run}.1"
        return folder if folder.is_dir() else None
