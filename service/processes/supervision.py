"""The worker's end of a codec process: it is started, heard, and killed with all that it has started.

What it says is in codec_process.py, which is the other end.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.processes.messages import MessageBuffer, frame_message
from service.processes.process_tags import PROCESS_TAG, end_tagged

CODEC_PROGRAM = Path(__file__).with_name("codec_process.py")
TERM_GRACE_S = 1.5  # from SIGTERM to SIGKILL; with the rest of a cancel well under 5 s
REAP_S = 2.0  # to wait for the kernel to take a killed process away
TAIL_BYTES = 4096  # of a codec process's output, kept to explain a crash
# Of the service's environment, what is not for code that handles foreign bytes.
PRIVATE = ("NVC_KEY", "NVC_ACCEPT_KEY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
POOLS = ("OMP", "MKL", "NUMBA")  # the thread pools of torch and Numba read their size from these
# NumPy's pool spins while it waits for its next product, which takes a core from torch's: decoding took three times as
# long where pictures are decoded and measured in turn. Measuring needs no more than one thread.
ALONE = {"OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class ProcessSpec:
    """How to start codec processes: ``warm`` names the codecs to make ready, ``codecs`` adds "name=module:factory"."""

    warm: tuple[str, ...] = ("nvc",)
    codecs: tuple[str, ...] = ()
    threads: int = 1  # of computation in each process
    memory_mb: int = 0  # of each; 0: no limit
    warm_timeout_s: float = 300.0
    program: tuple[str, ...] = ()  # another one that speaks as CODEC_PROGRAM does, and arguments of its own


@dataclass(frozen=True)
class Heard:
    """What a wait ended with: a message, or "died", "woken", "late" (the deadline has passed)."""

    what: str
    message: dict[str, Any] = field(default_factory=dict)


class CodecProcess:
    """One codec process and all that it may have started: a session and process group of their own."""

    def __init__(self, spec: ProcessSpec, wake: int) -> None:
        """``wake``: an eventfd; writing to it ends a wait. Raises OSError when no process can be started."""
        ours, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        command = [sys.executable, *(spec.program or [str(CODEC_PROGRAM)]), "--socket", str(theirs.fileno()),
                   "--lifeline", str(lifeline), "--memory-mb", str(spec.memory_mb)]
        for entry in spec.codecs:
            command += ["--codec", entry]
        threads = str(spec.threads)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **ALONE,
                       **{f"{name}_NUM_THREADS": threads for name in POOLS}}
        tag = environment[PROCESS_TAG] = uuid.uuid4().hex
        self._tag = f"{PROCESS_TAG}={tag}".encode()
        for private in PRIVATE:
            environment.pop(private, None)
        try:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
                pass_fds=(theirs.fileno(), lifeline), start_new_session=True,
            )
        except OSError:
            ours.close()
            os.close(self._lifeline)
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        self.pid = self._child.pid
        self._socket = ours
        self._socket.settimeout(5.0)
        self._buffer = MessageBuffer()
        self._tail = bytearray()
        self._wake = wake
        self._ended = os.pidfd_open(self.pid)  # readable when the process ends; does not reap it, see kill()
        assert self._child.stdout is not None  # asked for by stdout=PIPE
        self._output = self._child.stdout.fileno()
        self._selector = selectors.DefaultSelector()
        for source in (self._socket.fileno(), self._ended, self._output, wake):
            self._selector.register(source, selectors.EVENT_READ)
        self._gone = False

    def send(self, message: dict[str, Any]) -> None:
        """Raises OSError when the process no longer reads."""
        self._socket.sendall(frame_message(message))

    def wait(self, deadline: float | None) -> Heard:
        """Wait until something is heard; ``deadline`` in time.monotonic(), None for ever. Raises MessageError."""
        while True:
            if (message := self._buffer.next()) is not None:
                return Heard("message", message)
            timeout = None if deadline is None else deadline - time.monotonic()
            if timeout is not None and timeout <= 0:
                return Heard("late")
            ready = {key.fd for key, _ in self._selector.select(timeout)}
            if self._output in ready:
                self._read_output()
            if self._socket.fileno() in ready:
                try:
                    data = self._socket.recv(1 << 18)
                except OSError:
                    data = b""
                if not data:  # it is ending: let it, so that its own exit status is seen
                    self._await_end(0.5)
                    return Heard("died")
                self._buffer.feed(data)
                continue  # what it said before it died counts
            if self._ended in ready:
                return Heard("died")
            if self._wake in ready:
                os.eventfd_read(self._wake)
                return Heard("woken")

    def _read_output(self) -> None:
        data = os.read(self._output, 1 << 16)
        if not data:
            self._selector.unregister(self._output)
        self._tail += data
        del self._tail[:-TAIL_BYTES]

    @property
    def tail(self) -> str:
        """The last lines that the process wrote."""
        return self._tail.decode(errors="replace").strip()

    def kill(self) -> int:
        """End the process, its group, and whatever else it started; its exit status (negative: the signal).

        Takes a few seconds at most. The order matters. The group's number stays ours as long as its leader is not
        reaped, so SIGKILL goes out before anyone waits for the leader; the other way round it could hit strangers who
        were given the number.
        """
        if self._gone:
            return self._child.returncode
        self._signal(signal.SIGTERM)
        self._await_end(TERM_GRACE_S)
        self._signal(signal.SIGKILL)
        try:
            status = self._child.wait(REAP_S)
        except subprocess.TimeoutExpired:
            status = -signal.SIGKILL  # in the kernel's hands, e.g. on a stuck file system
        end_tagged(self._tag, REAP_S)
        self._gone = True
        for _ in range(64):  # bounded: someone who left the group may still hold the pipe, and write
            if self._output not in {key.fd for key, _ in self._selector.select(0)}:
                break
            self._read_output()
        self._selector.close()
        self._socket.close()
        os.close(self._ended)
        os.close(self._lifeline)
        if self._child.stdout:
            self._child.stdout.close()
        return status

    def _await_end(self, seconds: float) -> None:
        """Wait until the process has ended, without reaping it."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._ended, selectors.EVENT_READ)
            selector.select(seconds)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # nobody left
            os.killpg(self.pid, number)
