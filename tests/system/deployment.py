"""Both services as processes over real sockets, to be stopped, killed and started again as a test likes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import requests

from video.containers import VideoWriter
from video.picture import ClipInfo, Picture

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_S = 60.0  # for anything that a working machine does in a second or two
CODECS = ("raw=tests.standin:Raw", "scripted=tests.standin:Scripted")
QUICK_WORKER = ROOT / "tests" / "system" / "quick_worker.py"
LEASE_S, HEARTBEAT_S = 3.0, 0.3  # a dead worker is found in seconds; ten heartbeats may be late on a busy machine


def wait_until(what: Callable[[], Any], about: str = "it") -> Any:
    """What ``what`` gives, once that is true; for things that nobody sends word of."""
    until = time.monotonic() + PATIENCE_S
    while not (seen := what()):
        assert time.monotonic() < until, f"{about} did not come about in {PATIENCE_S:g} s"
        time.sleep(0.02)
    return seen


def until_true(what: Callable[[], Any], seconds: float) -> bool:
    """Whether it came true within so many seconds."""
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


class Program:
    """One service: a process, its log, and the address that it keeps from life to life. `script`: its program, if that
    is not the name's."""

    def __init__(self, name: str, folder: Path, *arguments: str, environment: dict[str, str] | None = None,
                 script: Path | None = None) -> None:
        self.name, self.folder, self.arguments = name, folder, arguments
        self.script = script or ROOT / f"{name}.py"
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        self.log = folder.with_name(folder.name + ".log")
        self.url = ""
        self.process: subprocess.Popen[str]
        self.start()

    def start(self) -> None:
        """Start it, at the address that it had, and wait until it listens."""
        port = self.url.rpartition(":")[2] or "0"
        command = [sys.executable, str(self.script), "--port", port, "--state", str(self.folder),
                   *self.arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT,
                                            env=self.environment)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.fullmatch(rf"{self.name} listening on (http://127\.0\.0\.1:\d+)\n", line)
        assert found, f"{line!r}; its log:\n{self.log.read_text()[-3000:]}"
        self.url = found[1]

    def kill(self) -> None:
        """As a power cut would: no time for anything."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def terminate(self) -> int:
        """Politely; the exit status."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def end(self) -> None:
        """Whatever state it is in."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        if self.process.stdout:
            self.process.stdout.close()

    def get(self, path: str, **more: Any) -> Any:
        return requests.get(self.url + path, timeout=PATIENCE_S, **more).json()


class Deployment:
    """An orchestrator and its workers. Use it in a with statement."""

    def __init__(self, folder: Path, workers: int = 1, *arguments: str) -> None:
        self.folder = folder
        self.gate = folder / "gate"
        self.orchestrator = Program("orchestrator", folder / "orchestrator", "--lease-s", str(LEASE_S),
                                    "--heartbeat-s", str(HEARTBEAT_S))
        self.workers: list[Program] = []
        for _ in range(workers):
            self.add_worker(*arguments)
        self.wait_ready()
        self.upload("tiny.mkv", tiny_clip(folder))

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *error: object) -> None:
        for program in [*self.workers, self.orchestrator]:
            program.end()

    def add_worker(self, *arguments: str) -> Program:
        name = f"w{len(self.workers) + 1}"
        codecs = [part for spec in CODECS for part in ("--codec", spec)]
        worker = Program("worker", self.folder / name, "--orchestrator", self.orchestrator.url, "--name", name,
                         "--warm", "raw", "--threads", "1", *codecs, *arguments,
                         environment={"NVC_TEST_GATE": str(self.gate)})
        self.workers.append(worker)
        return worker

    def wait_ready(self, count: int | None = None) -> None:
        """Until the orchestrator knows this many workers (default: all) to have a free slot."""
        wanted = len(self.workers) if count is None else count
        wait_until(lambda: sum(worker["free"] > 0 for worker in self.worker_list()) >= wanted, "a worker")

    def worker_list(self) -> list[dict[str, Any]]:
        return self.orchestrator.get("/workers")["workers"]

    def worker_named(self, name: str) -> Program:
        return self.workers[int(name.removeprefix("w")) - 1]

    def upload(self, name: str, data: bytes) -> None:
        requests.put(f"{self.orchestrator.url}/clips/{name}", data=data, timeout=PATIENCE_S).raise_for_status()

    def submit(self, script: str = "plain", **more: Any) -> str:
        """Submit an experiment of the scripted codec; its id."""
        document = {"clip": "tiny.mkv", "codec": "scripted", "model": script, **more}
        answer = requests.post(f"{self.orchestrator.url}/experiment", json=document, timeout=PATIENCE_S)
        assert answer.status_code == 202, answer.text
        return answer.json()["experiment_id"]

    def status(self, experiment: str) -> dict[str, Any]:
        return self.orchestrator.get(f"/experiment/{experiment}/status")

    def wait_for(self, experiment: str, what: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The status document, once it is as wanted; asks again only when it has changed."""
        until, tag, document = time.monotonic() + PATIENCE_S, "", {}
        while time.monotonic() < until:
            headers = {"Prefer": "wait=5"} | ({"If-None-Match": tag} if tag else {})
            answer = requests.get(f"{self.orchestrator.url}/experiment/{experiment}/status", headers=headers,
                                  timeout=PATIENCE_S)
            if answer.status_code == 304:
                continue
            document, tag = answer.json(), answer.headers["ETag"]
            if what(document):
                return document
        raise AssertionError(f"{experiment} did not get there in {PATIENCE_S:g} s: {document}")

    def wait_phase(self, experiment: str, phase: str) -> dict[str, Any]:
        """Until the codec has said that it is in this phase."""
        return self.wait_for(experiment, lambda document: (document.get("progress") or {}).get("phase") == phase)

    def wait_end(self, experiment: str) -> dict[str, Any]:
        return self.wait_for(experiment, lambda document: document["status"] in ("completed", "failed", "cancelled"))

    def cancel(self, experiment: str) -> int:
        return requests.post(f"{self.orchestrator.url}/experiment/{experiment}/cancel", timeout=PATIENCE_S).status_code

    def conservation(self) -> dict[str, Any]:
        return self.orchestrator.get("/conservation")

    def codec_processes(self, worker: Program) -> list[int]:
        return [slot["codec_process"] for slot in worker.get("/status")["slots"] if slot["codec_process"]]


def tiny_clip(folder: Path) -> bytes:
    """Three small pictures of noise."""
    path = folder / "tiny.mkv"
    rng = np.random.default_rng(5)
    with VideoWriter(path, ClipInfo(32, 16, Fraction(25))) as writer:
        for _ in range(3):
            writer.write(Picture(*(rng.integers(0, 256, size, np.uint8) for size in ((16, 32), (8, 16), (8, 16)))))
    return path.read_bytes()


def running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
