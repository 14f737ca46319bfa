"""GOPs coded by several processes at once. Each computes in one thread, and codes a GOP exactly as one process alone.

    parent → process   Work, once; then for each GOP its first number, its pictures one by one, None
    process → parent   the steps of the GOP as they are made, the last with its bytes; or the exception that ended it

A process takes all pictures of a GOP before it codes, so the parent never waits for one process while another is idle.
It is started anew, not forked: the threads of torch and numba do not survive that. Its socket to the parent is the only
one open on its side, so whichever way the parent ends, each process meets the end of the file and ends too.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Generator, Iterable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

import torch

from coding.interface import CodecError
from nvc.encoder.gop import Step, Work, code_gop
from nvc.machine.allocator import keep_memory
from video.picture import Picture

ROOT = Path(__file__).resolve().parents[2]
GONE = (EOFError, BrokenPipeError, ConnectionResetError)        # what is met where the other side has ended
ONE_THREAD = {f"{pool}_NUM_THREADS": "1" for pool in ("OMP", "MKL", "OPENBLAS", "NUMBA")}


def most_alive(count: int) -> int:
    """GOPs begun and not yet passed on, at most: those being coded, and one that waits for an earlier one."""
    return count + 1


# --- The process that codes -------------------------------------------------------------------------------------------


def serve(descriptor: int) -> None:
    """Code what comes by the socket until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)        # Ctrl-C at a terminal goes to all; the parent ends this process
    connection = Connection(descriptor)
    try:
        _code(connection)
    except GONE:
        pass
    except Exception as error:              # the parent raises it in its own process
        with contextlib.suppress(*GONE):
            connection.send(_portable(error))


def _code(connection: Connection) -> None:
    torch.set_num_threads(1)
    keep_memory()
    work: Work = connection.recv()
    encoder = work.encoder()
    while True:
        first: int = connection.recv()
        pictures: list[Picture] = list(iter(connection.recv, None))
        for step in code_gop(encoder, work.header, first, pictures):
            connection.send(step)


def _portable(error: Exception) -> Exception:
    """The error, or where it cannot be sent a CodecError of the same words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:                       # whatever a foreign class does in its constructor
        return CodecError(f"{type(error).__name__}: {error}")
    return error


# --- The parent -------------------------------------------------------------------------------------------------------


class _Process:
    """One process and the GOP that it codes, if any (`first`)."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.connection, theirs = Pipe()
        program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from nvc.encoder.processes import serve; serve"
        try:
            self._child = subprocess.Popen([sys.executable, "-P", "-c", f"{program}({theirs.fileno()})"],
                                           stdin=subprocess.DEVNULL, env={**os.environ, **ONE_THREAD},
                                           pass_fds=[theirs.fileno()])
        except OSError:
            self.connection.close()
            raise
        finally:
            theirs.close()

    def send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except GONE:
            raise self._how_it_ended() from None

    def receive(self) -> Step:
        try:
            message = self.connection.recv()
        except GONE:
            raise self._how_it_ended() from None
        if isinstance(message, Exception):
            raise message
        return message

    def _how_it_ended(self) -> Exception:
        with contextlib.suppress(*GONE):
            if self.connection.poll() and isinstance(last := self.connection.recv(), Exception):
                return last
        status = self._child.wait()
        how = f"died of {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
        at = "before its first pictures" if self.first is None else f"while it coded the pictures from {self.first} on"
        return CodecError(f"jobs: a process {how} {at}")

    def end(self) -> None:
        self._child.kill()
        self._child.wait()
        self.connection.close()


class _Crew:
    """The processes, and which GOPs are under way."""

    def __init__(self, work: Work, count: int) -> None:
        self._processes: list[_Process] = []
        self._alive: dict[int, bool] = {}       # by first number, in order: is it whole? The oldest never is
        try:
            for _ in range(count):
                self._processes.append(_Process())
            for process in self._processes:
                process.send(work)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        for process in self._processes:
            process.end()

    def begin(self, first: int) -> _Process | None:
        """An idle process that now expects the pictures of a GOP; None while that has to wait."""
        idle = next((p for p in self._processes if p.first is None), None)
        if idle is None or len(self._alive) == most_alive(len(self._processes)):
            return None
        idle.send(first)
        idle.first = first
        self._alive[first] = False
        return idle

    @property
    def working(self) -> bool:
        return bool(self._alive)

    def arrived(self, timeout: float | None = None) -> Iterator[tuple[int, Step]]:
        """Steps that have come by now; waits for one unless there is a timeout (seconds)."""
        busy = {p.connection: (p.first, p) for p in self._processes if p.first is not None}
        for connection in wait(list(busy), timeout):
            first, process = busy[cast(Connection, connection)]
            step = process.receive()
            if step.gop:
                process.first = None
                self._alive[first] = True
                while self._alive and self._alive[oldest := next(iter(self._alive))]:
                    del self._alive[oldest]
            yield first, step


def code_in_processes(coded: Iterable[tuple[int, Iterable[Picture]]], work: Work,
                      count: int) -> Generator[tuple[int, Step], None, None]:
    """The steps of all GOPs, each with its GOP's first number, as `count` processes make them.

    coded: first number and padded pictures of each GOP. Raises what a process raised, and CodecError where one ended
    by itself. To be closed: that ends the processes."""
    crew = _Crew(work, count)
    try:
        for first, pictures in coded:
            while (process := crew.begin(first)) is None:
                yield from crew.arrived()
            for picture in pictures:
                process.send(picture)
                yield from crew.arrived(0)
            process.send(None)
        while crew.working:
            yield from crew.arrived()
    finally:
        crew.end()
