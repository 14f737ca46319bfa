"""The codec process: the one place of a worker where codecs, clips and their memory live.

A worker starts one for each of its slots (`slots.py`), with the service, so that weights are loaded and kernels are
compiled before the first experiment arrives.  It speaks with its worker over one socket (messages.py).

    worker → process   {"command": "warm", "codecs": ["nvc"]}
                       {"command": "run", "job": {…}, "out_dir": "/…"}            see measure.run
    process → worker   {"ready": {"codecs": {…}, "device": "cpu", …}}             answers warm
                       {"progress": {"phase", "fraction", "frame", "frames", "fps"}}
                       {"result": {…}, "artifacts": {…}}                          answers run
                       {"error": {"type", "detail", "retry"}, "replace": bool}    answers either

JSON because what a codec reports is foreign: nothing that it says can run code in the worker.

**No orphans.** Whoever kills a worker with SIGKILL leaves it no time to kill its codec processes, and a codec that
spins in C code will not notice.  So the first thing a codec process does, before it loads anything, is to leave a guard
in its process group: a process that does nothing but read from a pipe whose other end the worker alone holds.  When the
worker is gone, for whatever reason, the kernel closes that end, the guard reads the end of the file, and kills all
processes that have this process's tag in their environment, and the whole group, itself included.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # modules are named from the top folder

from service.processes.messages import MessageBuffer, frame_message

GUARD_S = 5.0  # for the guard to end those who left the group
PROGRESS_INTERVAL_S = 0.1  # ten a second are plenty for an eye, and cost nothing


def leave_a_guard(lifeline: int) -> None:
    """Start the guard of this process's group (see above) and return. To be called before any thread exists.

    Forked twice, so that the guard is nobody's child: a codec that waits for its own children must not find it.
    """
    from service.processes.process_tags import PROCESS_TAG, end_tagged

    group, tag = os.getpgrp(), os.environ.get(PROCESS_TAG)
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        os.close(lifeline)
        return
    if os.fork():
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the group's polite end is not the guard's: it stays for the hard one
    os.closerange(0, lifeline)
    os.closerange(lifeline + 1, 1 << 16)
    os.read(lifeline, 1)  # nobody ever writes: this returns when the worker's end is closed
    if tag:  # those who left the group
        end_tagged(f"{PROCESS_TAG}={tag}".encode(), GUARD_S, besides=os.getpid())
    os.killpg(group, signal.SIGKILL)
    os._exit(0)


def bound_resources(memory_mb: int) -> None:
    """No core files (they hold users' pictures), bounded memory where asked, first choice of the OOM killer."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_mb:
        # Private memory: the address space would count libraries, and what allocators reserve and never touch.
        resource.setrlimit(resource.RLIMIT_DATA, (memory_mb << 20, memory_mb << 20))
    with contextlib.suppress(OSError):  # no /proc, or a container that forbids it: then the kernel chooses
        Path("/proc/self/oom_score_adj").write_text("500")  # the service must outlive the codec


class Channel:
    """This side of the socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = MessageBuffer()

    def send(self, message: dict[str, Any]) -> None:
        self._connection.sendall(frame_message(message))

    def ready(self, timeout_s: float) -> bool:
        """Whether there is something to receive, now or within so long."""
        return bool(select.select([self._connection], [], [], timeout_s)[0])

    def receive(self) -> dict[str, Any] | None:
        """The next command; None when the worker has gone."""
        while (message := self._buffer.next()) is None:
            data = self._connection.recv(1 << 16)
            if not data:
                return None
            self._buffer.feed(data)
        return message


HALVES = {"encode": 0.0, "decode": 0.5, "join": 0.5}  # phases that are counted, and the fraction at which each begins


class ProgressMessages:
    """The progress callback of one run: counts both halves (encode, decode) into one fraction, and thins it out."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._phase: tuple[str, int] = ("", 0)
        self._phase_began = 0.0
        self._fraction = 0.0
        self._sent = 0.0

    def __call__(self, progress: Any) -> None:
        now = time.monotonic()
        phase = progress.phase, progress.pass_number
        if phase != self._phase:
            self._phase, self._phase_began = phase, now
        elif now - self._sent < PROGRESS_INTERVAL_S and progress.frame != progress.frames:
            return
        if progress.phase in HALVES and progress.frames:
            here = HALVES[progress.phase] + 0.5 * min(1.0, progress.frame / progress.frames)
            self._fraction = max(self._fraction, here)  # an encoder that passes twice must not seem to go back
        seconds = now - self._phase_began
        self._sent = now
        self._channel.send({"progress": {
            "phase": f"{progress.phase}, pass {progress.pass_number}" if progress.pass_number else str(progress.phase),
            "fraction": round(self._fraction, 4),
            "frame": int(progress.frame),
            "frames": None if progress.frames is None else int(progress.frames),
            "fps": round(progress.frame / seconds, 2) if seconds > 0 and progress.frame else None,
        }})


def warm(names: list[str]) -> dict[str, Any]:
    """Make each named codec ready; what the worker reports of them."""
    from coding import registry
    from service.processes.json_values import plain
    from service.processes.provenance import device
    from service.processes.segments import can_be_cut

    described = {}
    for name in names:
        made = registry.get(name)
        made.warm()
        described[name] = plain(made.describe())
    segmented = [name for name in names if can_be_cut(registry.get(name))]
    return {"codecs": described, "known": sorted(registry.names()), "segmented": segmented, "device": device()}


def serve(channel: Channel) -> None:
    """Carry out commands, one at a time, until the worker closes its end."""
    while (message := channel.receive()) is not None:
        try:
            if message.get("command") == "warm":
                channel.send({"ready": warm(message["codecs"])})
            else:
                from service.processes import measuring, segments

                job = message["job"]
                carry_out = (segments.run_segment if "segment" in job else segments.run_join if "segments" in job
                             else measuring.run)
                channel.send(carry_out(job, Path(message["out_dir"]), ProgressMessages(channel)))
        except Exception as error:  # the border: whatever a codec raises becomes an answer
            from service.processes.errors import explain

            traceback.print_exc()
            described, replace = explain(error)
            channel.send({"error": described, "replace": replace})


def register(specs: list[str]) -> None:
    """Make codecs given as ``name=module:factory`` known. Modules of the current directory are found too, last."""
    if not specs:
        return
    from coding import registry

    sys.path.append(os.getcwd())
    for spec in specs:
        name, _, target = spec.partition("=")
        registry.register(name, target)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The codec process of a worker; started by the worker, not by hand.")
    parser.add_argument("--socket", type=int, required=True, help="file descriptor of the worker's socket")
    parser.add_argument("--lifeline", type=int, required=True, help="file descriptor that ends with the worker")
    parser.add_argument("--memory-mb", type=int, default=0, help="memory allowed, in MiB; 0: no limit")
    parser.add_argument("--codec", action="append", default=[], metavar="NAME=MODULE:FACTORY")
    options = parser.parse_args(arguments)
    os.set_inheritable(options.socket, False)
    os.set_inheritable(options.lifeline, False)
    leave_a_guard(options.lifeline)
    bound_resources(options.memory_mb)
    faulthandler.enable()  # a crash in C code leaves its place on standard error, which the worker keeps
    channel = Channel(socket.socket(fileno=options.socket))
    try:
        register(options.codec)
        serve(channel)
    except BrokenPipeError:
        return 0  # the worker has gone; the guard is about to say the same
    return 0


if __name__ == "__main__":
    sys.exit(main())
