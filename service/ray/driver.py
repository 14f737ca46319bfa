"""The codec process of a worker with `--engine ray`: has the work done by an actor on some node of a Ray cluster.

    worker ◄─ socket ─► this process, a Ray driver ◄─► actor on a node (host.py) ◄─ socket ─► codec process

To its worker it is a codec process as service/processes/codec_process.py describes: the same messages, the same guard,
killed in the same way. Ray ends the actors of a driver that has ended, so a run that is cancelled, or whose worker is
killed, leaves nothing behind on its node. Where the node, or the cluster, is lost, the run ends as `worker-lost`, and
this process is replaced.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # modules are named from the top folder

from service.processes.codec_process import Channel, leave_a_guard
from service.ray.cluster import ENVIRONMENT

LOOK_S = 1.0        # between two looks for an actor that has nothing to do
CHECK_S = 10.0      # for it to answer


class Remote:
    """The actor, as this driver uses it."""

    def __init__(self, address: str, codecs: list[str], threads: int, gpus: int, memory_mb: int) -> None:
        os.environ.update(ENVIRONMENT)
        import ray

        from service.ray.host import PIECE, Host

        self._ray, self._piece = ray, PIECE
        root = str(Path(__file__).resolve().parents[2])     # nodes have the program in the same folder
        ray.init(address=address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": root}})
        made: Any = ray.remote(num_cpus=threads, num_gpus=gpus, max_restarts=0)(Host)
        self._actor = made.remote(codecs, threads, memory_mb)

    def _ask(self, method: str, *arguments: Any) -> Any:
        return self._ray.get(getattr(self._actor, method).remote(*arguments))

    def check(self) -> None:
        """Raises what Ray raises where the actor is gone."""
        self._ray.get(self._actor.here.remote(), timeout=CHECK_S)

    def command(self, message: dict[str, Any], channel: Channel) -> dict[str, Any]:
        """Pass a message on, and what is said meanwhile back; the last thing that is said."""
        said: dict[str, Any] = {}
        for reference in self._actor.command.options(num_returns="streaming").remote(message):
            said = self._ray.get(reference)
            if "progress" in said:
                channel.send(said)
        return said

    def run(self, message: dict[str, Any], channel: Channel) -> dict[str, Any]:
        """Carry out a run on the node: its files go there, and what it makes comes back into the worker's folder."""
        folder, out_dir = Path(self._ask("begin")), Path(message["out_dir"])
        job = dict(message["job"])
        if job["clip"].get("path"):
            job["clip"] = {**job["clip"], "path": self._send(Path(job["clip"]["path"]), job["clip"]["sha256"], folder)}
        if "segments" in job:
            job["segments"] = [{name: self._send(Path(path), None, folder) for name, path in files.items()}
                               for files in job["segments"]]
        answer = self.command({"command": "run", "job": job, "out_dir": str(folder)}, channel)
        for name in answer.get("artifacts", {}):
            self._fetch(name, out_dir / Path(name).name)
        return answer

    def _send(self, path: Path, sha256: str | None, folder: Path) -> str:
        """Where the node has the file, which it is sent if it has not got it."""
        if sha256 is None:
            with open(path, "rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if not self._ask("link", sha256, path.name):
            with open(path, "rb") as file:
                piece = file.read(self._piece)
                while True:
                    after = file.read(self._piece)
                    self._ask("receive", sha256, piece, not after)
                    if not after:
                        break
                    piece = after
            self._ask("link", sha256, path.name)
        return str(folder / path.name)

    def _fetch(self, name: str, target: Path) -> None:
        with open(target, "wb") as out:
            while piece := self._ask("read", name, out.tell()):
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())


def serve(channel: Channel, connect: Callable[[], Remote]) -> None:
    """Pass commands on until the worker closes its end, or the actor is found to be gone."""
    remote: Remote | None = None
    while True:
        try:
            while remote is not None and not channel.ready(LOOK_S):
                remote.check()
            if (message := channel.receive()) is None:
                return
            if remote is None:
                remote = connect()
            if message["command"] == "run":
                channel.send(remote.run(message, channel))
            else:
                channel.send(remote.command(message, channel))
        except BrokenPipeError:
            raise
        except Exception as error:      # the border: whatever Ray raises becomes an answer
            channel.send({"error": described(error), "replace": True})
            return


def described(error: Exception) -> dict[str, Any]:
    """An error of the way to the node, as a run's end: Ray's are those of a node or a cluster that is gone."""
    words = (str(error).strip().splitlines() or [""])[0][:300]
    if isinstance(error, OSError) and error.errno is not None:
        return {"type": "disk-full", "retry": True, "detail": f"a file of the run cannot be stored: {words}"}
    return {"type": "worker-lost", "retry": True, "detail": "the node of this run, or the cluster, is gone: "
                                                            f"{type(error).__name__}: {words}"}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Started by a worker with --engine ray, not by hand.")
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--lifeline", type=int, required=True)
    parser.add_argument("--memory-mb", type=int, default=0)
    parser.add_argument("--codec", action="append", default=[])
    parser.add_argument("--address", required=True, help="of the cluster, or auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    options = parser.parse_args(arguments)
    os.set_inheritable(options.socket, False)
    os.set_inheritable(options.lifeline, False)
    leave_a_guard(options.lifeline)
    channel = Channel(socket.socket(fileno=options.socket))
    with contextlib.suppress(BrokenPipeError):  # the worker has gone; the guard is about to say the same
        serve(channel, lambda: Remote(options.address, options.codec, options.threads, options.gpus, options.memory_mb))
    return 0


if __name__ == "__main__":
    sys.exit(main())
