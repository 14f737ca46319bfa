"""Measure the services: python -m bench.service [--rounds 3] > bench/results/service.json

What stands on an experiment's path beside the codec, on loopback, with durable commits (SQLite, synchronous=FULL):

    latency     health, status and submit, as a client sees them, with and without keep-alive, one call at a time;
                submit on a quiet service, and while the worker carries out those submitted before
    dispatch    from sending POST /experiment to the codec's first instruction, on an idle worker
    visible     from sending POST /experiment_result to the answer of a client that waits for it (Prefer: wait)
    rate        experiments a second from submission to result, with a codec that does nothing: through a real worker,
                and through one that is played here and answers at once, which leaves the orchestrator alone

Every figure is given for each round, so that its spread can be seen.  Times in milliseconds.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from coding.interface import Decoded, Encoded, FrameReport, Report, Settings, no_report
from service.http.client import Client
from service.http.exchange import Request, Response
from service.http.listening import ServerSettings
from service.http.routes import JSON, Routes
from service.http.server import Server
from service.runtime.logs import Log
from service.runtime.version import VERSION
from video.containers import VideoWriter
from video.picture import ClipInfo, Picture

ROOT = Path(__file__).resolve().parent.parent
START_S = 120.0
END_S = 120.0
WANTED = {"clip": "point.mkv", "keep_reconstruction": False}  # one picture of 16×16
TERMINAL = ("completed", "failed", "cancelled")


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Nothing:
    """A codec that does nothing, in the place of nvc: notes when it was called (Unix seconds), shows grey pictures."""

    name = "nvc"

    def warm(self) -> None: ...

    def describe(self) -> dict[str, Any]:
        return {"codec": "nothing"}

    def encode(
        self, pictures: Iterable[Picture], info: ClipInfo, settings: Settings, progress: Report = no_report
    ) -> Encoded:
        began = time.time()
        count = sum(1 for _ in pictures)
        said = f"{info.width} {info.height} {count}".encode()
        reports = [FrameReport(index, "I", 0) for index in range(count)]
        return Encoded(said, reports, "", replace(info, frames=count), {"began": began})

    def decode(self, data: bytes, progress: Report = no_report) -> Decoded:
        width, height, count = (int(number) for number in data.split())
        decoded = Decoded(ClipInfo(width, height, Fraction(25), count), iter(()))
        decoded.pictures = self._grey(decoded, count)
        return decoded

    def _grey(self, decoded: Decoded, count: int) -> Iterator[Picture]:
        info = decoded.info
        shapes = ((info.height, info.width), info.chroma_shape, info.chroma_shape)
        grey = Picture(*(np.full(shape, 128, np.uint8) for shape in shapes))
        for _ in range(count):
            yield grey
        decoded.details["ended"] = time.time()


# --- the machine and the services ----------------------------------------------------------------------------------


def machine(folder: Path) -> dict[str, Any]:
    """What the numbers were measured on, with the price of one durable write."""
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.processor())
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=False)
    with open(folder / "probe", "wb") as file:
        times = []
        for _ in range(100):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "kernel": platform.release(),
            "python": platform.python_version(), "file_system": kind.stdout.strip(),
            "fsync_4k_ms": spread(times), "load_average_at_start": os.getloadavg()}


@contextmanager
def running(name: str, folder: Path, *arguments: str) -> Iterator[str]:
    """A service as a process; its address."""
    command = [sys.executable, str(ROOT / f"{name}.py"), "--port", "0", "--state", str(folder / name), *arguments]
    with open(folder / f"{name}.log", "wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
    assert process.stdout is not None  # asked for by stdout=PIPE
    try:
        found = re.search(r"listening on (\S+)", process.stdout.readline())
        if found is None:
            raise RuntimeError(f"{name} does not start:\n{(folder / f'{name}.log').read_text()[-2000:]}")
        yield found[1]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


@contextmanager
def both_running(folder: Path) -> Iterator[tuple[str, Caller]]:
    """Both services, the worker registered; the orchestrator's address and what calls it."""
    with running("orchestrator", folder) as orchestrator, running("worker", folder, "--orchestrator", orchestrator):
        call = Caller(orchestrator)
        wait_for_worker(call)
        yield orchestrator, call


class Caller:
    """The least that a client can do: http.client, one connection kept, or a new one for each call."""

    def __init__(self, url: str, keep_alive: bool = True) -> None:
        self._host, self._keep_alive = urlsplit(url).netloc, keep_alive
        self._connection = http.client.HTTPConnection(self._host, timeout=END_S)

    def __call__(self, method: str, path: str, document: Any = None, **headers: str) -> dict[str, Any]:
        body = None if document is None else json.dumps(document)
        fields = {"Content-Type": "application/json"} if body else {}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        if not self._keep_alive:
            fields["Connection"] = "close"
        self._connection.request(method, path, body, fields)
        answer = self._connection.getresponse()
        data = answer.read()
        if not self._keep_alive:
            self._connection.close()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {data[:500]!r}")
        made: dict[str, Any] = json.loads(data) if data else {}
        return made


def wait_for_worker(call: Caller) -> None:
    until = time.monotonic() + START_S
    while not any(worker["free"] for worker in call("GET", "/workers")["workers"]):
        if time.monotonic() > until:
            raise RuntimeError("no worker is ready")
        time.sleep(0.05)


def wait_end(call: Caller, experiment: str) -> dict[str, Any]:
    until = time.monotonic() + END_S
    while time.monotonic() < until:
        document = call("GET", f"/experiment/{experiment}/status", Prefer="wait=10")
        if document["status"] in TERMINAL:
            if document["status"] != "completed":
                raise RuntimeError(f"{experiment}: {document}")
            return document
    raise RuntimeError(f"{experiment} has not ended")


def upload_point(orchestrator: str, folder: Path) -> None:
    """The smallest clip: one grey picture."""
    path = folder / "point.mkv"
    with VideoWriter(path, ClipInfo(16, 16, Fraction(25))) as writer:
        writer.write(Picture(*(np.full(shape, 128, np.uint8) for shape in ((16, 16), (8, 8), (8, 8)))))
    Client(orchestrator).put_file("/clips/point.mkv", path)


# --- what is measured ----------------------------------------------------------------------------------------------


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles, in milliseconds."""
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return round(1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)

    return {"count": len(ordered), "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": round(1e3 * ordered[-1], 3)}


def timed(count: int, call: Callable[[], Any]) -> dict[str, float]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return spread(times)


def latency(orchestrator: str, count: int) -> dict[str, Any]:
    """Health, status of a finished experiment, submit to a service at work."""
    made: dict[str, Any] = {}
    submitted: list[str] = []
    done = wait_for_one(Caller(orchestrator))
    for kind, keep_alive in (("keep_alive", True), ("new_connection", False)):
        call = Caller(orchestrator, keep_alive)
        made[kind] = {
            "health": timed(count, lambda: call("GET", "/health")),  # noqa: B023
            "status": timed(count, lambda: call("GET", f"/experiment/{done}/status")),  # noqa: B023
            "submit_at_work": timed(count // 10, lambda: submitted.append(
                call("POST", "/experiment", WANTED)["experiment_id"])),  # noqa: B023
        }
        for experiment in submitted:
            wait_end(Caller(orchestrator), experiment)
        submitted.clear()
    return made


def submit_quiet(orchestrator: str, count: int) -> dict[str, Any]:
    """Submit while there is no worker: what is left is the way to the disk and back."""
    made = {}
    for kind, keep_alive in (("keep_alive", True), ("new_connection", False)):
        call = Caller(orchestrator, keep_alive)
        made[kind] = timed(count, lambda: call("POST", "/experiment", WANTED))  # noqa: B023
    return made


def wait_for_one(call: Caller) -> str:
    experiment: str = call("POST", "/experiment", WANTED)["experiment_id"]
    wait_end(call, experiment)
    return experiment


def dispatch(orchestrator: str, count: int) -> dict[str, Any]:
    """One experiment after the other, each on an idle worker."""
    call = Caller(orchestrator)
    to_start, to_end = [], []
    for _ in range(count):
        began = time.time()
        experiment = call("POST", "/experiment", WANTED)["experiment_id"]
        document = wait_end(call, experiment)
        to_end.append(time.time() - began)
        to_start.append(document["encoding_result"]["details"]["began"] - began)
    return {"submit_to_codec_started": spread(to_start), "submit_to_result_seen": spread(to_end)}


def rate(orchestrator: str, count: int, clients: int) -> dict[str, float]:
    """Experiments a second while several clients submit and wait for all of theirs."""

    def client(share: int) -> None:
        call = Caller(orchestrator)
        for experiment in [call("POST", "/experiment", WANTED)["experiment_id"] for _ in range(share)]:
            wait_end(call, experiment)

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        for finished in [pool.submit(client, count // clients) for _ in range(clients)]:
            finished.result()
    seconds = time.perf_counter() - began
    return {"experiments": count // clients * clients, "clients": clients, "seconds": round(seconds, 3),
            "experiments_per_s": round(count // clients * clients / seconds, 1)}


class Played:
    """A worker that computes nothing: it takes runs over HTTP and reports their ends, at once or when told."""

    def __init__(self, orchestrator: str, slots: int, **about: Any) -> None:
        """about: more of what it says of itself."""
        self.at_once = True
        self.held: list[dict[str, Any]] = []
        self.got = threading.Condition()
        self._client = Client(orchestrator)
        self._pool = ThreadPoolExecutor(slots)
        self._over = threading.Event()
        self._running: dict[str, int] = {}
        routes = Routes()
        routes.add("POST", "/experiment", self._take, body=JSON)
        routes.add("GET", "/livez", lambda request: Response(200, {}), always=True)
        self._server = Server(routes, ServerSettings(port=0), log=Log(level="error"))
        self._server.start()
        self._about = {"name": "played", "url": self._server.url, "slots": slots, "codecs": ["nvc"], "boot_id": "1",
                       **about}
        self._beat = threading.Thread(target=self._live, daemon=True)
        self._beat.start()

    def _live(self) -> None:
        while not self._over.is_set():
            with self.got:
                running = [{"run": run, "attempt": attempt} for run, attempt in self._running.items()]
            self._client.post("/workers", {**self._about, "running": running}, idempotent=True)
            self._over.wait(1.0)

    def _take(self, request: Request) -> Response:
        wanted = request.document()
        with self.got:
            self._running[wanted["run"]] = wanted["attempt"]
            self.held.append(wanted)
            self.got.notify_all()
        if self.at_once:
            self._pool.submit(self.end, wanted)
        return Response(202, {})

    def end(self, wanted: dict[str, Any]) -> None:
        message = {"run": wanted["run"], "attempt": wanted["attempt"], "state": "completed", "error": None,
                   "artifacts": {}, "result": self.result_of(wanted)}
        self._client.post("/experiment_result", message, idempotent=True)
        with self.got:
            self._running.pop(wanted["run"], None)

    def result_of(self, wanted: dict[str, Any]) -> dict[str, Any]:
        return {"metrics": {"psnr_db": 0.0}}

    def stop(self) -> None:
        self._over.set()
        self._beat.join()
        self._pool.shutdown()
        self._server.stop(2.0)


def visible(orchestrator: str, played: Played, count: int) -> dict[str, Any]:
    """A client waits; the result is posted; when has the client it?"""
    played.at_once = False
    call, times = Caller(orchestrator), []
    seen: list[float] = []
    for _ in range(count):
        experiment = call("POST", "/experiment", WANTED)["experiment_id"]
        with played.got:
            played.got.wait_for(lambda: any(wanted["run"] == experiment for wanted in played.held), END_S)  # noqa: B023
            wanted = next(wanted for wanted in played.held if wanted["run"] == experiment)

        def wait(experiment: str = experiment) -> None:
            wait_end(Caller(orchestrator), experiment)
            seen.append(time.perf_counter())

        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(0.05)  # for the waiter to be waiting; what it then sees is what is measured
        began = time.perf_counter()
        played.end(wanted)
        waiter.join()
        times.append(seen.pop() - began)
    played.at_once = True
    return {"result_posted_to_visible": spread(times)}


# --- all of it -----------------------------------------------------------------------------------------------------


def measure(rounds: int, count: int) -> dict[str, Any]:
    made: dict[str, Any] = {"rounds": []}
    with tempfile.TemporaryDirectory(dir=ROOT / "bench" / "results", prefix=".state-") as name:
        folder = Path(name)  # beside the repository: /tmp may be in memory, where a durable write costs nothing
        made["machine"] = machine(folder)
        for index in range(rounds):
            note(f"round {index + 1} of {rounds}")
            with ExitStack() as stack:
                (folder / f"real{index}").mkdir()
                orchestrator = stack.enter_context(running("orchestrator", folder / f"real{index}"))
                stack.enter_context(running("worker", folder / f"real{index}", "--orchestrator", orchestrator,
                                            "--codec", "nvc=bench.service:Nothing", "--threads", "1"))
                upload_point(orchestrator, folder)
                wait_for_worker(Caller(orchestrator))
                wait_for_one(Caller(orchestrator))
                one = {"latency": latency(orchestrator, count), "dispatch": dispatch(orchestrator, count // 10),
                       "rate_real_worker": rate(orchestrator, count // 5, 8)}
            with ExitStack() as stack:
                (folder / f"played{index}").mkdir()
                orchestrator = stack.enter_context(running("orchestrator", folder / f"played{index}"))
                upload_point(orchestrator, folder)
                one["submit_quiet"] = submit_quiet(orchestrator, count // 5)
                played = Played(orchestrator, 8)
                stack.callback(played.stop)
                wait_for_worker(Caller(orchestrator))
                wait_for_one(Caller(orchestrator))  # the last in the queue: from here on there is nothing else
                one |= visible(orchestrator, played, count // 10)
                one["rate_played_worker"] = rate(orchestrator, count, 8)
            made["rounds"].append(one)
            note(json.dumps(one))
        made["machine"]["load_average_at_end"] = os.getloadavg()
    made["summary"] = summary(made["rounds"])
    return made


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Median over the rounds, with the lowest and the highest."""

    def over(pick: Callable[[dict[str, Any]], float]) -> dict[str, float]:
        values = [pick(one) for one in rounds]
        return {"median": round(statistics.median(values), 3), "lowest": min(values), "highest": max(values)}

    made: dict[str, Any] = {}
    for kind in ("keep_alive", "new_connection"):
        for part in ("p50", "p95", "p99"):
            for name in ("health", "status", "submit_at_work"):
                made[f"{name}_{kind}_{part}_ms"] = over(lambda one: one["latency"][kind][name][part])  # noqa: B023
            made[f"submit_quiet_{kind}_{part}_ms"] = over(lambda one: one["submit_quiet"][kind][part])  # noqa: B023
    for part in ("p50", "p95", "p99"):
        for name in ("submit_to_codec_started", "submit_to_result_seen"):
            made[f"{name}_{part}_ms"] = over(lambda one: one["dispatch"][name][part])  # noqa: B023
        made[f"result_posted_to_visible_{part}_ms"] = over(lambda one: one["result_posted_to_visible"][part])  # noqa: B023
    for name in ("rate_real_worker", "rate_played_worker"):
        made[f"{name}_experiments_per_s"] = over(lambda one: one[name]["experiments_per_s"])  # noqa: B023
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=1000, help="calls of the cheapest kind in a round (1000)")
    options = parser.parse_args()
    made = measure(options.rounds, options.count)
    print(json.dumps({"command": "python -m bench.service", "version": VERSION, **made}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
