"""A worker's slots: each keeps one codec process warm and supervises it.

A Python thread cannot be killed, and a codec may hang, hold the interpreter's lock for minutes, or take the process
down. So codecs run in processes (`codec_process.py`), and what a slot's thread does is wait: for a message of its
process, for the process's end, for the clock, or to be woken. From any of these waits it can end the process group
within `TERM_GRACE_S` and a moment, whatever the codec is doing.

    starting ─► ready ─► busy ─► ready            the process survived the run
        ▲         │        └───► starting         it died, was killed (cancel, deadline), or asked to be replaced
        │         ▼ died while idle
     failed ◄─ starting                           it does not come up; tried again with growing pauses

A task may be offered while the slot is starting: it waits for the process, and can be cancelled meanwhile.
"""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from service.processes.messages import MessageError
from service.processes.supervision import CodecProcess, ProcessSpec
from service.runs.outcome import Outcome, failed, handed_back, how_it_died

RESTART_PAUSES_S = (0.5, 1, 2, 5, 10, 30, 60)  # between tries to start a process that does not come up


class Task(Protocol):
    """What a slot carries out. All methods are called in the slot's thread."""

    @property
    def timeout_s(self) -> float:
        """Seconds from `started` until the codec process is killed."""

    def prepare(self) -> tuple[dict[str, Any], Path] | Outcome:
        """The job for measure.run and its folder, or how it has ended already. Must look at its own cancellation."""

    def started(self) -> None:
        """The codec process has the job."""

    def progressed(self, progress: dict[str, Any]) -> None: ...

    def ended(self, outcome: Outcome) -> None:
        """Called exactly once for each task that a slot accepted."""


class Slot:
    """One place for one run at a time, with its thread and its codec process."""

    def __init__(self, index: int, spec: ProcessSpec, changed: Callable[[], None], log: Callable[..., None]) -> None:
        """``changed`` is called when `state` has changed, ``log(event, **fields)`` for what should be in the log."""
        self.index = index
        self.spec = spec
        self.about: dict[str, Any] = {}  # what the process said of itself when it was ready
        self.reason = ""  # why the slot has failed
        self.restarts = 0
        self._changed = changed
        self._log = log
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self._state = "starting"
        self._task: Task | None = None
        self._stop: Outcome | None = None  # set to end the task at hand
        self._closing = False
        self._process: CodecProcess | None = None
        self._thread = threading.Thread(target=self._live, name=f"slot-{index}", daemon=True)

    # --- called from other threads ---

    def start(self) -> None:
        self._thread.start()

    @property
    def state(self) -> str:
        """starting, ready, busy or failed."""
        return self._state

    @property
    def task(self) -> Task | None:
        """What it carries out, or will when its process is ready."""
        return self._task

    @property
    def alive(self) -> bool:
        """Whether the slot's thread is there."""
        return self._thread.is_alive()

    @property
    def pid(self) -> int | None:
        """The codec process's id, which is its group's too."""
        process = self._process
        return process.pid if process else None

    @property
    def free(self) -> bool:
        with self._lock:
            return self._task is None and not self._closing and self._state != "failed"

    def offer(self, task: Task) -> bool:
        """Take the task, if the slot is free."""
        with self._lock:
            if self._task is not None or self._closing or self._state == "failed":
                return False
            self._task, self._stop = task, None
        self._nudge()
        return True

    def end(self, task: Task, outcome: Outcome) -> bool:
        """End the task with this outcome, unless it has ended by then; False if the slot has another task or none."""
        with self._lock:
            if self._task is not task:
                return False
            if self._stop is None:
                self._stop = outcome
        self._nudge()
        return True

    def close(self, timeout_s: float) -> None:
        """End process and thread. A task at hand is ended as handed back."""
        with self._lock:
            self._closing = True
            if self._stop is None:
                self._stop = handed_back()
        self._nudge()
        self._thread.join(timeout_s)

    def _nudge(self) -> None:
        os.eventfd_write(self._wake, 1)

    # --- the slot's thread ---

    def _live(self) -> None:
        failures = 0
        while not self._closing:
            self._set("starting")
            problem = self._bring_up()
            if problem:
                self._put_down()
                if self._closing:
                    break
                self.reason = problem
                self._log("codec-process-does-not-start", slot=self.index, reason=problem)
                self._set("failed")
                self._finish(failed("codec-not-ready", problem, retry=True))
                self._pause(RESTART_PAUSES_S[min(failures, len(RESTART_PAUSES_S) - 1)])
                failures += 1
                continue
            failures, self.reason = 0, ""
            self._set("ready")
            self._work()
            self._put_down()
            self.restarts += 1
        self._finish(self._stop or handed_back())

    def _bring_up(self) -> str:
        """Start a process and warm it; "" or what went wrong. Tasks that are cancelled meanwhile are ended."""
        try:
            process = self._process = CodecProcess(self.spec, self._wake)
            process.send({"command": "warm", "codecs": list(self.spec.warm)})
            deadline = time.monotonic() + self.spec.warm_timeout_s
            while True:
                heard = process.wait(deadline)
                if heard.what == "woken":
                    if self._closing:
                        return "the worker is stopping"
                    self._finish_if_stopped()
                elif heard.what == "died":
                    error = how_it_died(process.kill(), process.tail).error or {}
                    return str(error.get("detail"))
                elif heard.what == "late":
                    return f"the codec process was not ready within {self.spec.warm_timeout_s:g} s"
                elif "ready" in heard.message:
                    self.about = heard.message["ready"]
                    return ""
                elif "error" in heard.message:
                    return str(heard.message["error"].get("detail"))
        except (OSError, MessageError) as error:
            return f"the codec process cannot be used: {error}"

    def _put_down(self) -> None:
        if self._process:
            self._process.kill()
            self._process = None

    def _work(self) -> None:
        """Carry out tasks until the process is no longer fit, or the slot closes."""
        process = self._process
        assert process is not None  # _bring_up made it
        while not self._closing:
            task = self._task
            if task is None:
                try:
                    heard = process.wait(None)
                except MessageError as error:
                    self._log("codec-process-garbled", slot=self.index, reason=str(error))
                    return
                if heard.what == "died":
                    status = process.kill()
                    self._log("codec-process-died-idle", slot=self.index, status=status, tail=process.tail)
                    self._pause(RESTART_PAUSES_S[0])
                    return
                continue
            self._set("busy")
            fit = self._carry_out(process, task)
            if not fit:
                return
            self._set("ready")

    def _carry_out(self, process: CodecProcess, task: Task) -> bool:
        """Run one task to its end; whether the process can take another."""
        try:
            prepared = self._stop or task.prepare()
        except Exception as error:  # a bug in the task must not cost the slot its thread
            prepared = failed("worker-broken", f"{type(error).__name__}: {error}", retry=True)
        if isinstance(prepared, Outcome):
            self._finish(self._stop or prepared)
            return True
        job, out_dir = prepared
        try:
            process.send({"command": "run", "job": job, "out_dir": str(out_dir)})
            task.started()
            outcome, fit = self._supervise(process, task, time.monotonic() + task.timeout_s)
        except (OSError, MessageError) as error:
            outcome, fit = failed("codec-crashed", f"the codec process speaks no sense: {error}", retry=True), False
        if not fit:
            status = process.kill()
            if outcome.error and outcome.error["type"] == "died":
                outcome = how_it_died(status, process.tail)
            if outcome.state == "failed":
                self._log("codec-process-replaced", slot=self.index, error=outcome.error, tail=process.tail)
        self._finish(outcome)
        return fit

    def _supervise(self, process: CodecProcess, task: Task, deadline: float) -> tuple[Outcome, bool]:
        while True:
            heard = process.wait(deadline)
            if self._stop:  # looked at after every wait: a process that never stops talking is not obeyed either
                return self._stop, False
            if heard.what == "late" or time.monotonic() >= deadline:
                detail = f"timeout_s: the run was killed after {task.timeout_s:g} s"
                return failed("timeout", detail, retry=False), False
            if heard.what == "message":
                message = heard.message
                if "progress" in message:
                    task.progressed(message["progress"])
                elif "result" in message:
                    return Outcome("completed", message["result"], message.get("artifacts") or {}), True
                elif "error" in message:
                    return Outcome("failed", error=message["error"]), not message.get("replace")
            elif heard.what == "died":
                return failed("died", "", retry=True), False

    def _finish_if_stopped(self) -> None:
        if self._stop:
            self._finish(self._stop)

    def _finish(self, outcome: Outcome) -> None:
        """Free the slot, then end its task: an orchestrator that reads of the end and sends the next run at once must
        find the slot free."""
        with self._lock:
            task, self._task, self._stop = self._task, None, None
        if task is None:
            return
        try:
            task.ended(outcome)
        except Exception as error:  # a bug in the task must not cost the slot its thread
            self._log("task-end-failed", slot=self.index, error=f"{type(error).__name__}: {error}")

    def _set(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._changed()

    def _pause(self, seconds: float) -> None:
        """Wait, unless the slot is closed meanwhile."""
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            while not self._closing and (left := until - time.monotonic()) > 0:
                if selector.select(left):
                    os.eventfd_read(self._wake)
